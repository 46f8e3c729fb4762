"""The changes that are written: a mix of all kinds over a few thousand paths."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Connection, insert, text

from events_app import schema

# What an app names in its INSERT; the other columns take their defaults.
COLUMNS = ("user_id", "type", "file_id", "from_path", "to_path", "client_id")

KINDS = ("create", "modify", "modify", "modify", "rename", "delete")
USERS = 50
FOLDERS = 200
BATCH = 1_000

_CLIENT_ID = str(uuid.UUID(int=1))


def change(number: int, user_id: str | None = None) -> tuple[str | None, ...]:
    """Make the values of `COLUMNS` for the change of this number."""
    kind = KINDS[number % len(KINDS)]
    path = f"/documents/folder {number % FOLDERS}/report {number // len(KINDS)}.odt"
    to_path = f"{path}.renamed" if kind == "rename" else None
    user_id = user_id or f"user-{number % USERS}"
    client_id = None if number % 2 else _CLIENT_ID
    return user_id, kind, f"file-{number // len(KINDS)}", path, to_path, client_id


def named(number: int, user_id: str | None = None) -> dict[str, Any]:
    """Make the change of this number with its columns' names."""
    return dict(zip(COLUMNS, change(number, user_id), strict=True))


def fill_outbox(connection: Connection, count: int, user_id: str | None = None) -> None:
    """Insert so many changes, in the caller's transaction."""
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        connection.execute(insert(schema.outbox), [named(n, user_id) for n in numbers])


def empty(connection: Connection) -> None:
    """Remove all changes, so that the next round begins like the first."""
    for table in (schema.outbox, schema.journal):
        connection.execute(table.delete())
    connection.execute(text("UPDATE file_event_state SET last_position = 0, floor_position = 0"))

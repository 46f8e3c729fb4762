"""Rows as an app inserts them, and as the journal holds them afterwards."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.engine.interfaces import IsolationLevel

from events_app.schema import journal, outbox, state


def app(url: str, isolation: IsolationLevel | None = None) -> Engine:
    """Make the engine of an app: its own connections, at its own isolation level."""
    options = {} if isolation is None else {"isolation_level": isolation}
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **options)


def insert(connection: Connection, *paths: str, **columns: Any) -> None:
    """Insert one row for each path, plainly, as any program would."""
    for path in paths:
        values = {"user_id": "42", "type": "create", "file_id": path, "from_path": path} | columns
        table = sqlalchemy.table("file_event_outbox", *map(sqlalchemy.column, values))
        connection.execute(sqlalchemy.insert(table).values(values))


def commit(url: str, *paths: str, **columns: Any) -> None:
    """Insert rows in a transaction of their own."""
    with app(url).begin() as connection:
        insert(connection, *paths, **columns)


def numbered(count: int, start: int = 1) -> list[str]:
    """Name `count` paths in order."""
    return [f"/{number:06}" for number in range(start, start + count)]


def waiting(connection: Connection) -> int:
    """Count the rows in the outbox."""
    return connection.scalar(select(func.count()).select_from(outbox)) or 0


def paths(connection: Connection) -> list[str]:
    """List what the journal holds, by position."""
    return list(connection.scalars(select(journal.c.from_path).order_by(journal.c.position)))


def positions(connection: Connection) -> list[int]:
    """List the positions that the journal holds."""
    return list(connection.scalars(select(journal.c.position).order_by(journal.c.position)))


def rejections(connection: Connection) -> dict[str, str | None]:
    """Map each file id in the journal to the reason why it was rejected."""
    found = connection.execute(select(journal.c.file_id, journal.c.rejected))
    return {row.file_id: row.rejected for row in found}


def last_position(connection: Connection) -> int:
    """Read the last position that was given."""
    return connection.scalar(select(state.c.last_position)) or 0


def wait_for_state(connection: Connection) -> None:
    """Return when nobody else holds the state row: who was killed may hold it for a moment."""
    connection.execute(select(state).with_for_update())

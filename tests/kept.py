"""The journal as a test wants to find it: rows put there directly, without a mover."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import insert, update

from events_app.columns import utc_now
from events_app.database import Database
from events_app.schema import journal, state

DEFAULTS = {
    "user_id": "42",
    "type": "create",
    "fs": "my",
    "is_folder": 0,
    "to_path": None,
    "client_id": None,
    "actor_id": None,
    "event_key": None,
    "meta": None,
    "rejected": None,
}


def tag_of(position: int) -> int:
    """Return the tag that a row is given here unless a test says another one."""
    return position * 10 + 1


def row(position: int, **columns: Any) -> dict[str, Any]:
    """Make the values of one row; whatever is not said does not matter."""
    path = f"/{position:06}"
    named = {"position": position, "tag": tag_of(position), "file_id": path, "from_path": path}
    return DEFAULTS | named | columns


def keep(database: Database, values: Iterable[dict[str, Any]], *, last: int | None = None) -> None:
    """Insert rows and set the last position to `last`, or to that of the last row."""
    listed = list(values)
    now = database.read(lambda db: db.scalar(utc_now()))
    stamped = [{"created_at": now, "recorded_at": now, **each} for each in listed]
    end = listed[-1]["position"] if last is None else last

    def write(connection: Any) -> None:
        if stamped:
            connection.execute(insert(journal), stamped)
        connection.execute(update(state).values(last_position=end))

    database.write(write)


def keep_run(database: Database, first: int, last: int, **columns: Any) -> None:
    """Insert the rows `first` to `last`."""
    keep(database, (row(position, **columns) for position in range(first, last + 1)), last=last)

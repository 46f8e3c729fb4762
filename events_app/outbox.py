"""Append changes for writers in Python; other languages insert the row themselves."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert

from events_app import schema


def append(
    connection: Connection,
    user_id: str,
    kind: str,
    file_id: str,
    from_path: str,
    to_path: str | None = None,
    **columns: Any,
) -> None:
    """Insert one change into the outbox, in the caller's own transaction.

    `kind` is `create`, `modify`, `rename` or `delete`; paths are decoded and absolute; `columns`
    are further columns of the table by name. Raises what the database's CHECKs raise, and
    `CompileError` for a column that is none.
    """
    values = {
        "user_id": user_id,
        "type": kind,
        "file_id": file_id,
        "from_path": from_path,
        "to_path": to_path,
        **columns,
    }
    # Inline: fetching the new id would need the right to read the outbox.
    connection.execute(insert(schema.outbox).inline().values(values))

"""Append changes for writers in Python; other languages insert the row themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import Connection, exc, insert

from events_app import schema
from events_app.columns import parts

# What a writer says; the database adds the rest.
COLUMNS = tuple(each.name for each in schema.outbox.c if each.name not in {"id", "created_at"})

# Inline: fetching the new id would need the right to read the outbox.
_INSERT = insert(schema.outbox).inline()
_COPY = f"COPY {schema.outbox.name} ({', '.join(COLUMNS)}) FROM STDIN"
# To write so many takes a driver a few milliseconds of the event loop, then it waits for an answer.
ROWS_PER_STATEMENT = 200


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
    connection.execute(_INSERT.values(values))


class Batch:
    """Many changes, made ready one by one and written in one short transaction.

    Whoever adds them may pause in between: nothing is locked until `write`. What goes in are values
    of all `COLUMNS`, as `intake.offered` returns them.
    """

    def __init__(self, *, is_postgresql: bool) -> None:
        """Begin without a change, for this kind of database."""
        self._is_copied = is_postgresql
        self._lines: list[str] = []
        self._rows: list[Mapping[str, Any]] = []

    def add(self, values: Mapping[str, Any]) -> None:
        """Make one change ready."""
        if self._is_copied:
            self._lines.append("\t".join([_copied(values[name]) for name in COLUMNS]) + "\n")
        else:
            self._rows.append(values)

    def write(self, connection: Connection) -> None:
        """Insert all of them in their order, in the caller's own transaction.

        By COPY where there is one, as the mover does. Raises what the database raises.
        """
        if self._is_copied:
            self._copy(connection)
        for some in parts(self._rows, ROWS_PER_STATEMENT):
            connection.execute(_INSERT, some)

    def _copy(self, connection: Connection) -> None:
        try:
            with connection.connection.cursor().copy(_COPY) as copy:
                for some in parts(self._lines, ROWS_PER_STATEMENT):
                    copy.write("".join(some))
        except psycopg.Error as error:
            # SQLAlchemy does not see this statement, and so does not say what kind of error it is.
            raise exc.DBAPIError.instance(
                _COPY, None, error, psycopg.Error, dialect=connection.dialect
            ) from error


# What means something in COPY's text format; the backslash first, for the others bring one along.
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))


def _copied(value: str | int | None) -> str:
    """Write a value in COPY's text format."""
    if value is None:
        return r"\N"
    text = str(value)
    for meaning, escaped in _ESCAPES:
        if meaning in text:
            text = text.replace(meaning, escaped)
    return text

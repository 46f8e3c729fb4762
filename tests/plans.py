"""How an engine would answer: the plans of what is asked of the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, text

from events_app.database import Database

_ANALYZE = {
    "sqlite": "ANALYZE",
    "postgresql": "ANALYZE file_event_journal",
    "mysql": "ANALYZE TABLE file_event_journal",
}
_OF_AUDITORS = ("file_event_journal", "file_event_audit")
_EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN ", "mysql": "EXPLAIN "}

PRIMARY = {
    "sqlite": "INTEGER PRIMARY KEY",
    "postgresql": "file_event_journal_pkey",
    "mysql": "PRIMARY",
}
# How a plan says that it reads everything.
WHOLE = {
    "sqlite": "SCAN file_event_journal",
    "postgresql": "Seq Scan on file_event_journal",
    "mysql": "file_event_journal ALL",
}


def analyze(database: Database) -> None:
    """Have the engine count what is in the journal now."""
    database.write(lambda db: db.execute(text(_ANALYZE[database.engine.dialect.name])))


def of(
    database: Database,
    read: Callable[[Connection], Any],
    *tables: str,
) -> str:
    """Return the plans of everything that `read` asks of `tables`, a step a line.

    Unless some are named these are the journal and its views.
    """
    found: list[str] = []

    def look(connection: Connection) -> None:
        asked: list[tuple[str, Any]] = []

        def note(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
            del cursor, context
            if any(name in statement for name in tables or _OF_AUDITORS):
                asked.append((statement, parameters))

        sqlalchemy.event.listen(database.engine, "do_execute", note)
        read(connection)
        sqlalchemy.event.remove(database.engine, "do_execute", note)
        for statement, parameters in asked:
            query = _EXPLAIN[connection.dialect.name] + statement
            lines = connection.exec_driver_sql(query, parameters)
            found.extend(" ".join(map(str, line)) for line in lines)

    database.read(look)
    assert found
    return "\n".join(found)

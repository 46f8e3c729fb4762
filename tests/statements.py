"""The statements that an engine runs, one after the other: to count them and to fail between them.

The hooks are those of the dialect: the engine's own are not told of rows inserted many at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import Engine, event

from events_app import database, sequencer

COMMIT = "COMMIT"


def before_each(engine: Engine, action: Callable[[str], object]) -> None:
    """Call `action` with the text of each statement before it is run, and before a commit."""

    def with_parameters(cursor: Any, statement: str, *rest: Any) -> None:
        del cursor, rest
        action(" ".join(statement.split()))

    def connected(connection: Any, record: Any) -> None:
        del record
        if isinstance(connection, psycopg.Connection):
            connection.cursor_factory = _telling_of_copies(connection.cursor_factory, action)

    for hook in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(engine, hook, with_parameters)
    event.listen(engine, "connect", connected)
    event.listen(engine, "commit", lambda _: action(COMMIT))


def _telling_of_copies(
    factory: type[psycopg.Cursor[Any]], action: Callable[[str], object]
) -> type[psycopg.Cursor[Any]]:
    class Cursor(factory):  # type: ignore[valid-type, misc] # whatever class was in use so far
        def copy(self, statement: str, *rest: Any, **options: Any) -> Any:
            action(statement)
            return super().copy(statement, *rest, **options)

    return Cursor


def watch(engine: Engine) -> list[str]:
    """Return a list that grows with each statement."""
    seen: list[str] = []
    before_each(engine, seen.append)
    return seen


def of_a_step(url: str) -> list[str]:
    """List what one step of the mover runs, ending with its commit; nothing of it is kept."""
    engine = database.create_engine(url)
    seen = watch(engine)
    with engine.connect() as connection:
        connection.begin()
        seen.clear()
        sequencer.move(connection, sequencer.BATCH_ROWS)
        connection.rollback()
    engine.dispose()
    return [*seen, COMMIT]

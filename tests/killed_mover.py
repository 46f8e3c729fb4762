"""A mover that is killed between any two of its statements, as `python -m tests.killed_mover URL`.

Prints one line for each place it died at: what it would have run next, and how many rows the
outbox and the journal held afterwards.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sqlalchemy import Connection, event, select

from events_app import database, sequencer
from events_app.schema import state
from tests import rows


def statements(url: str) -> list[str]:
    """List what one step runs, without keeping anything of it."""
    engine = database.create_engine(url)
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        del connection, cursor, rest
        seen.append(" ".join(statement.split()))

    with engine.connect() as connection:
        sequencer.move(connection, sequencer.BATCH_ROWS)
        connection.rollback()
    engine.dispose()
    return seen


def die_before(url: str, number: int) -> None:
    """Step, and be killed before statement `number` (from 1); past the last one: the commit."""
    engine = database.create_engine(url)
    count = 0

    def kill(*event_arguments: Any) -> None:
        nonlocal count
        del event_arguments
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "before_cursor_execute", kill)
    event.listen(engine, "commit", kill)
    with engine.begin() as connection:
        sequencer.move(connection, sequencer.BATCH_ROWS)


def look(connection: Connection) -> tuple[int, int]:
    """Wait until nobody holds the state row; count the rows of outbox and journal."""
    connection.execute(select(state).with_for_update())
    return rows.waiting(connection), len(rows.positions(connection))


def main(url: str) -> None:
    places = [*statements(url), "COMMIT"]
    for number, place in enumerate(places, start=1):
        mover = os.fork()
        if not mover:
            die_before(url, number)
            os._exit(0)
        status = os.waitpid(mover, 0)[1]
        assert os.WIFSIGNALED(status), place
        with rows.app(url).begin() as connection:
            print(*look(connection), place)


if __name__ == "__main__":
    main(sys.argv[1])

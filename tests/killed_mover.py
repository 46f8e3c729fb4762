"""A mover that is killed between any two of its statements, as `python -m tests.killed_mover URL`.

Writes one line for each place it died at: how many rows the outbox and the journal held afterwards,
and what it would have done next.
"""

from __future__ import annotations

import os
import signal
import sys

from events_app import database, sequencer
from tests import rows, statements


def die_before(url: str, number: int) -> None:
    """Step, and be killed before statement `number`, counted from 0."""
    engine = database.create_engine(url)
    seen = statements.watch(engine)
    begun = False

    def kill(statement: str) -> None:
        del statement
        if begun and len(seen) > number:
            os.kill(os.getpid(), signal.SIGKILL)

    statements.before_each(engine, kill)
    with engine.begin() as connection:
        seen.clear()
        begun = True
        sequencer.move(connection, sequencer.BATCH_ROWS)


def main(url: str) -> None:
    for number, place in enumerate(statements.of_a_step(url)):
        mover = os.fork()
        if not mover:
            die_before(url, number)
            os._exit(0)
        status = os.waitpid(mover, 0)[1]
        assert os.WIFSIGNALED(status), place
        with rows.app(url).begin() as connection:
            rows.wait_for_state(connection)
            held = (rows.waiting(connection), len(rows.positions(connection)))
        sys.stdout.write(f"{held[0]} {held[1]} {place}\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""Whether the database takes what we write, asked where nothing else would show that it does not.

A read-only or full database answers every look at an empty outbox. Only streams that begin and
cursors that are stored would notice, each by itself, while `readyz` said yes.
"""

from __future__ import annotations

from sqlalchemy import Connection, exc, false, select, update

from events_app import failures, fitness, schema
from events_app.clock import Clock
from events_app.columns import utc_now
from events_app.database import Database

# How long a database may be read-only before a worker that has nothing to write notices.
EVERY_SECONDS = 5.0

_TABLES = (schema.outbox, schema.journal, schema.state, schema.subscription)
_STATE = schema.state.c
_LOCK = select(_STATE.id).where(_STATE.id == 1).with_for_update(skip_locked=True)
# Of a value that stays the same SQLite and InnoDB would write nothing.
_TOUCH = update(schema.state).values(updated_at=utc_now()).where(_STATE.id == 1)


class Probe:
    """Asks now and then, and after each write that failed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Ask `database`, for the first time after a while."""
        self._database = database
        self._clock = clock
        self._due_at = clock.monotonic() + EVERY_SECONDS

    def ask_if_due(self) -> None:
        """Raise what the database raises, as long as it does."""
        if not self._database.is_doubtful and self._clock.monotonic() < self._due_at:
            return
        try:
            work = _try_all if self._database.is_doubtful else fitness.refuse_read_only
            self._database.write(work)
        except exc.DBAPIError as error:
            # Whoever has SQLite's lock is writing.
            if not failures.is_locked(error):
                raise
        self._database.is_doubtful = False
        self._due_at = self._clock.monotonic() + EVERY_SECONDS


def _try_all(connection: Connection) -> None:
    """Look for every table and column, and write a row, unless somebody else does."""
    for table in _TABLES:
        connection.execute(select(table).where(false()))
    if connection.scalar(_LOCK) is not None:
        connection.execute(_TOUCH)

"""Changes that come by HTTP: into the outbox, and word of where they stand in the journal.

Theory of operation
    A batch is written in one transaction; which of its rows repeat an `event_key` is decided where
    it is for every writer: by the mover, of which there is one at a time, and by the unique key of
    the journal. So a row that is retried is written again and journalled as a duplicate. Where a
    batch stands is asked of the journal by its keys. Whoever wants to know waits on a bell, which
    the tailer rings, and holds neither a connection nor a thread meanwhile.

Rules
    So many at a time read and write bodies, and the others wait in a queue that has an end: each
    holds its body in memory, and a database that is away must not fill it. Nor must bodies that
    come slowly: of large ones so many may be on their way, and of one writer half of them. Who
    waits for word of a batch holds no more of it than its keys.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from events_app import errors, failures, journal, outbox
from events_app.clock import Clock
from events_app.database import Database
from events_app.tailer import Tailer

log = logging.getLogger(__name__)

# Of the pool's connections these and the streams' turns leave one to the tailer and the ledger. A
# batch keeps the processor busy most of its time, so that more at once would not be faster.
AT_ONCE = 2
# 5 MiB each, by default.
MOST_WAITING = 64
# Bodies of which there is room for any number, for a connection costs as much.
SMALL_BYTES = 16 * 1024
# Larger ones that come or wait, and how many of them may be of one writer.
MOST_LARGE = 128
MOST_LARGE_OF_ONE = 64
# To read or make ready so many takes a few milliseconds of the event loop.
ROWS_PER_PASS = 200
# The bell may be another change's, and on a worker that is stopping none rings.
LOOK_SECONDS = 0.25

NO_RIGHT = "the database role of this server may not INSERT into file_event_outbox"

Key = tuple[str, str]
Values = dict[str, Any]


class Span(NamedTuple):
    """The lowest and the highest position of a batch; others' changes may stand between them."""

    first: int
    last: int


class Writing:
    """What one worker writes for others."""

    def __init__(self, database: Database, tailer: Tailer, clock: Clock) -> None:
        """Write into `database`, whose journal `tailer` follows."""
        self._database = database
        self._tailer = tailer
        self._clock = clock
        self._turns = BoundedSemaphore(AT_ONCE)
        self._waiting = 0
        self._large: Counter[str | None] = Counter()
        self._stopping = False
        self.appended_changes = 0
        """Changes that this worker committed."""

    @contextlib.contextmanager
    def room(self, writer: str | None, length: int | None) -> Iterator[None]:
        """Have room for a body of `length` bytes until it is written; None: of any length.

        Raises `DatabaseAway`.
        """
        if length is not None and length <= SMALL_BYTES:
            yield
            return
        if self._large.total() >= MOST_LARGE or self._large[writer] >= MOST_LARGE_OF_ONE:
            raise errors.DatabaseAway("too many large bodies at once; try again")
        self._large[writer] += 1
        try:
            yield
        finally:
            self._large -= Counter([writer])

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until it is the caller's turn to read and write a body; raise `DatabaseAway`."""
        if self._waiting >= MOST_WAITING:
            raise errors.DatabaseAway("too many write at once; try again")
        self._waiting += 1
        try:
            self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    def append(self, changes: Iterable[Values], *, traced: bool = False) -> list[Values]:
        """Commit all of `changes` or none; return them as they were written.

        They are read to the last before anything is written; `traced`, so that their `span` can
        be told. Raises what reading them raises, `DatabaseAway` when the database is away or takes
        nothing, and `BadParameter` for a value that it refuses. A commit whose answer is lost may
        have happened.
        """
        rows = list(_paced(changes))
        if traced:
            _trace(rows)
        batch = outbox.Batch(is_postgresql=self._database.is_postgresql)
        for values in _paced(rows):
            batch.add(values)
        self._write(batch.write)
        self.appended_changes += len(rows)
        # The next turn would come by itself, at the poll interval.
        self._tailer.bell.set()
        return rows

    def _write(self, work: Callable[[Connection], None]) -> None:
        try:
            self._database.write(work)
        except SQLAlchemyError as error:
            _refuse(error)

    def span(self, keys: Sequence[Key], seconds: float) -> Span | None:
        """Wait until the rows of these `keys` are in the journal; None: not in `seconds`.

        A key that was used before stands where it stood. None also when the database is away
        meanwhile, or when the worker stops: what was committed is committed.
        """
        until = self._clock.monotonic() + seconds
        with self._hearing({user_id for user_id, _ in keys}) as bell:
            try:
                return self._wait(list(keys), bell, until)
            except SQLAlchemyError as error:
                log.warning("where a batch stands cannot be read: %s", failures.words_of(error))
                return None

    @contextlib.contextmanager
    def _hearing(self, users: Iterable[str]) -> Iterator[Event]:
        bell = Event()
        for user_id in users:
            self._tailer.add_bell(user_id, bell)
        try:
            yield bell
        finally:
            for user_id in users:
                self._tailer.remove_bell(user_id, bell)

    def _wait(self, missing: list[Key], bell: Event, until: float) -> Span | None:
        """Ask for some keys at a time, in their order, which is that in which rows move."""
        found: list[int] = []
        while missing:
            asked, rest = missing[: journal.PAGE_ROWS], missing[journal.PAGE_ROWS :]
            positions = self._positions(asked, until)
            found += positions.values()
            late = [key for key in asked if key not in positions]
            if late and not self._pause(bell, until):
                return None
            missing = late + rest
        return Span(min(found), max(found))

    def _positions(self, keys: Sequence[Key], until: float) -> dict[Key, int]:
        """Look in line with those who write: any number may wait, and so few may connect."""
        if not self._turns.acquire(timeout=max(0.0, until - self._clock.monotonic())):
            return {}
        try:
            return self._database.read(lambda db: journal.positions_of_keys(db, keys))
        finally:
            self._turns.release()

    def _pause(self, bell: Event, until: float) -> bool:
        """Wait for something new; tell whether it is worth another look."""
        left = until - self._clock.monotonic()
        if left <= 0 or self._stopping:
            return False
        self._clock.wait(bell, min(left, LOOK_SECONDS))
        bell.clear()
        return True

    def stop(self) -> None:
        """Let nobody wait any longer: the worker stops."""
        self._stopping = True


def keys_of(rows: Iterable[Values]) -> list[Key]:
    """Return what `rows`, which were traced, are found again by: each key once, in their order."""
    keys = {(row["user_id"], row["event_key"]): None for row in rows if row["event_key"]}
    return list(keys)


def _paced(changes: Iterable[Values]) -> Iterator[Values]:
    """Let others run now and then."""
    for number, values in enumerate(changes, start=1):
        yield values
        if number % ROWS_PER_PASS == 0:
            gevent.sleep(0)


def _trace(rows: Sequence[Values]) -> None:
    """Give a key to the first and the last row that have none: by keys they are found again.

    Those between them need none: the rows of a batch move in its order.
    """
    keyless = [row for row in rows if row["event_key"] is None]
    for row in (*keyless[:1], *keyless[1:][-1:]):
        row["event_key"] = f"traced-{secrets.token_hex(16)}"


def _refuse(error: SQLAlchemyError) -> NoReturn:
    """Raise what a writer is told of an error of the database."""
    words = failures.words_of(error)
    if failures.is_denied(error):
        log.error("changes cannot be written: %s: %s", NO_RIGHT, words)
        raise errors.Unforeseen(NO_RIGHT) from error
    if failures.is_bad_value(error):
        raise errors.BadParameter("body: the database refuses a value in it") from error
    if failures.is_away(error):
        log.error("changes cannot be written, the database is away or takes nothing: %s", words)
        raise errors.DatabaseAway from error
    raise error

"""One per worker: runs the mover, reads new rows once, keeps the recent ones, rings the bells.

Theory of operation
    Each turn reads the head of the journal in one small statement. If something waits in the
    outbox, the turn steps the mover (or finds that another worker is at it). Then it reads every
    row it has not read, checks that positions have no hole, appends them to the window and rings
    the bells of the users they belong to. Streams read the window, and SQL when they are behind it.
    Turns come at once while there is work, then less and less often, down to the poll interval.
    A notification only brings the next turn forward: correctness never depends on one.

Rules
    - A hole is a bug: nothing is read past it, the worker is not ready, and the log says so.
    - A journal that ends before what was read, holds another row there, or has an earlier epoch,
      has another history (a restored backup): it gets a new epoch, above all that were seen, and
      every cursor of the old one starts afresh.
    - The database being away is not the end of anything: the next turn tries again. One that comes
      back is looked at first: it may be another one.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime

from gevent.event import Event

from events_app import errors, failures, fitness, journal, passes
from events_app.clock import Clock
from events_app.database import Database
from events_app.event import Point, Row
from events_app.probe import Probe
from events_app.sequencer import BATCH_ROWS, Mover
from events_app.window import Window

log = logging.getLogger(__name__)

# The shortest pause between two turns, after one that found something.
BUSY_PAUSE_SECONDS = 0.01
# A database that is away is asked again this often.
RETRY_SECONDS = 1.0
# While rows this old fill whole batches, new clients would be told to list too early.
BACKLOG_AGE_SECONDS = 60
# A turn that takes longer than this means that streams hear nothing: the worker is not ready.
STUCK_SECONDS = 30
# Ringing all bells at once would run all streams in one pass of the loop: 200 ms at 10,000.
BELLS_IN_PASS = 30


class Tailer:
    """Follows the journal for all streams of one worker."""

    def __init__(self, db: Database, clock: Clock, poll_seconds: float) -> None:
        """Follow the journal in `db`, looking every `poll_seconds` when nothing wakes it."""
        self.bell = Event()
        self.epoch: int | None = None
        self.backlogged = False
        self.trouble: str | None = None
        self.last_turn_at = self._moved_at = clock.monotonic()
        self.moved_rows = 0
        self.rejected_rows = 0
        self.alarms: Counter[str] = Counter()
        self._must_look = True
        self._stops = False
        self._reported: set[str] = set()
        self._database = db
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._mover = Mover(db)
        self._probe = Probe(db, clock)
        self._window = Window(Point(0, 0))
        self._bells: defaultdict[str, set[Event]] = defaultdict(set)
        self._head_at: tuple[datetime, float] | None = None

    @property
    def end(self) -> Point:
        """The last row that was read."""
        return self._window.end

    def rows_after(self, user_id: str, position: int) -> list[Row] | None:
        """Return the user's rows in (position, `end`]; None when SQL must be asked."""
        return self._window.after(user_id, position)

    def age_seconds(self, row: Row) -> float:
        """Tell how long ago `row` was recorded, by the database's clock; never negative."""
        if self._head_at is None:
            return 0.0
        database_time, seen_at = self._head_at
        age = (database_time - row.recorded_at).total_seconds()
        return max(0.0, age + self._clock.monotonic() - seen_at)

    def add_bell(self, user_id: str, bell: Event) -> None:
        """Ring `bell` whenever rows of the user have been read."""
        self._bells[user_id].add(bell)

    def remove_bell(self, user_id: str, bell: Event) -> None:
        """Ring `bell` no more."""
        self._bells[user_id].discard(bell)
        if not self._bells[user_id]:
            del self._bells[user_id]

    def why_not_ready(self) -> str | None:
        """Say what keeps streams from hearing changes; None when nothing does."""
        if self.trouble is not None or self.epoch is None:
            return self.trouble or "the journal has not been read yet"
        if self._clock.monotonic() - self.last_turn_at > STUCK_SECONDS:
            return "the tailer is stuck in a turn"
        if self.last_turn_at - self._moved_at > STUCK_SECONDS:
            return "rows wait in the outbox and nobody moves them"
        return "the mover is working off a backlog" if self.backlogged else None

    def is_silent_after(self, user_id: str, position: int) -> bool:
        """Tell whether no row of the user's lies between `position` and the last one read."""
        return position == self.end.position or self.rows_after(user_id, position) == []

    @property
    def unmoved_seconds(self) -> float:
        """How long ago the outbox was last seen empty, or a row was last seen to be moved."""
        return self._clock.monotonic() - self._moved_at

    def stop(self) -> None:
        """Let `run` end behind the turn that it is at."""
        self._stops = True
        self.bell.set()

    def run(self) -> None:
        """Follow until `stop`."""
        pause = BUSY_PAUSE_SECONDS
        while not self._stops:
            pause = self._next_pause(pause)
            self._clock.wait(self.bell, pause)
            self.bell.clear()

    def _next_pause(self, pause: float) -> float:
        try:
            worked = self.turn()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the next turn tries again
            self._report(error)
            return RETRY_SECONDS
        if self.trouble is not None:
            log.warning("the journal can be followed again; it could not: %s", self.trouble)
            self.trouble = None
            self._reported.clear()
        return BUSY_PAUSE_SECONDS if worked else min(2 * pause, self._poll_seconds)

    def _report(self, error: Exception) -> None:
        """Say it once, not with every turn; trouble may be of two kinds by turns."""
        kind = type(error).__name__
        self.trouble = f"{kind}: {failures.words_of(error)}"
        if kind not in self._reported:
            self._reported.add(kind)
            broken = isinstance(error, errors.BrokenJournal)
            self.alarms[kind] += broken
            level = logging.CRITICAL if broken else logging.ERROR
            log.log(level, "not following: %s", self.trouble)
        self._must_look = True

    def turn(self) -> bool:
        """Move what waits, read what is new; tell whether there was anything.

        Raises what the database raises, and `BrokenJournal`.
        """
        if self._must_look:
            self._database.read(fitness.refuse_unusable)
            self._must_look = False
        before = self.end
        head = self._read_head()
        waits = head.waiting_since is not None
        moved = self._step() if waits else 0
        self.backlogged = self._is_backlogged(head)
        if waits:
            head = self._read_head()
        self._follow(head)
        self._probe.ask_if_due()
        self.last_turn_at = self._clock.monotonic()
        if head.waiting_since is None or self.end != before:
            self._moved_at = self.last_turn_at
        return bool(moved) or self.end != before

    def _read_head(self) -> journal.Head:
        seen = self.end.position
        head = self._database.read(lambda db: journal.head(db, seen))
        self._head_at = (head.now, self._clock.monotonic())
        return head

    def _step(self) -> int:
        done = self._mover.step()
        if done is None:
            return 0
        self.moved_rows += done.moved
        self.rejected_rows += done.rejected
        return done.moved

    def _is_backlogged(self, head: journal.Head) -> bool:
        """Whoever moves: every worker sees the same outbox."""
        if head.waiting_since is None:
            return False
        if (head.now - head.waiting_since).total_seconds() <= BACKLOG_AGE_SECONDS:
            return False
        return self._database.read(lambda db: journal.outbox_holds(db, BATCH_ROWS))

    def _follow(self, head: journal.Head) -> None:
        if head.epoch != self.epoch or not self._is_same_history(head):
            self._restart(head)
        if self.end.position < head.floor_position:
            self._window = Window(self._point_at(head.floor_position))
        while self.end.position < head.last_position:
            before = self.end
            self._read_page(head.last_position)
            if self.end == before:
                return
            passes.pause()

    def _is_same_history(self, head: journal.Head) -> bool:
        position, tag = self.end
        if head.last_position < position:
            return False
        # At and below the floor there are no rows to compare.
        return position <= head.floor_position or head.seen_tag == tag

    def _restart(self, head: journal.Head) -> None:
        """Begin at the end: at the start of the worker, or in another history."""
        if self.epoch is not None and head.epoch <= self.epoch:
            log.critical(
                "the journal has another history than at position %d: a new epoch begins and "
                "every client starts afresh",
                self.end.position,
            )
            above = self.epoch
            self._database.write(lambda db: journal.raise_epoch(db, head.epoch, above))
            head = self._read_head()
        # Together, with no wait between them: who lives in the new epoch must not see old rows.
        self.epoch, self._window = head.epoch, Window(head.end)
        self._ring([bell for bells in self._bells.values() for bell in bells])

    def _point_at(self, position: int) -> Point:
        tag = self._database.read(lambda db: journal.tag_at(db, position))
        return Point(position, tag or 0)

    def _read_page(self, upto: int) -> None:
        after = self.end.position
        rows = self._database.read(lambda db: journal.after(db, after, upto))
        whole = [row for number, row in enumerate(rows, start=after + 1) if row.position == number]
        self._window.extend(whole)
        self._ring_users(whole)
        if len(whole) < len(rows) or not rows:
            self._report_hole(upto)

    def _report_hole(self, upto: int) -> None:
        missing = self.end.position + 1
        if missing <= self._read_head().floor_position:
            return  # pruned while we read: the next turn goes on above the floor
        raise errors.HoleInJournal(
            f"position {missing} is missing from the journal, which ends at {upto}"
        )

    def _ring_users(self, rows: Iterable[Row]) -> None:
        users = {row.user_id for row in rows} & self._bells.keys()
        self._ring([bell for user in users for bell in self._bells[user]])

    def _ring(self, bells: list[Event]) -> None:
        for bell in passes.over(bells, BELLS_IN_PASS):
            bell.set()

"""What is known to have arrived, and the writing of it into the durable cursors.

Theory of operation
    A written byte is not a delivered one. A position counts as delivered when the client brings it
    back (`Last-Event-ID`), or when some time after it was written (`EVENTS_CONFIRM_SECONDS`) the
    connection still lives and its send queue is empty: by then a dead peer would have been noticed.
    Each stream keeps a `Delivery`; one `Ledger` per worker looks at all of them once a second and
    stores what has moved in one statement.

Rules
    A stream never waits for the ledger, and the ledger never for a stream. While the database is
    away, standings wait; a newer one replaces an older one of the same subscription.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from functools import partial
from itertools import islice

from gevent.event import Event

from events_app import failures, passes, schema, subscriptions
from events_app.clock import Clock
from events_app.database import Database
from events_app.peers import Peer
from events_app.subscriptions import Key, Mark

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# `subscribed` is waited for more eagerly: a client may come back within the second.
NEW_TICK_SECONDS = 0.05
# A position that only follows the journal is stored this often; it also keeps the client known.
IDLE_STORE_SECONDS = 300.0
# Most streams are idle, and when exactly they are stored does not matter: a look at all is rare.
IDLE_LOOK_SECONDS = 10.0
# A look at each takes up to five microseconds, for the kernel is asked.
DELIVERIES_IN_PASS = 200
# To write five hundred at once would keep the loop for eight milliseconds.
FLUSH_MARKS = 200
RETRY_SECONDS = 2.0
# An even number. A peer that has never taken all at once, because there is always more for it,
# confirms nothing for hours.
MOST_WRITTEN = 128


Written = tuple[float, int, bool]


def written(now: float, position: int, *, change: bool) -> Written:
    """Make what is noted of a frame that is written at `now` (monotonic seconds)."""
    return float(int(now) + 1), position, change


def _as_one(earlier: Written, later: Written) -> Written:
    """Make of two notes one that is confirmed when the later one would be."""
    at, position, change = later
    # As it is where it can be: thousands share the note of what they were told together.
    return later if change or not earlier[-1] else (at, position, True)


@dataclass(slots=True)
class Delivery:
    """What one connection wrote and what of it has arrived.

    `sent` is the position up to which the client may have heard of rows, also from an earlier
    connection; `writing` says that a frame is on its way to the kernel and may fail yet.
    `written` holds (time, position, is a change) of what still waits for its confirmation.
    """

    key: Key
    epoch: int
    generation: int
    peer: Peer
    position: int
    state: str
    sent: int = 0
    store_at: float = 0.0
    dirty: bool = False
    writing: bool = False
    written: tuple[Written, ...] = ()

    def sending(self, upto: int) -> None:
        """Note that a frame that tells of rows up to this position is about to be written."""
        self.sent = max(self.sent, upto)
        self.writing = True

    def wrote(self, now: float, position: int, *, change: bool) -> None:
        """Note that the frame was written at `now` (monotonic seconds).

        Within the same second only the newest position is kept; one that says nothing new, such
        as a keep-alive's, has nothing to be confirmed.
        """
        self.writing = False
        last = self.written[-1][1] if self.written else self.position
        if position == last and not change and self.state != schema.NEW:
            return
        self._note(written(now, position, change=change))

    def _note(self, note: Written) -> None:
        before = self.written
        if len(before) >= MOST_WRITTEN:
            before = tuple(map(_as_one, before[::2], before[1::2]))
        if before and before[-1][0] == note[0]:
            note = _as_one(before[-1], note)
            before = before[:-1]
        self.written = (*before, note)

    def heard(self, note: Written) -> bool:
        """Note a change whose writing took no time; tell whether proof was awaited before.

        It is `sending` and `wrote` in one, for thousands at once: `close` sees what was sent.
        """
        awaited_proof = self.awaits_proof
        self._note(note)
        return awaited_proof and self.state != schema.NEW

    @property
    def awaits_proof(self) -> bool:
        """Whether anything is still to be shown to have arrived."""
        return bool(self.written) or self.state == schema.NEW

    def confirm(self, now: float, seconds: float) -> None:
        """Take what was written `seconds` ago as delivered, if the peer has taken everything."""
        due = now - seconds
        is_due = bool(self.written) and self.written[0][0] <= due
        if not is_due and self.state != schema.NEW:
            return
        if not self.peer.has_taken_all():
            return
        if self.state == schema.NEW and self.written:
            self.state, self.dirty = schema.LIVE, True
        # After a time in which this process stood still nobody has been told yet who left in it.
        if not is_due or self.peer.has_left():
            return
        while self.written and self.written[0][0] <= due:
            (_, self.position, change), *rest = self.written
            self.written = tuple(rest)
            self.dirty = self.dirty or change

    def close(self, handled: int) -> None:
        """End: `handled` is the position up to which nothing is unsent.

        With nothing unconfirmed, what was dropped or folded away counts as delivered too. A frame
        whose writing failed is neither.
        """
        if self.state == schema.NEW and self.written and self.peer.has_taken_all():
            self.state = schema.LIVE
        if not self.written and not self.writing:
            self.position = max(self.position, handled)
        self.sent = max([self.sent, self.position, *(upto for _, upto, _ in self.written)])

    def mark(self, *, ended: bool) -> Mark:
        """Make the standing to store."""
        sent = self.sent if ended else None
        return Mark(self.key, self.epoch, self.generation, self.position, sent, self.state)


class Ledger:
    """All deliveries of one worker."""

    def __init__(self, database: Database, clock: Clock, confirm_seconds: float) -> None:
        """Store standings in `database`."""
        self._database = database
        self._clock = clock
        self._confirm_seconds = confirm_seconds
        self._deliveries: dict[int, Delivery] = {}
        self._unproven: dict[int, Delivery] = {}
        self._looks_at_idle_at = clock.monotonic()
        self._waiting: dict[tuple[Key, int, int], Mark] = {}
        self._bell = Event()
        self._failing = False
        self._stops = False

    def open(self, delivery: Delivery) -> None:
        """Look after `delivery` from now on."""
        self._deliveries[id(delivery)] = delivery
        delivery.store_at = self._next_idle_store()
        if delivery.awaits_proof:
            self._unproven[id(delivery)] = delivery

    def close(self, delivery: Delivery, handled: int) -> None:
        """Store the last standing of `delivery`, at once."""
        if self._deliveries.pop(id(delivery), None) is None:
            return
        self._unproven.pop(id(delivery), None)
        delivery.close(handled)
        self._put(delivery.mark(ended=True))
        self._bell.set()

    def wrote(self, delivery: Delivery, position: int, *, change: bool) -> None:
        """Note a written frame; the first one makes the ledger look sooner."""
        delivery.wrote(self._clock.monotonic(), position, change=change)
        if delivery.awaits_proof:
            self._watch(delivery)

    def heard(self, delivery: Delivery, note: Written) -> None:
        """Note a change whose writing took no time."""
        if not delivery.heard(note):
            self._watch(delivery)

    def _watch(self, delivery: Delivery) -> None:
        self._unproven[id(delivery)] = delivery
        if delivery.state == schema.NEW:
            self._bell.set()

    @property
    def waiting(self) -> int:
        """Count the standings that are to be stored."""
        return len(self._waiting)

    def oldest_unconfirmed_seconds(self) -> float:
        """Tell how long ago the oldest change was written that is not known to have arrived."""
        oldest = now = self._clock.monotonic()
        for each in passes.over(self._unproven.values(), DELIVERIES_IN_PASS):
            oldest = min([oldest, *(at for at, _, change in each.written if change)])
        return now - oldest

    def stop(self) -> None:
        """Let `run` end behind the tick that it is at."""
        self._stops = True
        self._bell.set()

    def run(self) -> None:
        """Confirm and store until `stop`."""
        while not self._stops:
            pause = self.tick()
            self._clock.wait(self._bell, pause)
            self._bell.clear()

    def tick(self) -> float:
        """Confirm what can be, store what has moved; return the seconds until the next tick."""
        now = self._clock.monotonic()
        has_new = self._confirm(now)
        if now >= self._looks_at_idle_at:
            self._looks_at_idle_at = now + IDLE_LOOK_SECONDS
            self._store_idle(now)
        if not self.flush():
            return RETRY_SECONDS
        return NEW_TICK_SECONDS if has_new else TICK_SECONDS

    def _confirm(self, now: float) -> bool:
        """Confirm what can be; tell whether a `subscribed` is still on its way."""
        has_new = False
        for delivery in passes.over(self._unproven.values(), DELIVERIES_IN_PASS):
            if id(delivery) not in self._unproven:
                continue  # it was closed during another pass, and its last standing waits
            delivery.confirm(now, self._confirm_seconds)
            has_new = has_new or delivery.state == schema.NEW
            if not delivery.awaits_proof:
                del self._unproven[id(delivery)]
            if delivery.dirty:
                self._store(delivery)
        return has_new

    def _store_idle(self, now: float) -> None:
        for delivery in passes.over(self._deliveries.values(), DELIVERIES_IN_PASS):
            if now >= delivery.store_at and id(delivery) in self._deliveries:
                self._store(delivery)

    def _store(self, delivery: Delivery) -> None:
        delivery.dirty = False
        delivery.store_at = self._next_idle_store()
        self._put(delivery.mark(ended=False))

    def flush(self) -> bool:
        """Store the standings that wait; tell whether none is left."""
        while self._waiting:
            batch = dict(islice(self._waiting.items(), FLUSH_MARKS))
            try:
                self._database.write(partial(subscriptions.move, marks=list(batch.values())))
            except Exception as error:  # noqa: BLE001 -- they wait, whatever the database has
                if not self._failing:
                    words = failures.words_of(error)
                    log.error("cursors cannot be stored, they wait: %s", words)
                self._failing = True
                return False
            for key, mark in batch.items():
                if self._waiting.get(key) is mark:
                    del self._waiting[key]
        if self._failing:
            log.warning("cursors are stored again")
        self._failing = False
        return True

    def _put(self, mark: Mark) -> None:
        self._waiting[mark.key, mark.epoch, mark.generation] = mark

    def _next_idle_store(self) -> float:
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 -- spreads writes, guards nothing
        return self._clock.monotonic() + IDLE_STORE_SECONDS * jitter

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
from dataclasses import dataclass, field
from functools import partial

from gevent.event import Event

from events_app import schema, subscriptions
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
FLUSH_MARKS = 500
RETRY_SECONDS = 2.0


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
    written: list[tuple[float, int, bool]] = field(default_factory=list)

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
        second = float(int(now) + 1)
        if self.written and self.written[-1][0] == second:
            change = self.written.pop()[2] or change
        self.written.append((second, position, change))

    def confirm(self, now: float, seconds: float) -> None:
        """Take what was written `seconds` ago as delivered, if the peer has taken everything."""
        if not self.written and self.state != schema.NEW:
            return
        if not self.peer.has_taken_all():
            return
        if self.state == schema.NEW and self.written:
            self.state, self.dirty = schema.LIVE, True
        while self.written and self.written[0][0] <= now - seconds:
            _, self.position, change = self.written.pop(0)
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
        self.sent = max(self.sent, self.position)

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
        self._waiting: dict[tuple[Key, int, int], Mark] = {}
        self._bell = Event()
        self._failing = False
        self._stops = False

    def open(self, delivery: Delivery) -> None:
        """Look after `delivery` from now on."""
        self._deliveries[id(delivery)] = delivery
        delivery.store_at = self._next_idle_store()

    def close(self, delivery: Delivery, handled: int) -> None:
        """Store the last standing of `delivery`, at once."""
        if self._deliveries.pop(id(delivery), None) is None:
            return
        delivery.close(handled)
        self._put(delivery.mark(ended=True))
        self._bell.set()

    def wrote(self, delivery: Delivery, position: int, *, change: bool) -> None:
        """Note a written frame; the first one makes the ledger look sooner."""
        delivery.wrote(self._clock.monotonic(), position, change=change)
        if delivery.state == schema.NEW:
            self._bell.set()

    @property
    def waiting(self) -> int:
        """Count the standings that are to be stored."""
        return len(self._waiting)

    def oldest_unconfirmed_seconds(self) -> float:
        """Tell how long ago the oldest change was written that is not known to have arrived."""
        oldest = min(
            (at for each in self._deliveries.values() for at, _, change in each.written if change),
            default=None,
        )
        return 0.0 if oldest is None else max(0.0, self._clock.monotonic() - oldest)

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
        unproven = False
        for delivery in list(self._deliveries.values()):
            delivery.confirm(now, self._confirm_seconds)
            unproven = unproven or delivery.state == schema.NEW
            if delivery.dirty or now >= delivery.store_at:
                delivery.dirty = False
                delivery.store_at = self._next_idle_store()
                self._put(delivery.mark(ended=False))
        if not self.flush():
            return RETRY_SECONDS
        return NEW_TICK_SECONDS if unproven else TICK_SECONDS

    def flush(self) -> bool:
        """Store the standings that wait; tell whether none is left."""
        while self._waiting:
            batch = dict(list(self._waiting.items())[:FLUSH_MARKS])
            try:
                self._database.write(partial(subscriptions.move, marks=list(batch.values())))
            except Exception as error:  # noqa: BLE001 -- they wait, whatever the database has
                if not self._failing:
                    log.error("cursors cannot be stored, they wait: %s", error)
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

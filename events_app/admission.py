"""The streams that are open in this worker, and whether one more may be.

Theory of operation
    A user with too many streams is refused at once: only that user can close some. A full worker
    lets the next ones wait for a place, in the order in which they came, and refuses one only when
    none has become free in time: clients that count refusals go silent after a few, and clients
    that do not would be back at once. So many may wait and no more, for each of them holds a
    connection, and health checks need one as well.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from gevent.event import Event

from events_app import errors, passes
from events_app.clock import Clock
from events_app.scope import Watcher
from events_app.tally import Tally

# Below the 30 seconds after which the more impatient of clients and proxies give up.
WAIT_SECONDS = 10.0
# 28 KB each, and with the streams below gunicorn's own limit, at which nothing is answered.
MOST_WAITING = 2_000
# A look at each takes two microseconds or so.
STREAMS_IN_PASS = 500

REFUSALS = {
    "user": "Too many streams are open for this user.",
    "subscription": "Too many streams of this client watch this folder.",
    "worker": "This server has no room for another stream now.",
}


class Caps(NamedTuple):
    """How many streams may be open in a worker: of all, of one user, of one subscription."""

    of_worker: int
    of_user: int
    of_subscription: int | None


class Guest(Protocol):
    """What takes a place: a stream, or a poll that waits."""

    @property
    def watcher(self) -> Watcher:
        """Who watches what."""

    @property
    def lag_positions(self) -> int:
        """How far it is behind what was read."""

    def stop(self, *, late: bool = False) -> None:
        """End soon: the worker stops; `late`: it did already when this one came."""

    def withdraw(self) -> None:
        """End at once: what permitted it is gone."""


class Admission:
    """Counts streams against the caps, and tells all of them when the worker stops."""

    def __init__(self, caps: Caps, clock: Clock, tally: Tally) -> None:
        """Admit streams within `caps`."""
        self._caps = caps
        self._clock = clock
        self._tally = tally
        self._streams: set[Guest] = set()
        self._of_user: dict[str, list[Guest]] = {}
        self._through_shares: set[Guest] = set()
        self._queue: deque[Event] = deque()
        self._stopping = False

    def __len__(self) -> int:
        """Count the open streams."""
        return len(self._streams)

    def furthest_behind(self) -> int:
        """Return the lag of the stream that lags most, in positions; lets others run meanwhile."""
        furthest = 0
        for stream in passes.over(self._streams, STREAMS_IN_PASS):
            furthest = max(furthest, stream.lag_positions)
        return furthest

    def through_shares(self) -> list[Guest]:
        """List those who watch somebody else's folder."""
        return list(self._through_shares)

    @property
    def waiting(self) -> int:
        """Count those who wait for a place."""
        return len(self._queue)

    def admit(self, watcher: Watcher) -> None:
        """Return when `watcher` may open one more stream, which must then `enter` at once.

        Waits while the worker is full. Raises `TooManyStreams`.
        """
        self._check(watcher)
        if self._queue or self._is_full():
            self._wait_for_a_place()
            self._check(watcher)

    def _check(self, watcher: Watcher) -> None:
        mine = self._of_user.get(watcher.user_id, [])
        if len(mine) >= self._caps.of_user:
            raise self._refusal("user")
        # A client without an id has no subscription: each of its streams is somebody's first.
        most = self._caps.of_subscription
        if watcher.client_id is None or most is None or len(mine) < most:
            return
        if [each.watcher for each in mine].count(watcher) >= most:
            raise self._refusal("subscription")

    def _refusal(self, cap: str) -> errors.TooManyStreams:
        self._tally.refused[cap] += 1
        return errors.TooManyStreams(REFUSALS[cap])

    def _is_full(self) -> bool:
        return len(self) >= self._caps.of_worker

    def _wait_for_a_place(self) -> None:
        if len(self._queue) >= MOST_WAITING:
            raise self._refusal("worker")
        bell = Event()
        self._queue.append(bell)
        until = self._clock.monotonic() + WAIT_SECONDS
        try:
            # A worker that stops lets them in, to be asked in the proper way to come back.
            while not self._stopping and (self._is_full() or self._queue[0] is not bell):
                left = until - self._clock.monotonic()
                if left <= 0:
                    raise self._refusal("worker")
                self._clock.wait(bell, left)
                bell.clear()
        finally:
            self._queue.remove(bell)
            self._call_next()

    def _call_next(self) -> None:
        """Let the first in the queue look, who looks when this greenlet waits."""
        if self._queue:
            self._queue[0].set()

    def enter(self, stream: Guest) -> None:
        """Count `stream` in; while the worker stops it ends soon."""
        self._streams.add(stream)
        if stream.watcher.share is not None:
            self._through_shares.add(stream)
        self._of_user.setdefault(stream.watcher.user_id, []).append(stream)
        if self._stopping:
            stream.stop(late=True)

    def leave(self, stream: Guest) -> None:
        """Count `stream` out."""
        if stream not in self._streams:
            return
        self._streams.remove(stream)
        self._through_shares.discard(stream)
        mine = self._of_user[stream.watcher.user_id]
        mine.remove(stream)
        if not mine:
            del self._of_user[stream.watcher.user_id]
        self._call_next()

    def stop(self) -> None:
        """Tell every stream, also those to come, that the worker stops."""
        self._stopping = True
        for stream in list(self._streams):
            stream.stop()
        for bell in self._queue:
            bell.set()

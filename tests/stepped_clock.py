"""A clock for greenlets that really wait: its time stands still until the test moves it on."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import gevent
from gevent.event import Event

from events_app.clock import Bell
from tests.manual_clock import ManualClock

# A machine that is busy otherwise may take long; nothing takes so long by itself.
SETTLE_SECONDS = 60
# Whoever waits for something else than this clock is given so many turns of the loop.
TURNS = 4


class SteppedClock(ManualClock):
    """Implements `events_app.clock.Clock`. `is_settled` says what else is to be waited for."""

    def __init__(self, is_settled: Callable[[], bool]) -> None:
        super().__init__()
        self._is_settled = is_settled
        self._alarms: list[tuple[float, int, Event]] = []
        self._number = count()
        self._waiting: dict[Any, tuple[Bell, float]] = {}

    def wait(self, bell: Bell, timeout: float) -> None:
        until, alarm, me = self.now + timeout, Event(), gevent.getcurrent()
        heapq.heappush(self._alarms, (until, next(self._number), alarm))
        self._waiting[me] = bell, until
        try:
            while not bell.is_set() and self.now < until:
                gevent.wait([bell, alarm], count=1)
        finally:
            del self._waiting[me]

    def waits(self, greenlet: Any) -> bool:
        """Tell whether a greenlet waits here for what has not come."""
        if greenlet not in self._waiting:
            return False
        bell, until = self._waiting[greenlet]
        return not bell.is_set() and self.now < until

    def settle(self) -> None:
        """Let everybody do what there is to do now."""
        deadline = time.monotonic() + SETTLE_SECONDS
        turns = 0
        while turns < TURNS:
            assert time.monotonic() < deadline, "somebody never comes to rest"
            turns = turns + 1 if self._is_settled() else 0
            gevent.idle()

    def advance(self, seconds: float) -> None:
        """Move on, by way of every moment for which somebody waits."""
        until = self.now + seconds
        self.settle()
        while self._alarms and self._alarms[0][0] <= until:
            self.now, _, alarm = heapq.heappop(self._alarms)
            alarm.set()
            while self._alarms and self._alarms[0][0] <= self.now:
                heapq.heappop(self._alarms)[-1].set()
            self.settle()
        self.now = until

"""How long the event loop of a worker stands still: a greenlet that ticks and looks at its gaps."""

from __future__ import annotations

import time
from typing import NamedTuple

import gevent

TICK_SECONDS = 0.001


class Gap(NamedTuple):
    """The longest gap, in seconds: by the clock, and the longest by the loop's own processor time.

    The first has everything in it that took the processor away, other programs too; the second is
    what the loop's thread did itself.
    """

    wall: float = 0.0
    own: float = 0.0


class Ticks:
    """Ticks every millisecond from `begin` on; `longest_gap` is what a tick came too late."""

    def __init__(self) -> None:
        """Tick not yet: ticking costs some of the time that other figures measure."""
        self._longest = Gap()
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def begin(self) -> None:
        """Start, or start over."""
        self._longest = Gap()
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._tick)

    def longest_gap(self) -> Gap:
        """Return the longest gaps since `begin`, and start over."""
        longest, self._longest = self._longest, Gap()
        return longest

    def _tick(self) -> None:
        while True:
            before, worked = time.monotonic(), time.thread_time()
            gevent.sleep(TICK_SECONDS)
            wall = time.monotonic() - before - TICK_SECONDS
            own = min(wall, time.thread_time() - worked)
            self._longest = Gap(max(self._longest.wall, wall), max(self._longest.own, own))

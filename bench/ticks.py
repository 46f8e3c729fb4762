"""How long the event loop of a worker stands still: a greenlet that ticks and looks at its gaps."""

from __future__ import annotations

import time

import gevent

TICK_SECONDS = 0.001


class Ticks:
    """Ticks every millisecond from `begin` on; `longest_gap` is what a tick came too late."""

    def __init__(self) -> None:
        """Tick not yet: ticking costs some of the time that other figures measure."""
        self._longest = 0.0
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def begin(self) -> None:
        """Start, or start over."""
        self._longest = 0.0
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._tick)

    def longest_gap(self) -> float:
        """Return the longest gap in seconds since `begin`, and start over."""
        longest, self._longest = self._longest, 0.0
        return longest

    def _tick(self) -> None:
        while True:
            before = time.monotonic()
            gevent.sleep(TICK_SECONDS)
            self._longest = max(self._longest, time.monotonic() - before - TICK_SECONDS)

"""The only place that reads the time or waits.

Streams and the tailer take a `Clock`, so that a test owns their time. Durations are measured on
the monotonic clock: a wall clock that is set back or forth never delays or repeats a frame.
"""

from __future__ import annotations

import time
from typing import Protocol


class Bell(Protocol):
    """Something to wait for: what gevent's and threading's events have in common."""

    def wait(self, timeout: float | None = None) -> object:
        """Return when the bell has rung or `timeout` seconds have passed."""

    def is_set(self) -> bool:
        """Tell whether the bell has rung since it was cleared."""

    def set(self) -> None:
        """Ring."""

    def clear(self) -> None:
        """Make ready for the next ring."""


class Clock(Protocol):
    """Time as the rest of the code sees it, in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""

    def wall(self) -> float:
        """Seconds since 1970 by the machine's clock: only to compare with a token's `exp`."""

    def wait(self, bell: Bell, timeout: float) -> None:
        """Wait until `bell` rings, `timeout` seconds at most."""


class SystemClock:
    """The machine's clock."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    @staticmethod
    def wait(bell: Bell, timeout: float) -> None:
        """Wait until `bell` rings, `timeout` seconds at most."""
        bell.wait(timeout)

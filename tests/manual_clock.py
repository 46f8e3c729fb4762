"""A clock that the test owns: waiting takes no time, it moves the time."""

from __future__ import annotations

from collections.abc import Callable

from events_app.clock import Bell


class ManualClock:
    """Implements `events_app.clock.Clock`.

    `wait` returns at once when the bell has rung, else moves the time on by the timeout, running
    what was planned for the meantime.
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self.now = start
        self.wall_offset = 1_700_000_000.0
        self._plans: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.wall_offset + self.now

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Run `action` when the time comes to `when`."""
        self._plans.append((when, action))
        self._plans.sort(key=lambda plan: plan[0])

    def wait(self, bell: Bell, timeout: float) -> None:
        if bell.is_set():
            return
        until = self.now + timeout
        while self._plans and self._plans[0][0] <= until:
            when, action = self._plans.pop(0)
            self.now = max(self.now, when)
            action()
            if bell.is_set():
                return
        self.now = until


def at_once(work: Callable[[], None]) -> None:
    """Run what a worker would run in another greenlet."""
    work()

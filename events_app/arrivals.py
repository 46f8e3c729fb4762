"""Connections that begin at the same time, each of which takes its subscription.

Theory of operation
    When thousands come back at once, transactions are what they would wait for. So those who wait
    are taken together: one transaction and one set of statements for a group. Who comes alone is
    taken at once. Who comes while a group is being taken, or just behind it, waits for more to
    come, but not for long.

Rules
    - What becomes of one is what would become of it alone. Two of one subscription are never in
      one group: the later one takes the later generation.
    - A group waits for nobody's lock, and what goes wrong with one fails no other: whose row is
      busy, and everybody of a group that failed, goes on alone.
    - Who has left meanwhile takes nothing: its client may be back, and keeps its cursor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import gevent
from gevent.event import AsyncResult, Event
from sqlalchemy import exc

from events_app import failures, subscriptions
from events_app.clock import Clock
from events_app.database import Database
from events_app.resumption import Start
from events_app.subscriptions import Arrival, Key, Limits

# Each more takes less than the one before it; with sixteen the transaction itself is a tenth of
# what they take.
MOST_TOGETHER = 16
# While a worker answers as many as it can, some ten come in this time.
COMPANY_SECONDS = 0.01


@dataclass(slots=True, eq=False)
class _Visitor:
    """One who waits. Its `answer` is where it starts; None: it has to go on alone."""

    arrival: Arrival
    key: Key | None
    is_gone: Callable[[], bool]
    answer: AsyncResult[Start | None] = field(default_factory=AsyncResult)


class Arrivals:
    """All connections of one worker that have not begun yet.

    `turns` bounds how many transactions of streams there are at once.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        limits: Limits,
        turns: AbstractContextManager[object],
    ) -> None:
        """Take subscriptions in `database`."""
        self._database = database
        self._clock = clock
        self._limits = limits
        self._turns = turns
        self._waiting: deque[_Visitor] = deque()
        self._is_full = Event()
        self._is_taking = False

    def connect(self, arrival: Arrival, is_gone: Callable[[], bool]) -> Start | None:
        """Do what `subscriptions.connect` does, together with others; None for who `is_gone`."""
        visitor = _Visitor(arrival, subscriptions.key_of(arrival.watcher), is_gone)
        self._waiting.append(visitor)
        if len(self._waiting) >= MOST_TOGETHER:
            self._is_full.set()
        if not self._is_taking:
            self._is_taking = True
            gevent.spawn(self._take_all)
        return visitor.answer.get() or self._connect_alone(visitor)

    def _connect_alone(self, visitor: _Visitor) -> Start | None:
        with self._turns:
            if visitor.is_gone():
                return None
            return subscriptions.connect(self._database, *visitor.arrival, self._limits)

    def _take_all(self) -> None:
        try:
            while self._waiting:
                if group := self._next_group():
                    self._take(group)
                self._is_full.clear()
                if len(self._waiting) < MOST_TOGETHER:
                    self._clock.wait(self._is_full, COMPANY_SECONDS)
        finally:
            self._is_taking = False

    def _next_group(self) -> Sequence[_Visitor]:
        """Call those who have waited longest, each of another subscription."""
        group: dict[object, _Visitor] = {}
        later = []
        while self._waiting and len(group) < MOST_TOGETHER:
            visitor = self._waiting.popleft()
            key = visitor.key or visitor
            if key in group:
                later.append(visitor)
            elif visitor.is_gone():
                visitor.answer.set(None)
            else:
                group[key] = visitor
        self._waiting.extendleft(reversed(later))
        return list(group.values())

    def _take(self, group: Sequence[_Visitor]) -> None:
        """Answer everybody of `group`; raises nothing."""
        try:
            with self._turns:
                starts = self._connect([each for each in group if not each.is_gone()])
        except Exception as error:  # noqa: BLE001 -- whoever it is for raises it again
            _fail(group, error)
        else:
            for visitor in group:
                visitor.answer.set(starts.get(visitor))

    def _connect(self, group: Sequence[_Visitor]) -> dict[_Visitor, Start | None]:
        """Begin for everybody of `group`. Raises what the database raises."""
        if not group:
            return {}
        together = [each.arrival for each in group]
        starts = self._database.write(
            lambda db: subscriptions.connect_all(db, together, self._limits)
        )
        return dict(zip(group, starts, strict=True))


def _fail(group: Sequence[_Visitor], error: Exception) -> None:
    for visitor in group:
        if _is_everybodys(error):
            visitor.answer.set_exception(error)
        else:
            visitor.answer.set(None)


def _is_everybodys(error: Exception) -> bool:
    """Tell of an error that each of them would meet alone, after as long a wait."""
    if isinstance(error, exc.TimeoutError) or failures.is_locked(error):
        return True
    # Of a server that refuses to write, those who write nothing can still be told to begin.
    is_lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    return is_lost and not failures.is_read_only(getattr(error, "orig", None))

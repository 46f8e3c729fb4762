"""One per worker: takes to each audience what it is told, member by member.

Theory of operation
    The tailer's bell makes the herald look at an audience, which then reads; the run that it finds
    is told when it has settled. It is written to each member's socket in the herald's greenlet:
    those of the members go on waiting, and have nothing to do but to keep alive and to clean up.

Rules
    - The loop is free between passes, also in the middle of a telling. Members may leave and come
      meanwhile; nothing is read for that audience until everybody has heard.
    - Whatever goes wrong ends the audience and nothing else: its members go on alone.
"""

from __future__ import annotations

import heapq
import logging
from itertools import count

from gevent.event import Event

from events_app import passes, sse
from events_app.audience import Audience, Kind, Telling
from events_app.clock import Clock
from events_app.database import Database
from events_app.event import Point
from events_app.follower import Follower
from events_app.tailer import Tailer
from events_app.tally import Tally

log = logging.getLogger(__name__)

# A frame takes ten microseconds, most of them the kernel's: a pass takes one or two milliseconds.
MEMBERS_IN_PASS = 100
# To read, fold and encode takes as long as to tell so many.
MEMBERS_LIKE_A_LOOK = 10
# To wake a greenlet costs more, and so does what it then does.
WAKES_IN_PASS = 30
# When nothing is due, something rings.
LONGEST_PAUSE_SECONDS = 60.0


class Herald:
    """All audiences of one worker."""

    def __init__(
        self,
        database: Database,
        tailer: Tailer,
        clock: Clock,
        tally: Tally,
        debounce_seconds: float,
        debounce_max_seconds: float,
    ) -> None:
        """Tell runs when they have settled; see `merge.due_at`."""
        self._database = database
        self._tailer = tailer
        self._clock = clock
        self._tally = tally
        self._debounce = debounce_seconds, debounce_max_seconds
        self._bell = Event()
        self._audiences: dict[Kind, Audience] = {}
        self._called: dict[Audience, None] = {}
        self._due: list[tuple[float, int, Audience]] = []
        self._number = count()

    def __len__(self) -> int:
        """Count the audiences."""
        return len(self._audiences)

    def audience(self, kind: Kind, point: Point) -> Audience | None:
        """Return the audience of this kind, if it stands at `point` with nothing waiting.

        The first who asks founds it.
        """
        found = self._audiences.get(kind)
        if found is not None:
            found.catch_up()
            if not found.is_over:
                return found if found.is_at(point) else None
        follower = Follower(
            self._tailer, self._database, self._clock, kind.watcher, kind.epoch, point, 0
        )
        made = self._audiences[kind] = Audience(kind, follower, self._tailer, self._call)
        return made

    def _call(self, audience: Audience) -> None:
        if audience.is_over and self._audiences.get(audience.kind) is audience:
            del self._audiences[audience.kind]
        self._called[audience] = None
        self._bell.set()

    def run(self) -> None:
        """Tell for ever; ends when the greenlet is killed."""
        while True:
            self._clock.wait(self._bell, self.turn())
            self._bell.clear()

    def turn(self) -> float:
        """Tell what is due; return the seconds until something else is."""
        in_pass = 0
        while (audience := self._next()) is not None:
            in_pass += MEMBERS_LIKE_A_LOOK + self._look(audience)
            if in_pass >= MEMBERS_IN_PASS:
                passes.pause()
                in_pass = 0
        if not self._due:
            return LONGEST_PAUSE_SECONDS
        return max(0.0, self._due[0][0] - self._clock.monotonic())

    def _next(self) -> Audience | None:
        """Take an audience whose run may be due, or that has called.

        In this order: while one after the other calls, what is due must not wait.
        """
        if self._due and self._due[0][0] <= self._clock.monotonic():
            due_at, _, audience = heapq.heappop(self._due)
            if audience.looked_at_at == due_at:
                audience.looked_at_at = None
            return audience
        if not self._called:
            return None
        audience = next(iter(self._called))
        del self._called[audience]
        return audience

    def _look(self, audience: Audience) -> int:
        """Do what is to be done with `audience`; return how many members have heard something."""
        heard = 0
        try:
            if not audience.is_over:
                heard = self._read(audience)
        except Exception:
            log.exception("an audience is over, and its members go on alone")
            audience.end()
        if audience.is_over:
            self._wake(audience)
        return heard

    def _read(self, audience: Audience) -> int:
        due_at = audience.due_at(*self._debounce)
        if due_at is None:
            return 0
        if due_at <= self._clock.monotonic():
            return self._tell(audience)
        if audience.looked_at_at is None or due_at < audience.looked_at_at:
            audience.looked_at_at = due_at
            heapq.heappush(self._due, (due_at, next(self._number), audience))
        return 0

    def _tell(self, audience: Audience) -> int:
        telling = audience.begin(self._clock.monotonic())
        if telling is None:
            return 0
        if telling.frame:
            self._tell_members(audience, telling)
        else:
            telling.heard_by = len(audience.members)
        audience.done()
        self._tally.folded_rows += telling.heard_by * telling.rows
        self._tally.told_changes += telling.heard_by * telling.changes
        return telling.heard_by

    def _tell_members(self, audience: Audience, telling: Telling) -> None:
        try:
            for members in passes.parts(audience.members, MEMBERS_IN_PASS):
                now = self._clock.monotonic()
                telling.renew(now)
                audience.tell(members, telling, now)
        except BaseException:
            audience.end()  # what was begun is not done: who has not heard it stands before it
            raise
        finally:
            self._tally.frames[sse.EVENT] += telling.heard_by
            self._tally.sent_bytes += telling.heard_by * len(telling.frame)

    def _wake(self, audience: Audience) -> None:
        for member in passes.over(audience.members, WAKES_IN_PASS):
            member.wake()

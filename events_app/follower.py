"""A watcher's position moving along the journal: what was read, what waits, what may be claimed.

Rules
    `read` is how far the rows were looked at. `safe` is the point up to which every row was sent,
    folded away or dropped by scope; it moves past a waiting run only when the run is taken whole,
    and no `id` and no stored cursor ever says more than `safe`.
    Own changes join a run only behind somebody else's: they tell the fold in which tree those are
    to be told.
"""

from __future__ import annotations

from typing import NamedTuple

from events_app import journal, merge, scope
from events_app.clock import Clock
from events_app.database import Database
from events_app.event import Change, Point, Row
from events_app.tailer import Tailer

# A run that grows beyond this is due as it is: memory stays bounded whatever comes.
RUN_CHANGES = 10_000
# Of its paths, which may have 4 KB each: one user has many streams, and each a run of its own.
RUN_CHARACTERS = 2 * 1024 * 1024


class Told(NamedTuple):
    """What a client is told at once: the changes, and the point after them.

    They were folded from `rows`, the watcher's own ones among them.
    """

    rows: int
    changes: list[Change]
    after: Point


class Follower:
    """Reads for one watcher, from the tailer's window or, behind it, in SQL pages."""

    __slots__ = (
        "_characters",
        "_clock",
        "_database",
        "_epoch",
        "_first_at",
        "_last_at",
        "_most",
        "_page",
        "_repeated_upto",
        "_run",
        "_tailer",
        "_watcher",
        "end",
        "read",
        "safe",
    )

    def __init__(
        self,
        tailer: Tailer,
        database: Database,
        clock: Clock,
        watcher: scope.Watcher,
        epoch: int,
        start: Point,
        repeated_upto: int,
        most: int = RUN_CHANGES,
    ) -> None:
        """Begin at `start` in `epoch`; rows up to `repeated_upto` may be a second delivery.

        A run of `most` changes is not read on.
        """
        self.read = self.safe = start
        self.end: scope.End | None = None
        self._tailer = tailer
        self._database = database
        self._clock = clock
        self._watcher = watcher
        self._epoch = epoch
        self._repeated_upto = repeated_upto
        self._most = most
        self._page: journal.Page | None = None
        self._run: list[tuple[int, Change]] = []
        self._characters = 0
        self._first_at = self._last_at = 0.0

    @property
    def is_full(self) -> bool:
        """Tell whether the run must be taken before anything more is read."""
        return len(self._run) >= self._most or self._characters >= RUN_CHARACTERS

    @property
    def is_at_rest(self) -> bool:
        """Tell whether nothing that was read waits to be taken."""
        return not self._run and self._page is None and self.end is None

    @property
    def has_caught_up(self) -> bool:
        """Tell whether it is at rest, and everything was read that there is."""
        return self.is_at_rest and not self._has_more()

    def advance(self) -> bool:
        """Take what can be had without SQL into the run; tell whether there was anything."""
        if self.end is not None or not self._is_in_epoch():
            return False
        if self._page is not None:
            return self._take_page(self._page)
        if not self._has_more():
            return False
        rows = self._tailer.rows_after(self._watcher.owner_id, self.read.position)
        if rows is None:
            return False
        self._take(rows, self._tailer.end)
        return True

    def needs_page(self) -> bool:
        """Tell whether `fetch_page` must be called before anything more can be had."""
        if self.end is not None or self._page is not None:
            return False
        if not self._is_in_epoch() or not self._has_more():
            return False
        return self._tailer.rows_after(self._watcher.owner_id, self.read.position) is None

    def fetch_page(self) -> None:
        """Read a page by SQL; the next `advance` takes it. Raises what the database raises."""
        position, upto = self.read.position, self._tailer.end
        self._page = self._database.read(
            lambda db: journal.page_of_user(db, self._watcher.owner_id, position, upto)
        )

    def due_at(self, quiet_seconds: float, longest_seconds: float) -> float | None:
        """Tell when the run is to be sent (monotonic seconds); None while there is none."""
        if not self._run:
            return None
        if self.end is not None or self.is_full:
            return self._first_at
        return merge.due_at(self._first_at, self._last_at, quiet_seconds, longest_seconds)

    def take_run(self) -> Told:
        """Return the run, folded, and begin a new one."""
        told = self.fold_run()
        self.pass_run()
        return told

    def fold_run(self) -> Told:
        """Return the run, folded; it goes on waiting, for what tells it may fail."""
        repeated = [change for position, change in self._run if position <= self._repeated_upto]
        others = [change for position, change in self._run if position > self._repeated_upto]
        changes = merge.fold(repeated, repeated=True, then=others)
        return Told(len(self._run), changes, self.read)

    def pass_run(self) -> None:
        """Begin a new run: this one is told."""
        self.safe = self.read
        self._run, self._characters = [], 0

    def _is_in_epoch(self) -> bool:
        """Tell whether the tailer reads our epoch: a later one ends us, an older one will rise."""
        present = self._tailer.epoch
        if present is not None and present > self._epoch:
            self.end = scope.End.OTHER_HISTORY
        return present == self._epoch

    def _has_more(self) -> bool:
        return self._tailer.end.position > self.read.position and not self.is_full

    def _take_page(self, page: journal.Page) -> bool:
        self._page = None
        if page.head.epoch != self._epoch or page.head.floor_position > self.read.position:
            self.end = scope.End.OTHER_HISTORY
            return False
        self._take(page.rows, page.upto)
        return True

    def _take(self, rows: list[Row], upto: Point) -> None:
        for row in rows:
            if self.is_full:
                return
            seen = scope.view(row, self._watcher)
            if isinstance(seen, scope.End):
                self.end = seen
                return
            self._pass(Point(row.position, row.tag), seen, row)
        self._pass(upto, None, None)

    def _pass(self, point: Point, seen: Change | None, row: Row | None) -> None:
        """Move past `point`, taking what is seen there into the run."""
        if seen is not None and row is not None and (self._run or not seen.own):
            at = self._clock.monotonic() - self._tailer.age_seconds(row)
            if not self._run:
                self._first_at = self._last_at = at
            elif not seen.own:
                self._last_at = max(self._last_at, at)
            self._run.append((row.position, seen))
            self._characters += len(seen.from_path) + len(seen.to_path)
        self.read = point
        if not self._run:
            self.safe = point

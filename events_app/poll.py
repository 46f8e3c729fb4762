"""One request for a page of changes: the same cursor, scope, settling and fold as a stream's.

Theory of operation
    A poll is a stream that tells one run and ends. It starts at the cursor that its client brings,
    reads with a follower of its own, and waits on one bell until a run has settled or its time is
    up. While it waits it holds a greenlet, no connection to the database and no thread.

Rules
    - Nothing is remembered: the client keeps its cursor, and an answer that never arrives is asked
      for again with the cursor before it.
    - The cursor of a page is the follower's safe point, so that a stream can go on from it.
    - The wait is counted from the request's arrival: waiting for a place is waiting too, and no
      answer comes later than a client or its token lasts.
"""

from __future__ import annotations

from typing import NamedTuple

from gevent.event import Event
from sqlalchemy.exc import SQLAlchemyError

from events_app import errors, failures, resumption
from events_app.event import Change, Cursor, Point
from events_app.follower import Follower
from events_app.resumption import Start
from events_app.scope import Watcher
from events_app.surroundings import Surroundings


class Request(NamedTuple):
    """What one client asked for: changes of at most `rows` rows, waited for `wait_seconds`."""

    watcher: Watcher
    cursor: str | None
    rows: int
    wait_seconds: float


class Page(NamedTuple):
    """What it is told. `more`: the next page need not be waited for."""

    changes: list[Change]
    cursor: str
    more: bool


class Poll:
    """One request for a page."""

    def __init__(self, around: Surroundings, request: Request) -> None:
        """Prepare, as the request comes; nothing happens before `page`."""
        self._around = around
        self._request = request
        self._until = around.clock.monotonic() + request.wait_seconds
        self._bell = Event()
        self._given_up = self._withdrawn = False

    @property
    def watcher(self) -> Watcher:
        """Who watches what."""
        return self._request.watcher

    @property
    def lag_positions(self) -> int:
        """Who polls is behind by its own choice."""
        return 0

    def stop(self, *, late: bool = False) -> None:
        """Answer what there is: the server is shutting down."""
        del late
        self.give_up()

    def withdraw(self) -> None:
        """Tell nothing more: what permitted it is gone."""
        self._withdrawn = True
        self._bell.set()

    def give_up(self) -> None:
        """Wait no longer: nobody listens."""
        self._given_up = True
        self._bell.set()

    def page(self) -> Page:
        """Return a page, empty when nothing settled in time; without a cursor, where to start from.

        Raises `CannotResume` with a fresh cursor, `DatabaseAway`, and `ForeignFolder` when the
        permission goes meanwhile.
        """
        polled = self._around.tally.polled
        try:
            page = self._page()
        except errors.CannotResume:
            polled["cannot_resume"] += 1
            raise
        except SQLAlchemyError as error:
            if not failures.is_away(error):
                raise
            polled["database_away"] += 1
            raise errors.DatabaseAway from error
        polled["changes" if page.changes else "nothing"] += 1
        return page

    def _page(self) -> Page:
        start = self._decide(self._request.cursor)
        if self._request.cursor is None:
            return Page([], self._text(start, start.point), more=False)
        if not start.resumed:
            raise self._refusal(start)
        return self._follow(start)

    def _decide(self, cursor: str | None) -> Start:
        around = self._around
        rows = around.pace.limits.replay_rows
        with around.turns:
            return around.database.read(
                lambda db: resumption.decide(db, self.watcher, cursor, rows)
            )

    def _refusal(self, start: Start) -> errors.CannotResume:
        refusal = errors.CannotResume(f"The cursor cannot be honoured: {start.reason}.")
        refusal.data = {"cursor": self._text(start, start.point), "reason": start.reason}
        return refusal

    def _follow(self, start: Start) -> Page:
        around = self._around
        follower = Follower(
            around.tailer,
            around.database,
            around.clock,
            self.watcher,
            start.epoch,
            start.point,
            start.repeated_upto,
            self._request.rows,
        )
        around.tailer.add_bell(self.watcher.owner_id, self._bell)
        try:
            return self._take(follower, start)
        finally:
            around.tailer.remove_bell(self.watcher.owner_id, self._bell)

    def _take(self, follower: Follower, start: Start) -> Page:
        clock, pace = self._around.clock, self._around.pace
        while True:
            self._read(follower)
            if self._withdrawn:
                raise errors.ForeignFolder
            due_at = follower.due_at(pace.debounce, pace.debounce_max)
            now = clock.monotonic()
            if due_at is not None and due_at <= now:
                more = follower.is_full
                told = follower.take_run()
                if told.changes:
                    self._around.tally.folded_rows += told.rows
                    self._around.tally.told_changes += len(told.changes)
                    return Page(told.changes, self._text(start, told.after), more)
                continue  # folded away
            if follower.end is not None:
                return self._end(start, follower.safe)
            if self._given_up or now >= self._until:
                return Page([], self._text(start, follower.safe), more=False)
            clock.wait(self._bell, min(self._until, due_at or self._until) - now)
            self._bell.clear()

    def _read(self, follower: Follower) -> None:
        """Take all that is there, until the run is full."""
        while follower.advance() or follower.needs_page():
            if follower.needs_page():
                with self._around.turns:
                    follower.fetch_page()

    def _end(self, start: Start, safe: Point) -> Page:
        """Say why nothing can be told that comes after `safe`."""
        again = self._decide(self._text(start, safe))
        if not again.resumed:
            raise self._refusal(again)
        return Page([], self._text(start, safe), more=False)

    def _text(self, start: Start, point: Point) -> str:
        partly = point.position < start.repeated_upto
        cursor = Cursor.at(start.epoch, point, self.watcher.user_id, self.watcher.folder)
        return cursor._replace(partly=partly).text()

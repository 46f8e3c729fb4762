"""The rows a tailer read last, by user: what streams that keep up read instead of SQL."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from events_app.event import Point, Row

# Some 6 MB a worker; some seconds of a busy installation, many minutes of a quiet one.
WINDOW_ROWS = 10_000


class Window:
    """All rows in (`start`, `end`], bounded; not a row of them missing."""

    def __init__(self, end: Point, rows: int = WINDOW_ROWS) -> None:
        """Begin empty at `end`, to hold at most `rows` rows."""
        self.start = end.position
        self.end = end
        self._most = rows
        self._rows: deque[Row] = deque()
        self._of_user: dict[str, deque[Row]] = {}

    def extend(self, rows: Iterable[Row]) -> None:
        """Append rows, which follow `end` without a hole."""
        for row in rows:
            self._rows.append(row)
            self._of_user.setdefault(row.user_id, deque()).append(row)
            self.end = Point(row.position, row.tag)
        while len(self._rows) > self._most:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        row = self._rows.popleft()
        self.start = row.position
        rows = self._of_user[row.user_id]
        rows.popleft()
        if not rows:
            del self._of_user[row.user_id]

    def after(self, user_id: str, position: int) -> list[Row] | None:
        """Return the user's rows in (position, `end`]; None when that is behind the window."""
        if position < self.start:
            return None
        newest_first = []
        for row in reversed(self._of_user.get(user_id, ())):
            if row.position <= position:
                break
            newest_first.append(row)
        return newest_first[::-1]

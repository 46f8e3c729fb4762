"""A watcher that comes back whenever a connection ends, and holds every claim to the journal.

Every frame's `id` is a claim: everything of this watcher up to there has been told.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import random
import threading
import time
from typing import NamedTuple

from events_app import event
from tests.frames import Frame, Reader
from tests.serving import Server


class Told(NamedTuple):
    """What an `id` claims: with these files, everything in (before, after] has been told.

    Of a batch in several frames only the last one's `id` passes it, so files may be told of early.
    """

    connection: int
    before: int
    after: int
    file_ids: list[str]


class JournalRow(NamedTuple):
    """A row of the journal, as far as the proof needs it."""

    position: int
    user_id: str
    type: str
    file_id: str
    from_path: str
    client_id: str | None


def position_of(cursor: str) -> int:
    """Read the position out of an `id`."""
    parsed = event.Cursor.parse(cursor)
    assert parsed is not None, cursor
    return parsed.point.position


def is_in_order(told: list[str], rows: list[JournalRow]) -> bool:
    """Say whether each file is told of in the place of one of its rows, the watcher's own too."""
    left = (row.file_id for row in rows)
    return all(file_id in left for file_id in told)


class ClosingReader(Reader):
    """Closes its socket also when the server dies before it answers."""

    def _read_head(self) -> tuple[int, str]:
        try:
            return super()._read_head()
        except (OSError, EOFError):
            self.connection.close()
            raise


class Client(threading.Thread):
    """One watcher that comes back whenever a connection ends, on the other instance.

    With `by_event_id` it brings its last `id`, else only its client id. With `stay_seconds` it
    leaves by itself about so often.
    """

    def __init__(
        self,
        servers: list[Server],
        user: str,
        folder: str = "",
        *,
        client_id: str | None = None,
        by_event_id: bool = True,
        stay_seconds: float | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.user = user
        self.folder = folder
        self.client_id = client_id
        self.claims: list[Told] = []
        self.faults: list[str] = []
        self.connections = 0
        self.patience_seconds = 20.0
        self.begun = threading.Event()
        self.start_position = -1
        self.position = -1
        self._servers = itertools.cycle(servers)
        self._by_event_id = by_event_id
        self.stay_seconds = stay_seconds
        self._last_id: str | None = None
        self._farthest = -1
        self._pending: list[str] = []
        self._target: int | None = None

    def run(self) -> None:
        while not self._is_done() and not self.faults:
            self._pending = []
            with contextlib.suppress(EOFError, ConnectionError):
                self._connect_once()

    def finish_at(self, position: int) -> None:
        """End as soon as everything up to `position` has been told."""
        self._target = position

    def _is_done(self) -> bool:
        return self._target is not None and self.position >= self._target

    def _connect_once(self) -> None:
        with ClosingReader(
            next(self._servers),
            self.user,
            self.client_id,
            uri=f"cloudreve://my{self.folder}",
            last_event_id=self._last_id if self._by_event_id else None,
        ) as reader:
            self.connections += 1
            self._listen(reader)

    def _listen(self, reader: Reader) -> None:
        leave_at = None
        if self.stay_seconds is not None:
            leave_at = time.monotonic() + self.stay_seconds * random.uniform(0.2, 2)  # noqa: S311 -- guards nothing
        while not self._is_done() and (leave_at is None or time.monotonic() < leave_at):
            try:
                frame = reader.frame(self.patience_seconds)
            except TimeoutError:
                self._hears_nothing()
                return
            if frame is None:
                return
            self._hear(frame)

    def _hears_nothing(self) -> None:
        self._fault("the stream is silent, without keep-alives")

    def _hear(self, frame: Frame) -> None:
        if frame.id is None:
            return  # held: nothing is claimed yet
        position = position_of(frame.id)
        if frame.name in {"subscribed", "resumed"}:
            self._start_at(frame, position)
        else:
            self._pending += [change["file_id"] for change in self._changes(frame)]
            if position > self.position:
                told = Told(self.connections, self.position, position, self._pending)
                self.claims.append(told)
                self._pending = []
            elif position < self.position:
                self._fault(f"the id went back from {self.position} to {position}")
        self.position = position
        self._farthest = max(self._farthest, position)
        self._last_id = frame.id
        self.begun.set()

    def _changes(self, frame: Frame) -> list[dict[str, str]]:
        changes = frame.changes if frame.name == "event" else []
        if any(not change["from"].startswith("/") for change in changes):
            self._fault(f"not relative: {changes}")
        return changes

    def _start_at(self, frame: Frame, position: int) -> None:
        if self.start_position < 0:
            self.start_position = position
        elif frame.name == "subscribed":
            self._fault(f"subscribed again, after position {self._farthest}")
        elif self._by_event_id and position != self.position:
            self._fault(f"resumed at {position} and not at its own {self.position}")
        elif position > self._farthest:
            self._fault(f"resumed at {position}, told only up to {self._farthest}")

    def _fault(self, what: str) -> None:
        self.faults.append(what)

    def is_told_of(self, row: JournalRow) -> bool:
        """Say whether `row` is this watcher's to hear."""
        return self._is_near(row) and (row.client_id is None or row.client_id != self.client_id)

    def _is_near(self, row: JournalRow) -> bool:
        """Say whether `row` is in the watched folder, whoever made it."""
        return row.user_id == self.user and row.from_path.startswith(f"{self.folder}/")

    def wrong_claims(self, journal: list[JournalRow]) -> list[str]:
        """Hold every claim up to the end of `journal` against it: no row missing, none too many."""
        last = journal[-1].position if journal else 0
        near = [row for row in journal if self._is_near(row)]
        positions = [row.position for row in near]
        wrong = []
        connection, early = 0, list[str]()
        for claim in self.claims:
            if claim.after > last:
                break
            if claim.connection != connection:
                connection, early = claim.connection, []
            ends = (claim.before, claim.after)
            first, last = (bisect.bisect_right(positions, end) for end in ends)
            rows = near[first:last]
            expected = [row.file_id for row in rows if self.is_told_of(row)]
            told = early + claim.file_ids
            if not expected:
                early = told
                continue
            early = []
            if set(told) != set(expected) or not is_in_order(told, rows):
                wrong.append(f"{ends}: told {told}, should be {expected}")
        return wrong

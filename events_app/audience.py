"""Those who are told the same: streams of one user on one folder that stand at the same point.

Theory of operation
    What is seen of a row, when a run has settled, what it folds to and how it is framed depends on
    the watched folder and the payload, not on who of its streams looks. So an audience has one
    follower, which reads, settles and folds once for all of its members, and what they are told is
    encoded once (a `Telling`). The herald has it told to them, some at a time.

Rules
    - A member stands where the audience stands, and has no run of its own.
    - Whose own change a row is leaves before the row is read. Whoever leaves, for whatever reason,
      goes on alone from the point up to which it was told everything, and reads the rows again.
    - Nothing is read while a telling is under way: members who have heard it and members who have
      not stand at two different points, and there must not be a third.
    - Nobody is waited for: who has something else to do, or whose kernel does not take the whole
      frame at once, leaves too, and its own greenlet writes the rest.
    - Only what one frame can tell is told to all: the parts of a batch repeat an `id` that each
      member may have another one of. For that, and at every end of the history, the audience is
      over, and each member does for itself what is to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from events_app import delivery, sse
from events_app.event import Cursor, Point, Row
from events_app.follower import Follower, Told
from events_app.line import Line
from events_app.scope import Watcher
from events_app.tailer import Tailer


class Kind(NamedTuple):
    """What members have in common: the watcher but for its client id, the payload, the epoch."""

    watcher: Watcher
    payload: sse.Payload
    epoch: int


class Telling:
    """One frame for all: the point before it and after it, and its bytes.

    `chunk` is the frame as HTTP/1.1 carries it where the length of a body is not known before.
    `heard_by` counts those to whom it was written at once.
    """

    __slots__ = (
        "after",
        "before",
        "changes",
        "chunk",
        "frame",
        "heard_by",
        "number",
        "rows",
        "written",
    )

    def __init__(self, number: int, before: Point, told: Told, frame: bytes, now: float) -> None:
        """Make the telling of what was folded, which begins `now` (monotonic seconds)."""
        self.number = number
        self.before = before
        self.after = told.after
        self.rows = told.rows
        self.changes = len(told.changes)
        self.frame = frame
        # RFC 9112, section 7.1.
        self.chunk = b"%X\r\n%b\r\n" % (len(frame), frame)
        self.heard_by = 0
        self.written = delivery.written(now, told.after.position, change=True)

    def renew(self, now: float) -> None:
        """Note that it is still being written: what is confirmed is confirmed from then on."""
        if now > self.written[0]:
            self.written = delivery.written(now, self.after.position, change=True)


class Member(Protocol):
    """A stream that is told by an audience."""

    @property
    def watcher(self) -> Watcher:
        """Who watches what."""

    @property
    def lent_line(self) -> Line | None:
        """The way to its kernel, while others may write there for it."""

    def heard(self, telling: Telling, now: float) -> None:
        """Note that the kernel has taken a frame, written `now` (monotonic seconds)."""

    def heard_in_part(self, telling: Telling, rest: bytes) -> None:
        """Write the rest of a frame before anything else, as slowly as the kernel takes it."""

    def leave(self) -> None:
        """Go on alone."""

    def wake(self) -> None:
        """Look around."""


class Audience:
    """The members, and their one position. `call` makes the herald look at this audience.

    Beside each of the members stands the number of the last telling that it has heard.
    """

    __slots__ = (
        "_call",
        "_follower",
        "_is_telling",
        "_number",
        "_tailer",
        "_telling",
        "is_over",
        "kind",
        "looked_at_at",
        "members",
    )

    def __init__(
        self, kind: Kind, follower: Follower, tailer: Tailer, call: Callable[[Audience], None]
    ) -> None:
        """Begin without members at the place of `follower`."""
        self.kind = kind
        self._follower = follower
        self._tailer = tailer
        self._call = call
        self._telling: Telling | None = None
        self._number = 0
        self.looked_at_at: float | None = None
        self._is_telling = self.is_over = False
        self.members: dict[Member, int] = {}
        tailer.add_bell(kind.watcher.owner_id, self)

    @property
    def read(self) -> Point:
        """How far rows were looked at."""
        return self._follower.read

    def set(self) -> None:
        """Hear the tailer's bell: there are new rows."""
        self._call(self)

    def safe(self, member: Member) -> Point:
        """Return the point up to which a member was told everything."""
        if self._telling is not None and self.members[member] != self._telling.number:
            return self._telling.before
        return self._follower.safe

    def is_with(self, member: Member) -> bool:
        """Tell whether a member has heard everything, and will hear what comes."""
        return not self.is_over and self.members[member] == self._number

    def is_at(self, point: Point) -> bool:
        """Tell whether the audience stands at `point`, and nothing after it waits."""
        return self._follower.is_at_rest and self._follower.safe == point

    def catch_up(self) -> None:
        """Read what is new, unless a telling is under way."""
        if not self._is_telling and not self.is_over and self._read():
            self._call(self)

    def due_at(self, quiet_seconds: float, longest_seconds: float) -> float | None:
        """Read what is new, and tell when the run is to be told; None while there is none."""
        if self._read():
            return self._follower.due_at(quiet_seconds, longest_seconds)
        return None

    def _read(self) -> bool:
        """Read what is new; tell whether a run waits."""
        follower = self._follower
        rows = self._tailer.rows_after(self.kind.watcher.owner_id, follower.read.position)
        if rows is None:
            self.end()
            return False
        self._part_with_authors(rows)
        while follower.advance():
            pass
        if follower.end is not None:
            self.end()
        return not self.is_over and not follower.is_at_rest

    def _part_with_authors(self, rows: list[Row]) -> None:
        authors = {row.client_id for row in rows} - {None}
        if authors:
            for member in [each for each in self.members if each.watcher.client_id in authors]:
                member.leave()

    def begin(self, now: float) -> Telling | None:
        """Take the run to tell it; None when it cannot be told to all, and the audience is over.

        `done` is to be called when everybody has heard it, or has left. A telling whose frame is
        empty (everything was folded away) is not told to anybody.
        """
        follower, kind, before = self._follower, self.kind, self._follower.safe
        told = follower.fold_run()
        watcher = kind.watcher
        cursor = Cursor.at(kind.epoch, told.after, watcher.user_id, watcher.folder).text()
        frames = sse.event_frames(told.changes, cursor, cursor, kind.payload)
        follower.pass_run()
        if not frames:
            return Telling(self._number, before, told, b"", now)
        self._number += 1
        self._is_telling = True
        self._telling = Telling(self._number, before, told, frames[0], now)
        if len(frames) == 1:
            return self._telling
        self.end()
        return None

    def tell(self, some: Iterable[Member], telling: Telling, now: float) -> None:
        """Write what was begun to some of the members' kernels; `now` in monotonic seconds.

        Who has something else to do leaves before it, and who has heard a part leaves behind it.
        """
        members, number = self.members, telling.number
        for member in some:
            # Who has left meanwhile is none, and who has come meanwhile has heard it alone.
            if members.get(member, number) == number:
                continue
            line = member.lent_line
            if line is None:
                member.leave()
                continue
            rest = line.send(telling.frame, telling.chunk)
            members[member] = number
            if rest:
                member.heard_in_part(telling, rest)
                member.leave()
            else:
                member.heard(telling, now)
                telling.heard_by += 1

    def done(self) -> None:
        """Note that everybody has heard what was begun, or has left."""
        self._telling = None
        self._is_telling = False
        self.catch_up()  # a full run was not read on

    def end(self) -> None:
        """Be over: every member goes on alone, from where it stands."""
        if not self.is_over:
            self.is_over = True
            self._tailer.remove_bell(self.kind.watcher.owner_id, self)
            self._call(self)

    def join(self, member: Member) -> None:
        """Take in who stands at the same point."""
        self.members[member] = self._number

    def remove(self, member: Member) -> None:
        """Let a member go; without members there is no audience."""
        del self.members[member]
        if not self.members:
            self.end()

"""Where one stream stands in the journal, and with whom: alone, or with others in an audience.

Theory of operation
    Alone it has a follower, and its bell rings when there are new rows. When everything was read
    that there is, it joins those who stand at the same point, and its follower goes: the audience
    reads for all of them. Whoever leaves, or is left, has a new follower from the point up to which
    it was told everything.

Rules
    - It stands on one ground at a time: a follower of its own, or an audience.
    - Who may hear something for the second time stands alone: it is told otherwise than others.
    - The stream itself is the member, and is named in each call. Were it kept here, both would wait
      for Python's collector when the stream is over.
"""

from __future__ import annotations

from gevent.event import Event

from events_app import sse
from events_app.audience import Audience, Kind, Member
from events_app.event import Cursor, Point
from events_app.follower import Follower
from events_app.resumption import Start
from events_app.scope import Watcher
from events_app.surroundings import Surroundings


class Footing:
    """Where one stream stands."""

    __slots__ = ("_around", "_bell", "_epoch", "_ground", "_repeated_upto", "_watcher")

    def __init__(self, around: Surroundings, watcher: Watcher, bell: Event, start: Start) -> None:
        """Stand alone at `start`; `bell` rings for new rows whenever the stream stands alone."""
        self._around = around
        self._watcher = watcher
        self._bell = bell
        self._epoch = start.epoch
        self._repeated_upto = start.repeated_upto
        self._ground: Follower | Audience = self._follow_from(start.point)

    def _follow_from(self, point: Point) -> Follower:
        around = self._around
        around.tailer.add_bell(self._watcher.owner_id, self._bell)
        return Follower(
            around.tailer,
            around.database,
            around.clock,
            self._watcher,
            self._epoch,
            point,
            self._repeated_upto,
        )

    @property
    def follower(self) -> Follower | None:
        """What reads for this stream alone; None while it stands with others."""
        return self._ground if isinstance(self._ground, Follower) else None

    def safe(self, member: Member) -> Point:
        """Return the point up to which everything was told."""
        ground = self._ground
        return ground.safe(member) if isinstance(ground, Audience) else ground.safe

    def cursor(self, point: Point) -> Cursor:
        """Make the cursor of who was told everything up to `point`."""
        cursor = Cursor.at(self._epoch, point, self._watcher.user_id, self._watcher.folder)
        return cursor._replace(partly=point.position < self._repeated_upto)

    def lag_positions(self, member: Member) -> int:
        """Return the positions from what was told to the last row that was read.

        Where nothing of the user's lies between them, it lags behind nothing.
        """
        tailer, read, safe = self._around.tailer, self._ground.read, self.safe(member)
        if safe == read and tailer.is_silent_after(self._watcher.owner_id, read.position):
            return 0
        return max(0, tailer.end.position - safe.position)

    def join(self, member: Member, payload: sse.Payload) -> None:
        """Stand with those who stand at the same point and take the same payload, if it can be."""
        follower = self.follower
        if follower is None or not follower.has_caught_up:
            return
        if follower.safe.position < self._repeated_upto:
            return
        kind = Kind(self._watcher._replace(client_id=None), payload, self._epoch)
        audience = self._around.herald.audience(kind, follower.safe)
        if audience is not None:
            audience.join(member)
            self._ground = audience
            self._around.tailer.remove_bell(self._watcher.owner_id, self._bell)

    def keep_up(self, member: Member) -> None:
        """Stand where the others stand now; alone, if they have gone on without this one."""
        if isinstance(self._ground, Audience):
            self._ground.catch_up()
        # That may have been without us already.
        if isinstance(self._ground, Audience) and not self._ground.is_with(member):
            self.leave(member)

    def leave(self, member: Member) -> bool:
        """Stand alone from now on, at the same point; tell whether there were others."""
        audience = self._ground
        if not isinstance(audience, Audience):
            return False
        point = audience.safe(member)
        audience.remove(member)
        self._ground = self._follow_from(point)
        return True

    def give_up(self, member: Member) -> None:
        """Stand nowhere any more: the stream is over."""
        if isinstance(self._ground, Audience):
            self._ground.remove(member)
        else:
            self._around.tailer.remove_bell(self._watcher.owner_id, self._bell)

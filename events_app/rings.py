"""A way out for entries that are in each other's way.

In every history that leads into a ring, one entry went through some third place. So the first
choice are the places that the ring's own entries went through, their stops; then any place that the
run names: what stands there is known, and so whether it is free. Not a place that the client's own
changes name: a second delivery would say nothing of it, to a client that broke off behind the step
aside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

from events_app.tree import CLIENT, Entry, Place, upwards

# How well an entry would stand somewhere, best first: at rest; in a folder of the ring, which will
# move; in a folder that will die, and has to be left before; where somebody must leave first; still
# below the one that it is in the way of. Everywhere else it cannot be.
AT_REST, MOVING, DYING, TAKEN, IN_THE_WAY, IMPOSSIBLE = range(6)

# How many places are looked at for one ring beside its own stops. Runs can be made that have
# thousands of rings without a stop, and a worker must not spend minutes on them.
PLACES = 200

Step = tuple[Entry, Place]


class NoWayOutError(Exception):
    """No step aside is known; the ring's entries should have come before others took the room."""

    def __init__(self, ring: Collection[Entry]) -> None:
        """Say who is in the ring."""
        super().__init__(ring)
        self.ring = ring


def way_out(
    ring: Sequence[Entry], waiting: Collection[Entry], tried: AbstractSet[Step], root: Entry
) -> Step:
    """Find who of `ring` can step aside, and to which place below `root`.

    Each of `ring` is in the way of the next one, the last one in the way of the first. Who is
    `waiting` makes no room, and what was `tried` is no way out. Raises `NoWayOutError`.
    """
    judge = _Judge(ring, waiting, tried)
    stops = [(entry, stop) for entry in ring for stop in reversed(entry.stops or ())]
    anywhere = judge.steps_to(islice(_places(root), PLACES))
    for steps, worst in ((stops, TAKEN), (anywhere, TAKEN), (stops, IN_THE_WAY)):
        step = judge.best(steps, worst)
        if step is not None:
            return step
    raise NoWayOutError(ring)


class _Judge:
    def __init__(
        self, ring: Sequence[Entry], waiting: Collection[Entry], tried: AbstractSet[Step]
    ) -> None:
        self._ring = dict.fromkeys(ring)
        self._blocked = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
        self._waiting = waiting
        self._tried = tried

    def steps_to(self, places: Iterable[Place]) -> Iterator[Step]:
        """Yield a step to each of `places`: whoever can stand there would stand equally well."""
        for place in filter(self._is_open, places):
            able = (entry for entry in self._ring if self._judge(entry, place) <= TAKEN)
            if (entry := next(able, None)) is not None:
                yield entry, place

    def best(self, steps: Iterable[Step], worst: int) -> Step | None:
        """Find the best step, none that is worse than `worst`."""
        found = None
        for step in steps:
            judged = self._judge(*step)
            if judged <= worst:
                found, worst = step, judged - 1
            if worst < AT_REST:
                break
        return found

    def _judge(self, entry: Entry, place: Place) -> int:
        if not self._is_open(place) or (entry, place) in self._tried:
            return IMPOSSIBLE
        folder = place.folder
        above = list(upwards(folder, CLIENT))
        if entry in above or not above[-1].is_root:
            return IMPOSSIBLE
        if place.client is not None:
            return TAKEN
        blocked = self._blocked[entry]
        if blocked in above and blocked.goal() is not entry.client:
            return IN_THE_WAY
        if not folder.lives():
            return DYING
        return MOVING if any(each in self._ring for each in above) else AT_REST

    def _is_open(self, place: Place) -> bool:
        """Tell whether anybody could stand there, as far as the place itself says."""
        if place.by_client or not place.by_others:
            return False
        return place.client is None or self._can_make_room(place.client)

    def _can_make_room(self, occupant: Entry) -> bool:
        """Tell whether it is going to leave, or dies and nothing that is known is in it."""
        here = occupant.client
        if occupant in self._waiting or here is None or occupant.goal() is here:
            return False
        return occupant.lives() or here.folder.lives() or not occupant.inside


def _places(root: Entry) -> Iterator[Place]:
    folders = [root]
    while folders:
        for place in (folders.pop().inside or {}).values():
            yield place
            if place.client is not None:
                folders.append(place.client)

"""Tell a client the shortest way from its tree to the server's.

Theory of operation
    Each entry needs one thing said at most: `create`, `delete` or `rename`, and perhaps `modify`.
    They are said in the order of the entries' last changes, each after what is in its way: who
    occupies its place, the folder it goes to, who must leave a folder before that dies. What is
    said moves the client's tree, and paths are read off that tree at that moment: so every step
    names what is there.
    Where entries are in each other's way in a ring, one steps aside (`rings`).

Rules
    What dies in its folder is not mentioned: the folder's `delete` says it.
    A client that is told of a new folder lists it: what came with it is not mentioned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter

from events_app import rings
from events_app.event import Change
from events_app.forest import Forest
from events_app.tree import CLIENT, Entry, Paths, Place, is_below

# How often another way is looked for. In random histories full of rings three were enough in all
# but one of 20,000.
LOOKS = 8


def tell(forest: Forest, run: Sequence[Change]) -> list[Change]:
    """List what a client must hear that has the client's tree; `run` is what `forest` has read.

    A way with a step aside is itself a run, and is folded until it stays as it is. Raises
    `rings.NoWayOutError`.
    """
    told, stepped_aside = _find_way(forest, run)
    for _ in range(LOOKS if stepped_aside else 0):
        try:
            again, _stepped_aside = _find_way(Forest.of(told), told)
        except rings.NoWayOutError:
            break
        if again == told:
            break
        told = again
    return told


def _find_way(forest: Forest, run: Sequence[Change]) -> tuple[list[Change], bool]:
    """List what to tell, and say whether there is a step aside in it.

    Who finds no way out of a ring goes first the next time, before others have taken the room.
    """
    first: set[int] = set()
    for _ in range(LOOKS):
        teller = _Teller(forest, first)
        try:
            return teller.everything(), bool(teller.steps_aside)
        except rings.NoWayOutError as error:
            first.update(entry.last for entry in error.ring)
        finally:
            forest.release()
        forest = Forest.of(run)
    raise rings.NoWayOutError(())


class _Teller:
    def __init__(self, forest: Forest, first: Collection[int]) -> None:
        self.steps_aside: set[rings.Step] = set()
        self._root = forest.root
        self._entries = sorted(forest.entries, key=attrgetter("last"))
        if first:
            self._entries.sort(key=lambda entry: entry.last not in first)
        self._changes: list[Change] = []
        self._leavers: dict[Entry, list[Entry]] = {}
        self._paths = Paths(forest.root)

    def everything(self) -> list[Change]:
        for entry in reversed(self._entries):
            self._note_leaver(entry)
        for entry in self._entries:
            while not entry.settled:
                self._settle(entry)
        return self._changes

    # -- order ---------------------------------------------------------------------------------

    def _settle(self, entry: Entry) -> None:
        """Say what `entry` needs, after what is in its way."""
        blocker = self._blocker(entry)
        if blocker is None:
            self._say(entry)
            return
        waiting = {entry: None, blocker: None}
        while waiting:
            entry = next(reversed(waiting))
            blocker = self._blocker(entry)
            if blocker is None:
                self._say(entry)
                del waiting[entry]
            elif blocker in waiting:
                self._break(waiting, blocker)
            else:
                waiting[blocker] = None

    def _break(self, waiting: dict[Entry, None], first: Entry) -> None:
        """Let one step aside of the ring that ends `waiting`, or first whoever is where it could.

        Each of the ring is in the way of the one before it, and `first` in the way of the last.
        """
        ring = []
        for entry in reversed(waiting):
            ring.append(entry)
            if entry is first:
                break
        entry, stop = rings.way_out(ring, waiting, self.steps_aside, self._root)
        if stop.client is None:
            self._step_aside(entry, stop)
            for each in ring:
                del waiting[each]
        elif stop.client.lives() or stop.folder.lives():
            waiting[stop.client] = None
        else:
            stop.client.settled = True
            self._leave(stop.client, stop)

    def _blocker(self, entry: Entry) -> Entry | None:
        """Find who must be settled before `entry` can be."""
        goal, here = entry.goal(), entry.client
        if goal is here:
            return None
        if goal is None:
            return self._leaver(entry)
        missing = _missing(goal.folder)
        if missing is not None:
            return missing
        if here is not None and entry.inside and is_below(goal.folder, entry, CLIENT):
            return _between(goal.folder)
        return goal.client

    def _leaver(self, entry: Entry) -> Entry | None:
        leavers = self._leavers.get(entry, [])
        while leavers and (leavers[-1].settled or not is_below(leavers[-1], entry, CLIENT)):
            leavers.pop()
        return leavers[-1] if leavers else None

    def _note_leaver(self, entry: Entry) -> None:
        """Note that the folder in which `entry` would die must wait until it has left."""
        if entry.client is None or entry.client.folder.lives() or not entry.lives():
            return
        dying = entry.client.folder
        while dying.client is not None and not dying.client.folder.lives():
            dying = dying.client.folder
        self._leavers.setdefault(dying, []).append(entry)

    # -- steps ---------------------------------------------------------------------------------

    def _step_aside(self, entry: Entry, stop: Place) -> None:
        self.steps_aside.add((entry, stop))
        if len(self.steps_aside) > len(self._entries):
            raise rings.NoWayOutError((entry,))
        self._arrive(entry, stop)
        for each in [entry, *self._leavers.get(entry, ())]:
            self._note_leaver(each)

    def _say(self, entry: Entry) -> None:
        entry.settled = True
        goal = entry.goal()
        if goal is None:
            if entry.client is not None and entry.client.folder.lives():
                self._leave(entry, entry.client)
            return
        if entry.client is None and entry.came_to is goal:
            entry.stand_in_client(goal)
        elif entry.client is not goal or entry.early:
            self._arrive(entry, goal)
        if entry.dirty:
            self._add("modify", entry, self._paths.of(goal))

    def _arrive(self, entry: Entry, place: Place) -> None:
        here = entry.client
        if here is not None and not entry.early:
            old = self._paths.of(here)
            entry.stand_in_client(place)
            self._paths.forget_below(entry)
            self._add("rename", entry, old, self._paths.of(place))
            return
        if here is not None and here is not place:
            self._leave(entry, here)
        entry.stand_in_client(place)
        self._add("create", entry, self._paths.of(place))
        entry.dirty = entry.early = False

    def _leave(self, entry: Entry, here: Place) -> None:
        self._add("delete", entry, self._paths.of(here))
        entry.stand_in_client(None)
        self._paths.forget_below(entry)

    def _add(self, kind: str, entry: Entry, path: str, to_path: str = "") -> None:
        self._changes.append(Change(kind, entry.file_id or "", path, to_path))


def _missing(folder: Entry) -> Entry | None:
    """Find the folder to create before anything can be put into `folder`; None if it is there."""
    listed = []
    while folder.client is None and not folder.is_root:
        if folder.came_to is None or folder.came_to is not folder.server:
            return folder
        listed.append(folder)
        folder = folder.came_to.folder
    for each in reversed(listed):
        each.stand_in_client(each.came_to)
    return None


def _between(folder: Entry) -> Entry:
    """Find who, from `folder` upwards, is to go elsewhere."""
    while (here := folder.client) and (goal := folder.server) and here.folder is goal.folder:
        folder = here.folder
    return folder

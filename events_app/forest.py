"""Read a run of changes into two trees: what the client has, and what the server has.

Theory of operation
    The *client's* tree stands still while others' changes are read, and moves with the client's
    own. The *server's* moves with every change. Both begin unknown and equal: what stands at a path
    is learnt from the first change that names it.

Rules
    A change that cannot be (its entry is known to be elsewhere, its target to be taken) is not
    read, and moves nothing.
    Nothing is judged here: what to tell is seen afterwards, in the difference of the trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from events_app.event import Change
from events_app.tree import CLIENT, SERVER, Entry, Place, is_below


class Forest:
    """The two trees, and every entry that a change was about."""

    def __init__(self) -> None:
        """Begin with two unknown trees."""
        self.root = Entry.root()
        self.entries: list[Entry] = []
        self._met = [self.root]
        self._folders = {"": self.root}
        self._number = 0

    @classmethod
    def of(cls, run: Sequence[Change]) -> Self:
        """Read a `run` of which every change can be."""
        made = cls()
        made.read(run)
        return made

    def read(self, run: Sequence[Change], start: int = 0) -> int:
        """Read `run` from `start` up to the first change that cannot be; return its number."""
        for number in range(start, len(run)):
            self._number = number
            if not self._read(run[number]):
                return number
        return len(run)

    def release(self) -> None:
        """Part the entries from their places, when all has been told.

        They refer to each other: else their memory would wait for the garbage collector, which is
        what a worker with thousands of streams can least afford.
        """
        for entry in self._met:
            entry.client = entry.server = entry.came_to = entry.inside = entry.stops = None

    def _read(self, change: Change) -> bool:
        kind = change.type
        place = self._place(change.from_path, taken=kind != "create")
        if place is None:
            return False
        place.is_told_of |= not change.own
        entry = place.server
        if entry is None:
            return kind == "create" and self._create(change, place)
        if entry.file_id is None and kind != "create":
            entry.file_id = change.file_id
        if entry.file_id != change.file_id:
            return False
        if kind == "rename":
            return self._rename(change, entry, place)
        if kind == "delete":
            return self._delete(change, entry, place)
        return kind in {"modify", "create"} and self._modify(change, entry, place)

    # -- the four changes ----------------------------------------------------------------------

    def _create(self, change: Change, place: Place) -> bool:
        entry = self._new_entry(change.file_id)
        entry.stand_in_server(place)
        if change.own and _is_in_client(place.folder):
            self._move_client(entry, place)
        else:
            entry.dirty = True
        self._touch(entry)
        return True

    def _modify(self, change: Change, entry: Entry, place: Place) -> bool:
        if not change.own:
            entry.dirty = True
        elif place.client is None:
            self._meet_early(entry, place)
        self._touch(entry)
        return True

    def _delete(self, change: Change, entry: Entry, place: Place) -> bool:
        self._leave(entry, place)
        entry.stand_in_server(None)
        if change.own and place.client is not None:
            self._lose(place.client)
        self._touch(entry)
        return True

    def _rename(self, change: Change, entry: Entry, place: Place) -> bool:
        target = self._place(change.to_path, taken=False)
        if target is place:
            return True
        if target is None or target.server is not None:
            return False
        if entry.inside is not None and is_below(target.folder, entry, SERVER):
            return False
        target.is_told_of |= not change.own
        self._leave(entry, place)
        entry.stand_in_server(target)
        if change.own:
            self._rename_own(entry, place, target)
        self._touch(entry)
        return True

    # -- the client's own ----------------------------------------------------------------------

    def _rename_own(self, entry: Entry, place: Place, target: Place) -> None:
        moved = place.client
        if moved is None:
            self._meet_early(entry, target)
        elif _is_in_client(target.folder) and not is_below(target.folder, moved, CLIENT):
            self._move_client(moved, target)
        else:
            self._lose(moved)

    def _meet_early(self, entry: Entry, place: Place) -> None:
        """Put into the client's tree what it dealt with before it was told of it."""
        if _is_in_client(place.folder) and entry.client is None:
            self._move_client(entry, place)
            entry.early = True

    def _move_client(self, entry: Entry, place: Place) -> None:
        if place.client is not None and place.client is not entry:
            self._lose(place.client)
        entry.stand_in_client(place)
        self._touch(entry)

    def _lose(self, entry: Entry) -> None:
        """Take from the client's tree `entry` and all that is in it."""
        self._touch(entry)
        lost = [entry]
        while lost:
            entry = lost.pop()
            if entry.last < 0:
                entry.came_to = entry.client
            entry.stand_in_client(None)
            inside = (entry.inside or {}).values()
            lost += [place.client for place in inside if place.client is not None]

    # -- places --------------------------------------------------------------------------------

    def _touch(self, entry: Entry) -> None:
        if entry.last < 0:
            self.entries.append(entry)
        entry.last = self._number

    def _leave(self, entry: Entry, place: Place) -> None:
        if entry.stops is None:
            entry.stops = []
        entry.stops.append(place)
        if entry.inside is not None:
            self._folders = {"": self.root}

    def _place(self, path: str, *, taken: bool) -> Place | None:
        """Find the place of `path` in the server's tree; None where there cannot be one.

        `taken` says whether something stands there, in case that is not known yet.
        """
        folder_path, slash, name = path.rpartition("/")
        folder = self._folders.get(folder_path) or self._find_folder(folder_path)
        if folder is None or not slash or not name:
            return None
        return self._place_in(folder, name, taken=taken)

    def _find_folder(self, path: str) -> Entry | None:
        if not path.startswith("/"):
            return None
        folder = self.root
        for name in path[1:].split("/"):
            entry = self._place_in(folder, name, taken=True).server
            if entry is None:
                return None
            folder = entry
        self._folders[path] = folder
        return folder

    def _place_in(self, folder: Entry, name: str, *, taken: bool) -> Place:
        if folder.inside is None:
            folder.inside = {}
        place = folder.inside.get(name)
        if place is None:
            place = folder.inside[name] = Place(folder, name)
            if taken:
                self._learn(place)
        return place

    def _learn(self, place: Place) -> None:
        """Add an entry that has been at `place` for as long as its folder is there."""
        entry = self._new_entry(None)
        entry.stand_in_server(place)
        if _is_in_client(place.folder):
            entry.stand_in_client(place)
        else:
            entry.came_to = place

    def _new_entry(self, file_id: str | None) -> Entry:
        entry = Entry(file_id)
        self._met.append(entry)
        return entry


def _is_in_client(folder: Entry) -> bool:
    return folder.client is not None or folder.is_root

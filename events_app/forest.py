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

from events_app.event import TYPES, Change
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
        entry = self._on_server(change)
        if entry is None:
            return False
        if change.own:
            self._in_client(change, entry)
        elif change.type in {"create", "modify"}:
            entry.dirty = True
        self._touch(entry)
        return True

    # -- the server's tree ---------------------------------------------------------------------

    def _on_server(self, change: Change) -> Entry | None:
        """Do `change` in the server's tree and return its entry; None if it cannot be."""
        kind = change.type
        place = self._place(change.from_path, taken=kind != "create")
        if place is None:
            return None
        _note(place, change)
        entry = place.server
        if entry is None:
            return self._create(change, place) if kind == "create" else None
        if entry.file_id is None and kind != "create":
            entry.file_id = change.file_id
        if entry.file_id != change.file_id:
            return None
        if kind == "rename":
            return self._rename(change, entry, place)
        if kind == "delete":
            self._leave(entry, place)
            entry.stand_in_server(None)
        return entry if kind in TYPES else None

    def _create(self, change: Change, place: Place) -> Entry:
        entry = self._new_entry(change.file_id)
        entry.stand_in_server(place)
        return entry

    def _rename(self, change: Change, entry: Entry, place: Place) -> Entry | None:
        target = self._place(change.to_path, taken=False)
        if target is None or target is place:
            return None if target is None else entry
        if target.server is not None:
            return None
        if entry.inside is not None and is_below(target.folder, entry, SERVER):
            return None
        _note(target, change)
        self._leave(entry, place)
        entry.stand_in_server(target)
        return entry

    # -- the client's tree ---------------------------------------------------------------------

    def _in_client(self, change: Change, entry: Entry) -> None:
        """Do the client's own `change` of `entry` in its tree.

        By path, as the client did it: other folders may have these paths there.
        """
        place = self._client_place(change.from_path, taken=change.type != "create")
        there = None if place is None else place.client
        if change.type == "create":
            self._move(entry, place)
        elif change.type == "modify":
            self._meet_early(entry, place)
        elif change.type == "delete" and there is not None:
            self._lose(there)
        elif change.type == "rename":
            target = self._client_place(change.to_path, taken=False)
            if there is None:
                self._meet_early(entry, target)
            else:
                self._move(there, target)

    def _meet_early(self, entry: Entry, place: Place | None) -> None:
        """Put into the client's tree what it dealt with before it was told of it."""
        if place is not None and place.client is None and entry.client is None:
            entry.early = True
            self._move(entry, place)

    def _move(self, entry: Entry, target: Place | None) -> None:
        if target is None or is_below(target.folder, entry, CLIENT):
            self._lose(entry)
            return
        if target.client is not None and target.client is not entry:
            self._lose(target.client)
        entry.stand_in_client(target)
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

    def _client_place(self, path: str, *, taken: bool) -> Place | None:
        """Find the place of `path` in the client's tree; None if its folder is not there."""
        folder = self.root
        *above, name = path[1:].split("/")
        for each in above:
            entry = self._place_in(folder, each, taken=True).client
            if entry is None:
                return None
            folder = entry
        place = self._place_in(folder, name, taken=taken)
        place.by_client = True
        return place

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


def _note(place: Place, change: Change) -> None:
    if change.own:
        place.by_client = True
    else:
        place.by_others = True

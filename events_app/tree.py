"""Entries and places: two trees of the same entries, the client's and the server's.

A *place* is a folder's entry and a name, never a path. So a folder that moves takes along all that
is in it, also what no change ever names, and to move or remove it is one step. An entry is in a
tree when it has a place there and its folder is in the tree: what happens to a folder touches
nothing below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Self


class Entry:
    """One life of a file or folder: what is restored is another entry with the same id.

    `client` and `server` are its places in the two trees. `last` is the number of the last change
    about it, `stops` are the places it has left, oldest first. `came_to` is where a client finds it
    that lists the new folder it came with. `dirty`: its content must be fetched. `early`: the
    client has dealt with it before it was told of it. `inside` are the places in a folder.
    """

    __slots__ = (
        "came_to",
        "client",
        "dirty",
        "early",
        "file_id",
        "inside",
        "is_root",
        "known_to_live",
        "last",
        "server",
        "settled",
        "stops",
    )

    def __init__(self, file_id: str | None) -> None:
        """Make an entry that is nowhere yet; None for the id of one that no change was about."""
        self.file_id = file_id
        self.client: Place | None = None
        self.server: Place | None = None
        self.came_to: Place | None = None
        self.inside: dict[str, Place] | None = None
        self.stops: list[Place] | None = None
        self.last = -1
        self.dirty = self.early = self.settled = self.is_root = False
        self.known_to_live: bool | None = None

    @classmethod
    def root(cls) -> Self:
        """Make the folder that everything is in, in both trees."""
        root = cls(None)
        root.is_root = root.known_to_live = True
        return root

    def stand_in_client(self, place: Place | None) -> None:
        """Add, move or remove it in the client's tree; what stood there is not in it any more."""
        if self.client is not None:
            self.client.client = None
        self.client = place
        if place is not None:
            if place.client is not None:
                place.client.client = None
            place.client = self

    def stand_in_server(self, place: Place | None) -> None:
        """Add, move or remove it in the server's tree; `place` must be free."""
        if self.server is not None:
            self.server.server = None
        self.server = place
        if place is not None:
            place.server = self

    def lives(self) -> bool:
        """Tell whether it is in the server's tree, which must not change after the first question.

        The answer is kept, so that to ask of all entries is to walk over each of them once.
        """
        entry, unknown = self, []
        while entry.known_to_live is None:
            unknown.append(entry)
            if entry.server is None:
                entry.known_to_live = False
            else:
                entry = entry.server.folder
        for each in unknown:
            each.known_to_live = entry.known_to_live
        return entry.known_to_live

    def goal(self) -> Place | None:
        """Return its place in the server's tree, if a path leads there."""
        return self.server if self.lives() else None


class Place:
    """A name in a folder, and who stands there in the client's tree and in the server's.

    `by_others` and `by_client` say whose changes name it.
    """

    __slots__ = ("by_client", "by_others", "client", "folder", "name", "server")

    def __init__(self, folder: Entry, name: str) -> None:
        """Make a place where nobody stands."""
        self.folder = folder
        self.name = name
        self.by_client = self.by_others = False
        self.client: Entry | None = None
        self.server: Entry | None = None


# Which of the two trees is meant, by its place of an entry.
Tree = Callable[[Entry], Place | None]
CLIENT: Tree = attrgetter("client")
SERVER: Tree = attrgetter("server")


def upwards(entry: Entry, tree: Tree) -> Iterator[Entry]:
    """Yield `entry`, its folder, that one's folder and so on; the root is the last of a tree."""
    yield entry
    while (place := tree(entry)) is not None:
        entry = place.folder
        yield entry


def is_below(entry: Entry, above: Entry, tree: Tree) -> bool:
    """Tell whether `entry` is `above` or lies anywhere below it."""
    return any(each is above for each in upwards(entry, tree))


class Paths:
    """The paths of places in the client's tree, remembered until a folder moves."""

    def __init__(self, root: Entry) -> None:
        """Begin with the path of `root`, which is empty."""
        self._root = root
        self._of_folder = {root: ""}

    def of(self, place: Place) -> str:
        """Write the path of `place`, whose folder the client has."""
        path = self._of_folder.get(place.folder)
        if path is None:
            path = self._find(place.folder)
        return f"{path}/{place.name}"

    def forget_below(self, entry: Entry) -> None:
        """Say that `entry` is not any more where it was."""
        if entry.inside:
            self._of_folder = {self._root: ""}

    def _find(self, folder: Entry) -> str:
        below = []
        while folder not in self._of_folder and folder.client is not None:
            below.append((folder, folder.client.name))
            folder = folder.client.folder
        path = self._of_folder[folder]
        for each, name in reversed(below):
            path = self._of_folder[each] = f"{path}/{name}"
        return path

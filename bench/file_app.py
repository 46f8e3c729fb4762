"""An app with files and folders, and the rows that it writes of what happens to them.

A step costs the same in a tree of 100,000 files as in one of ten, which is why a history of 300,000
rows can be had in seconds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from events_app.event import Change


class Place(NamedTuple):
    """Where an entry is: in a folder (its id, none for the root) under a name."""

    folder_id: str
    name: str


class Entry:
    """A file or folder. Its path is made when a row needs it, so a move costs nothing."""

    __slots__ = ("children", "file_id", "name", "parent")

    def __init__(self, file_id: str, parent: Entry | None, name: str) -> None:
        """Name what it is and where; the root is the one that is in nothing."""
        self.file_id = file_id
        self.parent = parent
        self.name = name
        self.children: dict[str, Entry] = {}

    def path(self) -> str:
        """Return its path; the root's is empty."""
        return "" if self.parent is None else f"{self.parent.path()}/{self.name}"

    def all(self) -> Iterator[Entry]:
        """Give it and everything below it."""
        yield self
        for child in self.children.values():
            yield from child.all()


class App:
    """A tree, and the rows that were written of it: a `delete` for everything that is replaced.

    `before` tells what there was when the history began, `gone` the ids of all that was deleted.
    Rows that are written while `own` is set are the watcher's own.
    """

    def __init__(self, seed: int) -> None:
        """Begin with an empty tree; `seed` is what chance is drawn from."""
        self.rng = random.Random(seed)
        self.root = Entry("", None, "")
        self.rows: list[Change] = []
        self.before: dict[str, Place] = {}
        self.gone: list[str] = []
        self.own = False
        self._numbers = itertools.count(1)

    def begin(self) -> None:
        """Let the history begin here: forget by which rows the tree came about."""
        self.rows.clear()
        self.before = self.places()

    def places(self) -> dict[str, Place]:
        """Map the id of each entry to where it is."""
        return {
            each.file_id: Place(each.parent.file_id, each.name)
            for each in self.root.all()
            if each.parent
        }

    def new(self, pattern: str = "report {:06}.odt") -> str:
        """Make a name or an id that there was not before."""
        return pattern.format(next(self._numbers))

    def create(self, parent: Entry, name: str, file_id: str = "") -> Entry:
        """Put a new entry there, or the one of `file_id` that is restored."""
        self._make_room(parent, name)
        entry = Entry(file_id or self.new("f{:08}"), parent, name)
        self._arrive(entry, parent, name)
        self._write("create", entry, entry.path())
        return entry

    def modify(self, entry: Entry) -> None:
        """Give it another content."""
        self._write("modify", entry, entry.path())

    def delete(self, entry: Entry) -> None:
        """Delete it and all below it, in one row."""
        self._write("delete", entry, entry.path())
        self.gone += [each.file_id for each in entry.all()]
        self._leave(entry)

    def rename(self, entry: Entry, parent: Entry, name: str) -> None:
        """Move it to another place, which is neither below it nor that of a folder it is in."""
        self._make_room(parent, name)
        before = entry.path()
        self._leave(entry)
        self._arrive(entry, parent, name)
        self._write("rename", entry, before, entry.path())

    def rotate(self, entries: Sequence[Entry]) -> None:
        """Give each the place of the next, by way of a name that is free; two of them swap."""
        places = [(each.parent or self.root, each.name) for each in entries]
        self.rename(entries[-1], places[-1][0], self.new())
        for entry, place in zip(entries[-2::-1], places[:0:-1], strict=True):
            self.rename(entry, *place)
        self.rename(entries[-1], *places[0])

    def save(self, entry: Entry) -> Entry:
        """Replace it by a new file, written beside it first."""
        parent, name = entry.parent or self.root, entry.name
        written = self.create(parent, f"{name}.tmp")
        self.rename(written, parent, name)
        return written

    def _make_room(self, parent: Entry, name: str) -> None:
        if there := parent.children.get(name):
            self.delete(there)

    def _arrive(self, entry: Entry, parent: Entry, name: str) -> None:
        entry.parent, entry.name = parent, name
        parent.children[name] = entry

    def _leave(self, entry: Entry) -> None:
        if entry.parent is not None:
            del entry.parent.children[entry.name]

    def _write(self, kind: str, entry: Entry, path: str, to_path: str = "") -> None:
        self.rows.append(Change(kind, entry.file_id, path, to_path, self.own))

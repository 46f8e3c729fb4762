"""A client that works by path: an independent model, which knows nothing of folding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

from events_app.event import Change


class Entry(NamedTuple):
    """A file or folder as a client has it.

    `dirty`: its content must be fetched. `content` tells which step of this tree wrote it; what was
    there before the first has 0.
    """

    file_id: str
    dirty: bool = False
    content: int = 0


class Tree:
    """Entries by path.

    A strict tree holds that every step names what is there, and a place whose folder is. One
    that is not strict is a client that may hear things twice: what it does not have it need not
    remove, and what it is told of it looks up at the server later. One that checks ids leaves alone
    what has another id than the one that is to be moved or removed.
    """

    def __init__(
        self,
        files: Iterable[tuple[str, str]] = (),
        *,
        strict: bool = True,
        checks_ids: bool = False,
    ) -> None:
        self.entries = {path: Entry(file_id) for path, file_id in files}
        self.strict = strict
        self.checks_ids = checks_ids
        self.steps = 0

    def __repr__(self) -> str:
        return f"Tree({list(self.ids().items())})"

    def copy(self, *, strict: bool = True, checks_ids: bool = False) -> Tree:
        made = Tree(strict=strict, checks_ids=checks_ids)
        made.entries = dict(self.entries)
        made.steps = self.steps
        return made

    def apply(self, changes: Iterable[Change]) -> Self:
        """Do what `changes` say, in order."""
        for change in changes:
            self.steps += 1
            if self.strict:
                self._check(change)
            if change.type == "create":
                self._remove(change.from_path)
                self._write(change)
            elif change.type == "modify":
                self._write(change)
            elif change.type == "delete":
                self._take(change)
            else:
                self._rename(change)
        return self

    def _check(self, change: Change) -> None:
        there = self.entries.get(change.from_path)
        assert change.type == "create" or (there and there.file_id == change.file_id), change
        if change.type in {"create", "rename"}:
            folder = (change.to_path or change.from_path).rpartition("/")[0]
            assert not folder or folder in self.entries, change
            assert not f"{change.to_path}/".startswith(f"{change.from_path}/"), change

    def _write(self, change: Change) -> None:
        entry = Entry(change.file_id, dirty=True, content=self.steps)
        self.entries[change.from_path] = entry

    def _rename(self, change: Change) -> None:
        moved = self._take(change)
        self._remove(change.to_path)
        if not moved:
            self.entries[change.to_path] = Entry(change.file_id, dirty=True, content=self.steps)
        for path, entry in moved.items():
            self.entries[change.to_path + path[len(change.from_path) :]] = entry

    def _take(self, change: Change) -> dict[str, Entry]:
        """Remove what `change` is about."""
        there = self.entries.get(change.from_path)
        if self.checks_ids and there is not None and there.file_id != change.file_id:
            return {}
        return self._remove(change.from_path)

    def _remove(self, path: str) -> dict[str, Entry]:
        found = self.at_or_below(path)
        for each in found:
            del self.entries[each]
        return found

    def at_or_below(self, path: str) -> dict[str, Entry]:
        below = path + "/"
        return {
            each: entry
            for each, entry in self.entries.items()
            if each == path or each.startswith(below)
        }

    def look_up_dirty(self, server: Tree) -> Self:
        """Fetch every dirty path: a folder with all that is in it, what is gone is removed."""
        for path in sorted(self.dirty()):
            if path in self.entries:
                self._remove(path)
                self.entries |= server.at_or_below(path)
        self.settle()
        return self

    def settle(self) -> Self:
        """Take every content as fetched."""
        self.entries = {path: each._replace(dirty=False) for path, each in self.entries.items()}
        return self

    def fetch(self, path: str) -> None:
        """Take the content of one entry as fetched."""
        self.entries[path] = self.entries[path]._replace(dirty=False)

    def ids(self) -> dict[str, str]:
        """Map each path to its id."""
        return {path: entry.file_id for path, entry in self.entries.items()}

    def paths(self) -> dict[str, str]:
        """Map each id to its path."""
        return {entry.file_id: path for path, entry in self.entries.items()}

    def contents(self) -> dict[str, tuple[str, int]]:
        """Map each path to its id and which content that has."""
        return {path: (entry.file_id, entry.content) for path, entry in self.entries.items()}

    def dirty(self) -> set[str]:
        """List the paths whose content must be fetched."""
        return {path for path, entry in self.entries.items() if entry.dirty}

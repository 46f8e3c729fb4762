"""A client that works by path: an independent model, which knows nothing of folding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from events_app.event import Change


class Entry(NamedTuple):
    """A file or folder as a client has it; dirty: its content must be fetched."""

    file_id: str
    dirty: bool = False


class Tree:
    """Entries by path.

    A strict tree holds that every step names a path that is there. One that is not strict is a
    client that may hear things twice: what it does not have it need not remove, and what it is told
    of it looks up at the server later.
    """

    def __init__(self, files: Iterable[tuple[str, str]] = (), *, strict: bool = True) -> None:
        self.entries = {path: Entry(file_id) for path, file_id in files}
        self.strict = strict

    def copy(self, *, strict: bool = True) -> Tree:
        made = Tree(strict=strict)
        made.entries = dict(self.entries)
        return made

    def apply(self, changes: Iterable[Change]) -> Tree:
        """Do what `changes` say, in order."""
        for change in changes:
            if change.type != "create" and self.strict:
                assert change.from_path in self.entries, change
            if change.type == "create":
                self._remove(change.from_path)
                self.entries[change.from_path] = Entry(change.file_id, dirty=True)
            elif change.type == "modify":
                self.entries[change.from_path] = Entry(change.file_id, dirty=True)
            elif change.type == "delete":
                self._remove(change.from_path)
            else:
                self._rename(change)
        return self

    def _rename(self, change: Change) -> None:
        moved = self._remove(change.from_path)
        self._remove(change.to_path)
        for path, entry in moved.items():
            self.entries[change.to_path + path[len(change.from_path) :]] = entry

    def _remove(self, path: str) -> dict[str, Entry]:
        found = self.at_or_below(path)
        for each in found:
            del self.entries[each]
        return found

    def at_or_below(self, path: str) -> dict[str, Entry]:
        return {
            each: entry
            for each, entry in self.entries.items()
            if each == path or each.startswith(path + "/")
        }

    def look_up_dirty(self, server: Tree) -> Tree:
        """Fetch every dirty path: a folder with all that is in it, what is gone is removed."""
        for path in sorted(self.dirty()):
            if path in self.entries:
                self._remove(path)
                self.entries |= server.at_or_below(path)
        self.entries = {path: Entry(entry.file_id) for path, entry in self.entries.items()}
        return self

    def ids(self) -> dict[str, str]:
        """Map each path to its id."""
        return {path: entry.file_id for path, entry in self.entries.items()}

    def dirty(self) -> set[str]:
        """List the paths whose content must be fetched."""
        return {path for path, entry in self.entries.items() if entry.dirty}

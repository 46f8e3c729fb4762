"""Fold a run of changes into a shorter one that leaves the client in the same state.

Theory of operation
    A run is what one stream has read and not sent, in the order of the journal. Only neighbours
    are merged: a `modify` after a `create` or `modify` of the same entry, and a `create` and
    `delete` of the same entry. *Neighbours* are two changes between which nothing was kept that
    could move, hide or replace an entry: renames, deletes and creates pass through and end every
    neighbourhood, and so does what the watcher did itself; a modify of another entry does not.
    The watcher's own changes are not told, but what was kept before them is told in the tree as it
    is after them: at its new path below an own rename, and not at all below an own delete.

Rules
    When in doubt, send more. A merge is done only if it leaves the same tree, whatever else is in
    it. In what may be a second delivery the client may already have what the run begins with, so
    renames go as `delete` and `create`, and a `delete` is never dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from events_app import uri
from events_app.event import Change


def due_at(first: float, last: float, quiet: float, longest: float) -> float:
    """Tell when a run is sent: after `quiet` seconds without a change, `longest` at most.

    `first` and `last` are the times of its oldest and newest change, on any clock in seconds.
    """
    return min(last + quiet, first + longest)


def fold(
    run: Iterable[Change], *, repeated: bool = False, then: Iterable[Change] = ()
) -> list[Change]:
    """Fold `run` and what comes `then`.

    `repeated` says that the client may already have a part of `run`; it has nothing of `then`.
    The watcher's own changes are not in the result.
    """
    folded = _Folded()
    for change in run:
        folded.add(change, repeated=repeated)
    if repeated:
        folded.end_neighbourhood()
    for change in then:
        folded.add(change, repeated=False)
    return folded.kept


class _Entry(NamedTuple):
    file_id: str
    path: str


class _Folded:
    """The list so far, and which entries are dirty in the present neighbourhood."""

    def __init__(self) -> None:
        self.kept: list[Change] = []
        self._dirty: set[_Entry] = set()

    def add(self, change: Change, *, repeated: bool) -> None:
        entry = _Entry(change.file_id, change.from_path)
        if change.own:
            self.kept = [seen for each in self.kept if (seen := _after_own(each, change))]
            self.end_neighbourhood()
        elif change.type == "modify":
            self._modify(change, entry)
        elif change.type == "rename" and repeated:
            self._keep(Change("delete", change.file_id, change.from_path))
            self._keep(Change("create", change.file_id, change.to_path))
        elif change.type == "delete" and not repeated and self._undoes_last(entry):
            self.kept.pop()
            self.end_neighbourhood()
        else:
            self._keep(change)

    def end_neighbourhood(self) -> None:
        self._dirty.clear()

    def _modify(self, change: Change, entry: _Entry) -> None:
        if entry not in self._dirty:
            self.kept.append(change)
            self._dirty.add(entry)

    def _keep(self, change: Change) -> None:
        self.kept.append(change)
        self._dirty = (
            {_Entry(change.file_id, change.from_path)} if change.type == "create" else set()
        )

    def _undoes_last(self, entry: _Entry) -> bool:
        if entry not in self._dirty:
            return False
        last = self.kept[-1]
        return last.type == "create" and entry == (last.file_id, last.from_path)


def _after_own(change: Change, own: Change) -> Change | None:
    """Tell `change` in the tree in which the client has already done what it did itself.

    What it moved is told at its new path, what it deleted not at all.
    """
    if own.type == "rename":
        return change._replace(
            from_path=_moved(change.from_path, own), to_path=_moved(change.to_path, own)
        )
    if own.type != "delete":
        return change
    came_from_there = uri.at_or_below(change.from_path, own.from_path)
    if change.type != "rename":
        return None if came_from_there else change
    went_there = uri.at_or_below(change.to_path, own.from_path)
    if went_there:
        return None if came_from_there else Change("delete", change.file_id, change.from_path)
    return Change("create", change.file_id, change.to_path) if came_from_there else change


def _moved(path: str, own: Change) -> str:
    if not uri.at_or_below(path, own.from_path):
        return path
    return own.to_path + path.removeprefix(own.from_path)

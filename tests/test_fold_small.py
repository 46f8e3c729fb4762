"""Every history of one file, and every short one of two entries, against the table and a tree."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, permutations, product
from typing import NamedTuple

import pytest

from events_app import merge
from events_app.event import Change
from tests.changes import create, delete, modify, rename
from tests.client_tree import Tree

PATHS = ("/a", "/b", "/c")
LONGEST = 6

# -- one file ------------------------------------------------------------------------------------


class Story(NamedTuple):
    """What happened to one file, as the table sees it."""

    before: str
    history: tuple[Change, ...] = ()
    path: str = ""
    dirty: bool = False
    died: bool = False

    def sent(self) -> list[Change]:
        """Say what the table says."""
        if not self.before or not self.path or self.died:
            gone = [delete(self.before)] if self.before else []
            return gone + ([create(self.path)] if self.path else [])
        moved = [rename(self.before, self.path)] if self.before != self.path else []
        return moved + ([modify(self.path)] if self.dirty else [])

    def goes_on(self) -> Iterator[Story]:
        """Tell each thing that can happen next."""
        if not self.path:
            for path in PATHS:
                yield self._then(create(path), path)
            return
        yield self._then(modify(self.path), self.path, dirty=True)
        yield self._then(delete(self.path), "", died=True)
        for path in PATHS:
            if path != self.path:
                yield self._then(rename(self.path, path), path)

    def _then(self, row: Change, path: str, *, dirty: bool = False, died: bool = False) -> Story:
        history = (*self.history, row)
        return Story(self.before, history, path, self.dirty or dirty, self.died or died)


def stories(length: int) -> list[Story]:
    told = [Story(before, path=before) for before in ("", *PATHS)]
    for _ in range(length):
        told = [longer for story in told for longer in story.goes_on()]
    return told


@pytest.mark.parametrize("length", range(LONGEST + 1))
def test_every_history_of_one_file_is_sent_as_the_table_has_it(length: int) -> None:
    told = stories(length)
    assert len(told) >= 4**length, "nothing was tested"
    for story in told:
        assert merge.fold(story.history) == story.sent(), story


ROWS = [
    *(make(path) for path in PATHS for make in (create, modify, delete)),
    *(rename(path, to_path) for path, to_path in product(PATHS, PATHS)),
]


@pytest.mark.parametrize("repeated", [False, True])
def test_no_history_of_one_file_is_too_impossible_to_fold(*, repeated: bool) -> None:
    """One in three begins with /a, and the others are the same with other names."""
    begin = [row for row in ROWS if row.from_path == "/a"]
    for history in chain.from_iterable(product(begin, *[ROWS] * more) for more in range(4)):
        folded = merge.fold(history, repeated=repeated)
        assert {change.file_id for change in folded} <= {"1"}
        assert repeated or len(folded) <= len(history)


# -- two entries ---------------------------------------------------------------------------------


class Room(NamedTuple):
    """Where two entries may be; the first one may be a folder that the second one is in."""

    places: dict[str, tuple[str, ...]]
    length: int


ROOMS = {
    "two files": Room({"1": PATHS, "2": PATHS}, 4),
    "a folder and a file": Room({"1": ("/d", "/e"), "2": ("/d/f", "/e/f", "/f", "/e")}, 4),
    "two folders": Room({"1": ("/d", "/e", "/e/d"), "2": ("/e", "/d", "/d/e")}, 4),
}


def beginnings(room: Room) -> Iterator[Tree]:
    """Make every tree of the two, each with something in it that no row names."""
    for one, other in product(("", *room.places["1"]), ("", *room.places["2"])):
        for order in permutations([("1", one), ("2", other)]):
            tree = Tree()
            for file_id, path in order:
                if path and _free(tree, path):
                    tree.apply([create(path, file_id), create(f"{path}/u", f"u{file_id}")])
            made = {file_id for file_id in tree.paths() if len(file_id) == 1}
            if made == {file_id for file_id, path in order if path}:
                yield Tree(tree.ids().items())
                break


def _free(tree: Tree, path: str) -> bool:
    above = path.rpartition("/")[0]
    return path not in tree.entries and (not above or above in tree.entries)


def _next_rows(tree: Tree, room: Room) -> Iterator[Change]:
    where = tree.paths()
    for file_id, places in room.places.items():
        free = [path for path in places if _free(tree, path)]
        here = where.get(file_id)
        if here is None:
            yield from (create(path, file_id) for path in free)
            continue
        yield modify(here, file_id)
        yield delete(here, file_id)
        yield from (rename(here, path, file_id) for path in free if not path.startswith(f"{here}/"))


def _histories(tree: Tree, room: Room, length: int) -> Iterator[tuple[list[Change], Tree]]:
    """List every history up to that length, with the tree that it leads to."""
    yield [], tree
    if length:
        for row in _next_rows(tree, room):
            for rows, after in _histories(tree.copy().apply([row]), room, length - 1):
                yield [row, *rows], after


@pytest.mark.parametrize("name", ROOMS)
def test_every_short_history_of_two_entries_keeps_the_laws(name: str) -> None:
    room = ROOMS[name]
    count = 0
    for before in beginnings(room):
        for history, after in _histories(before, room, room.length):
            folded = merge.fold(history)
            found = before.copy().apply(folded)
            assert found.ids() == after.ids(), (before, history)
            assert after.dirty() <= found.dirty(), (before, history)
            assert len(folded) <= len(history), (before, history)
            assert merge.fold(folded) == folded, (before, history)
            count += 1
    assert count > 1_000, "nothing was tested"

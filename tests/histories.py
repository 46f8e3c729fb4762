"""Random histories that are valid and told: every replaced entry got its `delete` first."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from events_app.event import Change
from tests.client_tree import Tree

NAMES = "abc"
DEEPEST = 3
LONGEST_STEPS = 20


class History(NamedTuple):
    """A tree and what happened in it."""

    before: Tree
    changes: list[Change]


class _Server:
    """The app's side: a tree with folders and a bin, and the rows it writes."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.folders: set[str] = set()
        self.bin: list[str] = []
        self.rows: list[Change] = []
        self._ids = 0

    def new_id(self, *, folder: bool) -> str:
        self._ids += 1
        file_id = f"{'d' if folder else 'f'}{self._ids}"
        if folder:
            self.folders.add(file_id)
        return file_id

    def paths(self) -> list[str]:
        return sorted(self.tree.entries)

    def places(self, outside: str | None = None) -> list[str]:
        """List every path at which an entry may be put, none of them below `outside`."""
        folders = [path for path in self.paths() if self.is_folder(path)]
        roots = ["", *(path for path in folders if path.count("/") < DEEPEST)]
        return [
            f"{root}/{name}"
            for root in roots
            if outside is None or not f"{root}/".startswith(f"{outside}/")
            for name in NAMES
        ]

    def is_folder(self, path: str) -> bool:
        return self.tree.entries[path].file_id in self.folders

    def write(self, kind: str, path: str, to_path: str = "") -> None:
        self.put(Change(kind, self.tree.entries[path].file_id, path, to_path))

    def put(self, row: Change) -> None:
        self.rows.append(row)
        self.tree.apply([row])

    def make_free(self, path: str) -> None:
        if path in self.tree.entries:
            self.delete(path)

    def delete(self, path: str) -> None:
        gone = [entry.file_id for entry in self.tree.at_or_below(path).values()]
        self.bin += [file_id for file_id in gone if file_id not in self.folders]
        self.write("delete", path)

    def create(self, path: str, file_id: str) -> None:
        self.make_free(path)
        self.put(Change("create", file_id, path))

    def rename(self, path: str, to_path: str) -> None:
        # What must make room may be the folder that the entry is in: then there is nothing to do.
        if path == to_path or f"{path}/".startswith(f"{to_path}/"):
            return
        self.make_free(to_path)
        self.write("rename", path, to_path)

    def swap(self, one: str, other: str) -> None:
        if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
            return
        self.create("/t", self.new_id(folder=False))
        self.write("delete", "/t")
        self.write("rename", one, "/t")
        self.write("rename", other, one)
        self.write("rename", "/t", other)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draw a tree of files and folders, and some rows of what happened in it."""
    server = _Server()
    for _ in range(draw(st.integers(0, 6))):
        _create(draw, server)
    before = Tree(server.tree.ids().items())
    server.rows = []
    server.tree = before.copy()
    for _ in range(draw(st.integers(1, LONGEST_STEPS))):
        draw(st.sampled_from(_STEPS))(draw, server)
    return History(before, server.rows)


def _create(draw: st.DrawFn, server: _Server) -> None:
    place = draw(st.sampled_from(server.places()))
    server.create(place, server.new_id(folder=draw(st.booleans())))


def _restore(draw: st.DrawFn, server: _Server) -> None:
    if server.bin:
        file_id = draw(st.sampled_from(server.bin))
        server.bin.remove(file_id)
        server.create(draw(st.sampled_from(server.places())), file_id)


def _modify(draw: st.DrawFn, server: _Server) -> None:
    files = [path for path in server.paths() if not server.is_folder(path)]
    if files:
        server.write("modify", draw(st.sampled_from(files)))


def _delete(draw: st.DrawFn, server: _Server) -> None:
    if server.paths():
        server.delete(draw(st.sampled_from(server.paths())))


def _rename(draw: st.DrawFn, server: _Server) -> None:
    if server.paths():
        path = draw(st.sampled_from(server.paths()))
        server.rename(path, draw(st.sampled_from(server.places(outside=path))))


def _swap(draw: st.DrawFn, server: _Server) -> None:
    if server.paths():
        pick = st.sampled_from(server.paths())
        server.swap(draw(pick), draw(pick))


# Modifies and short-lived files are what a fold is for: they come twice as often.
_STEPS = [_create, _restore, _modify, _modify, _delete, _delete, _rename, _swap]

"""The app's side of a history: files, folders and a bin, and the rows it writes of each step."""

from __future__ import annotations

from typing import NamedTuple

from events_app.event import Change
from tests.client_tree import Tree

# Two of them begin alike, so that a path which is no whole segment is seen.
NAMES = ("a", "ab", "b")
DEEPEST = 3
ROOT = ""
WITNESS = "u"


class Place(NamedTuple):
    """Where an entry may be: in a folder (its id, or the root) under a name."""

    folder: str
    name: str


class App:
    """A tree, and the rows that were written.

    With `told`, what has to make room gets its `delete` first, as the docs ask of apps. While `own`
    is set it is the watcher itself that acts; it does so only where its own tree, which has not
    heard of anything since `hear`, has the same entry at the same path, and the same room for it.
    What others deleted and restored since then is not the same. Each step returns whether it was
    done.
    """

    def __init__(self) -> None:
        self.tree = Tree()
        self.watcher = Tree()
        self.own = False
        self.told = True
        self.rows: list[Change] = []
        self.heard: list[int] = []
        self.bin: list[str] = []
        self._folders: set[str] = set()
        self._restored: set[str] = set()
        self._homes: dict[str, Place] = {}
        self._ids = 0

    # -- what there is ---------------------------------------------------------------------------

    def entries(self) -> list[str]:
        """List the ids of all that rows may name, by path."""
        paths = self.tree.entries
        return [paths[path].file_id for path in sorted(paths) if not path.endswith(f"/{WITNESS}")]

    def files(self) -> list[str]:
        return [file_id for file_id in self.entries() if file_id not in self._folders]

    def folders(self) -> list[str]:
        return [file_id for file_id in self.entries() if file_id in self._folders]

    def inside(self, folder: str) -> list[str]:
        """List the ids of what is directly in `folder`."""
        return [file_id for file_id in self.entries() if self.place(file_id).folder == folder]

    def places(self) -> list[Place]:
        """List every place at which an entry may be put."""
        roots = [each for each in self.folders() if (self._path(each) or "").count("/") < DEEPEST]
        return [Place(folder, name) for folder in [ROOT, *roots] for name in NAMES]

    def place(self, file_id: str) -> Place:
        """Tell where an entry is, or was when it was deleted; of one that never was, anything."""
        path = self._path(file_id)
        if path is None:
            return self._homes.get(file_id, Place(ROOT, NAMES[0]))
        above, _, name = path.rpartition("/")
        return Place(self.tree.entries[above].file_id if above else ROOT, name)

    def _path(self, file_id: str) -> str | None:
        """Return the path of an entry, or none when it is gone."""
        if file_id == ROOT:
            return ""
        paths = (path for path, entry in self.tree.entries.items() if entry.file_id == file_id)
        return next(paths, None)

    # -- what is done ----------------------------------------------------------------------------

    def new(self, place: Place, *, folder: bool = False) -> str:
        """Create a file or folder and return its id, whether it could be done or not."""
        self._ids += 1
        file_id = f"{'d' if folder else 'f'}{self._ids}"
        if folder:
            self._folders.add(file_id)
        self.create(file_id, place)
        return file_id

    def create(self, file_id: str, place: Place) -> bool:
        """Put an entry that is new, or was deleted, at a place."""
        path = self._free(place)
        if path is None or self._path(file_id) is not None:
            return False
        if not self.own:
            self._restored.add(file_id)
        return self._write(Change("create", file_id, path))

    def modify(self, file_id: str) -> bool:
        path = self._path(file_id)
        return path is not None and self._write(Change("modify", file_id, path))

    def delete(self, file_id: str) -> bool:
        """Delete an entry with all that is in it, in one row."""
        path = self._path(file_id)
        if path is None:
            return False
        gone = [entry.file_id for entry in self.tree.at_or_below(path).values()]
        gone = [each for each in gone if not each.startswith(WITNESS)]
        homes = {each: self.place(each) for each in gone}
        if not self._write(Change("delete", file_id, path)):
            return False
        self._homes |= homes
        self.bin += gone
        return True

    def move(self, file_id: str, place: Place) -> bool:
        """Rename an entry, unless that is where it is, in itself, or where a folder of its is."""
        path, folder = self._path(file_id), self._path(place.folder)
        if path is None or folder is None:
            return False
        to_path = f"{folder}/{place.name}"
        if f"{to_path}/".startswith(f"{path}/") or f"{path}/".startswith(f"{to_path}/"):
            return False
        if self._free(place) is None:
            return False
        return self._write(Change("rename", file_id, path, to_path))

    def hear(self) -> None:
        """Let the watcher hear of everything."""
        self.watcher = self.tree.copy()
        self._restored.clear()
        self.heard.append(len(self.rows))

    def begin(self) -> Tree:
        """Return the tree that a history begins with: in each folder is what no row names."""
        for folder in self.folders():
            self.tree.apply([Change("create", f"{WITNESS}{folder}", self._witness(folder))])
        self.tree.apply([Change("create", WITNESS, self._witness(ROOT))])
        self.tree = Tree(self.tree.ids().items())
        self.watcher = self.tree.copy()
        self.rows = []
        self.bin = []
        self._restored.clear()
        return self.tree.copy()

    def _witness(self, folder: str) -> str:
        return f"{self._path(folder)}/{WITNESS}"

    def _free(self, place: Place) -> str | None:
        """Make room at a place and return its path; none when that cannot be."""
        folder = self._path(place.folder)
        if folder is None:
            return None
        path = f"{folder}/{place.name}"
        there = self.tree.entries.get(path)
        if there and self.told and not self.delete(there.file_id):
            return None
        return path

    def _write(self, row: Change) -> bool:
        if self.own:
            if not self._watcher_can(row):
                return False
            row = row._replace(own=True)
            self.watcher.apply([row])
        self.rows.append(row)
        self.tree.apply([row])
        return True

    def _watcher_can(self, row: Change) -> bool:
        if row.type != "create" and not self._same(row.from_path):
            return False
        arrives_at = row.to_path or (row.from_path if row.type == "create" else "")
        if not arrives_at:
            return True
        taken = arrives_at in self.watcher.entries or arrives_at in self.tree.entries
        return not taken and self._same(arrives_at.rpartition("/")[0])

    def _same(self, path: str) -> bool:
        """Tell whether the watcher and the app mean the same entry by `path`."""
        if not path:
            return True
        here, there = self.tree.entries.get(path), self.watcher.entries.get(path)
        if here is None or there is None or here.file_id in self._restored:
            return False
        return here.file_id == there.file_id

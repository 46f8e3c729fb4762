"""A client's own folder, kept like the watched one by nothing but what the client is told.

Theory of operation
    A batch is applied in order by path, when the frame that moves `id` is there: a rename is a
    rename in the mirror, a delete removes. What is created or modified is *owed*: after the batch
    it is copied from the app's tree as that is by then, a folder with all that is in it. That tree
    is ahead of the batch. What is not there any more stays owed, and moves and dies with what is
    told later; and since a name may belong to another entry by then, ids are compared.
    A folder that was copied while changes were still to be told holds entries of the future. Of
    these the stream need not tell everything: what comes and goes within one run is never
    mentioned. Such a folder stays owed, to be copied again when the stream has passed that moment.

Rules
    A step that names a path where its entry is not is a fault, unless the client is allowed to know
    better: in and out of folders with entries of the future, and in a second delivery.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.server.mirror_site import Site, View, contents, remove


@dataclasses.dataclass(frozen=True)
class Owed:
    """An entry that must be copied, by its id, once everything up to `after` has been told."""

    file_id: str
    after: int = 0


class Mirror:
    """The client's own folder, and what it knows of the app's."""

    def __init__(self, site: Site, watched: str, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self.strict_steps = 0
        self.position = -1
        # Up to here it may hear again what it knows.
        self.known_upto = -1
        self.owed: dict[str, Owed] = {}
        self._site = site
        self._watched = watched
        self._ids: dict[int, str] = {}
        folder.mkdir()

    def at(self, path: str) -> Path:
        return self.folder / path.removeprefix("/")

    def id_at(self, path: str) -> str | None:
        entry = self.at(path)
        return self._ids[entry.stat().st_ino] if entry.exists() else None

    def name(self, path: str, file_id: str) -> None:
        """Remember what is at `path`."""
        self._ids[self.at(path).stat().st_ino] = file_id

    # -- told by the stream ----------------------------------------------------------------------

    def list_afresh(self) -> None:
        """Forget everything and copy the watched folder as it is."""
        with self._site.reading() as view:
            root = view.id_at(self._watched)
        for entry in self.folder.iterdir():
            remove(entry)
        self.owed = {"": Owed(root)} if root else {}
        self.settle()

    def expect_repetition(self) -> None:
        """Expect to hear again of anything that has happened by now."""
        with self._site.reading() as view:
            self.known_upto = view.position

    def apply(self, changes: list[dict[str, str]], upto: int) -> None:
        """Do what a batch says; it tells of everything up to the position `upto`."""
        for change in changes:
            self._check(change)
            step = {"create": self.arrive, "modify": self._owe, "delete": self.leave}
            if change["type"] == "rename":
                self.move(change["from"], change["to"], change["file_id"])
            else:
                step[change["type"]](change["from"], change["file_id"])
        self.position = upto
        self.settle()

    def _check(self, change: dict[str, str]) -> None:
        path, file_id = change["from"], change["file_id"]
        if any(not named.startswith("/") or named == "/" for named in (path, change["to"] or path)):
            self.faults.append(f"after {self.position}, {change} names no path below the folder")
        if change["type"] == "create" or self.position < self.known_upto or self._foresees(path):
            return
        self.strict_steps += 1
        owed = self.owed.get(path)
        if (owed.file_id if owed else self.id_at(path)) != file_id and not self._is_to_come(path):
            self.faults.append(f"after {self.position}, {change} names what is not there")

    def _foresees(self, path: str) -> bool:
        return any(owed.after and _is_at_or_below(path, each) for each, owed in self.owed.items())

    def _is_to_come(self, path: str) -> bool:
        return any(_is_at_or_below(path, each) and path != each for each in self.owed)

    def arrive(self, path: str, file_id: str) -> None:
        """Make place for a new entry."""
        if self.id_at(path) != file_id:
            self.clear(path)
        self._owe(path, file_id)

    def _owe(self, path: str, file_id: str) -> None:
        after = self.owed[path].after if path in self.owed else 0
        self.owed[path] = Owed(file_id, after)

    def leave(self, path: str, file_id: str) -> None:
        """Remove an entry, unless another one is there already."""
        if self.id_at(path) == file_id:
            self.clear(path)
        self._forget(path)

    def clear(self, path: str) -> None:
        """Remove whatever is there."""
        remove(self.at(path))
        self._forget(path)

    def _forget(self, path: str) -> None:
        self.owed = {
            each: owed for each, owed in self.owed.items() if not _is_at_or_below(each, path)
        }

    def move(self, path: str, to_path: str, file_id: str) -> None:
        """Move an entry with all that is in it; one that is not there is to be copied."""
        moved = {
            to_path + each.removeprefix(path): owed
            for each, owed in self.owed.items()
            if _is_at_or_below(each, path)
        }
        foreseen = [o.after for each, o in self.owed.items() if _is_at_or_below(path, each)]
        self._forget(path)
        if self.id_at(path) == file_id and self.at(to_path).parent.is_dir():
            self.clear(to_path)
            self.at(path).rename(self.at(to_path))
        else:
            # Moved already, or moved into a folder that is itself still owed.
            self.leave(path, file_id)
            self.arrive(to_path, file_id)
        self.owed |= moved
        if any(foreseen):
            self.owed[to_path] = Owed(file_id, max(foreseen))

    # -- copied from the app ---------------------------------------------------------------------

    def settle(self) -> None:
        """Copy what is owed and is there."""
        if not any(owed.after <= self.position for owed in self.owed.values()):
            return
        with self._site.reading() as view:
            for path in sorted(self.owed):
                owed = self.owed.get(path)
                if owed is not None and owed.after <= self.position:
                    self._settle(path, owed, view)

    def _settle(self, path: str, owed: Owed, view: View) -> None:
        there = view.id_at(self._watched + path)
        if there != owed.file_id or not self.at(path).parent.is_dir():
            if view.position == self.position:
                self._give_up(path, owed)
            return
        self._forget(path)
        self._copy(path, view)
        if view.position > self.position and view.is_folder(self._watched + path):
            self.owed[path] = Owed(owed.file_id, view.position)

    def _give_up(self, path: str, owed: Owed) -> None:
        """Nothing is left to be told, and what was told is not there."""
        del self.owed[path]
        if self.known_upto < 0:
            self.faults.append(f"at {self.position} {owed} is not at {path}")
        elif self.id_at(path) == owed.file_id:
            self.clear(path)

    def _copy(self, path: str, view: View) -> None:
        source = self._watched + path
        here, there = self.at(path), view.site.at(source)
        if there.is_dir():
            if here.is_file():
                here.unlink()
            here.mkdir(exist_ok=True)
            for entry in here.iterdir():
                remove(entry)
            for entry in there.iterdir():
                self._copy(f"{path}/{entry.name}", view)
        else:
            remove(here)
            here.write_text(there.read_text())
        self.name(path, str(view.id_at(source)))

    def differences(self) -> list[str]:
        """List the paths that are not what they are in the app's tree."""
        here, there = contents(self.folder), contents(self._site.at(self._watched))
        return sorted(path for path in here | there if not _same(path, here, there))


def _same(path: str, here: dict[str, str | None], there: dict[str, str | None]) -> bool:
    return path in here and path in there and here[path] == there[path]


def _is_at_or_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")

"""An app's files: a real tree, an id for each entry, and a row for each change to it.

Who looks and who changes take turns by a lock, as they do at any server that answers from one
database: a listing has ids, contents and paths of one moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

USER = "42"

_INSERT = (
    "INSERT INTO file_event_outbox"
    " (user_id, type, file_id, from_path, to_path, is_folder, client_id, actor_id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Overtaken(Exception):
    """The entry is not where it was, or the place is taken: nothing was done."""


class Maker(NamedTuple):
    """Whose request it was: what the rows say in `client_id` and `actor_id`."""

    client_id: str | None = None
    actor_id: str | None = None


class Site:
    """The tree in `folder`, with rows in the SQLite database at `database`."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder = folder
        self.database = database
        self.tree = folder / "tree"
        self.bin = folder / "bin"

    def make(self, folders: Iterable[str]) -> None:
        """Make the tree with these folders; nobody watches yet, so there are no rows."""
        self.bin.mkdir(parents=True)
        self.tree.mkdir()
        with self._turn(fcntl.LOCK_EX) as connection:
            # Unlike a path, the inode of an entry survives every move, also that to the bin.
            columns = "inode INTEGER PRIMARY KEY, file_id TEXT NOT NULL"
            connection.execute(f"CREATE TABLE IF NOT EXISTS app_entry ({columns})")
            for path in ("", *folders):
                self.at(path).mkdir(exist_ok=True)
                name_entry(connection, self.at(path), f"{self.folder.name}{path}")

    def at(self, path: str) -> Path:
        """Return where `path` is; the empty one is the tree itself."""
        return self.tree / path.removeprefix("/")

    @contextlib.contextmanager
    def reading(self) -> Iterator[View]:
        """Look at one moment of the tree."""
        with self._turn(fcntl.LOCK_SH) as connection:
            yield View(self, connection)

    @contextlib.contextmanager
    def changing(self, maker: Maker | None = None) -> Iterator[Changes]:
        """Change the tree and write its rows, in one transaction."""
        with self._turn(fcntl.LOCK_EX) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield Changes(self, connection, maker or Maker())

    @contextlib.contextmanager
    def _turn(self, kind: int) -> Iterator[sqlite3.Connection]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, kind)
            with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as connection:
                yield connection
                connection.commit()


def name_entry(connection: sqlite3.Connection, entry: Path, file_id: str) -> None:
    """Give a new entry its id; one that is gone may have had the same inode."""
    values = (entry.stat().st_ino, file_id)
    connection.execute("INSERT OR REPLACE INTO app_entry VALUES (?, ?)", values)


class View:
    """One moment of the tree. `position` is that of its newest row, once that has one."""

    def __init__(self, site: Site, connection: sqlite3.Connection) -> None:
        self.site = site
        self._ids: dict[int, str] = dict(connection.execute("SELECT inode, file_id FROM app_entry"))
        # All rows come in the order of their ids, from here alone, and none is rolled back.
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'file_event_outbox'"
        found = connection.execute(query).fetchone()
        self.position = int(found[0]) if found else 0

    def id_at(self, path: str) -> str | None:
        """Return the id of what is at `path`; None when nothing is."""
        entry = self.site.at(path)
        return self._ids[entry.stat().st_ino] if entry.exists() else None

    def paths(self) -> list[str]:
        """List every path."""
        return sorted(contents(self.site.tree))

    def is_folder(self, path: str) -> bool:
        return self.site.at(path).is_dir()

    def in_bin(self) -> list[str]:
        """List what can be restored, by id."""
        return sorted(entry.name for entry in self.site.bin.iterdir())


class Changes(View):
    """What is done in one transaction. Raises `Overtaken` where a row would not be true."""

    def __init__(self, site: Site, connection: sqlite3.Connection, maker: Maker) -> None:
        super().__init__(site, connection)
        self._connection = connection
        self._maker = maker

    def create(self, path: str, content: str | None) -> str:
        """Make a file, or a folder where there is no content; return its id."""
        entry = self._free(path)
        if content is None:
            entry.mkdir()
        else:
            entry.write_text(content)
        file_id = self._ids[entry.stat().st_ino] = f"f{self.position + 1}"
        name_entry(self._connection, entry, file_id)
        self._row("create", file_id, path, is_folder=content is None)
        return file_id

    def modify(self, path: str, content: str) -> None:
        entry = self._present(path)
        if entry.is_dir():
            raise Overtaken(path)
        entry.write_text(content)
        self._row("modify", self._id(path), path)

    def rename(self, path: str, to_path: str) -> None:
        entry, target = self._present(path), self._free(to_path)
        if f"{to_path}/".startswith(f"{path}/"):
            raise Overtaken(to_path)
        entry.rename(target)
        self._row("rename", self._id(to_path), path, to_path, is_folder=target.is_dir())

    def rename_over(self, path: str, to_path: str) -> None:
        """Put one file in the place of another, whose `delete` comes first."""
        entry, target = self._present(path), self._present(to_path)
        if entry.is_dir() or target.is_dir():
            raise Overtaken(to_path)
        self._row("delete", self._id(to_path), to_path)
        entry.replace(target)
        self._row("rename", self._id(to_path), path, to_path)

    def delete(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; one row."""
        entry = self._present(path)
        self._row("delete", self._id(path), path, is_folder=entry.is_dir())
        remove(entry)

    def discard(self, path: str) -> None:
        """Delete into the bin."""
        entry = self._present(path)
        self._row("delete", self._id(path), path, is_folder=entry.is_dir())
        entry.rename(self.site.bin / self._id(path))

    def restore(self, file_id: str, path: str) -> None:
        """Take out of the bin what has this id: one row, also for a folder."""
        target = self._free(path)
        entry = self.site.bin / file_id
        if not entry.exists():
            raise Overtaken(file_id)
        entry.rename(target)
        self._row("create", file_id, path, is_folder=target.is_dir())

    def _present(self, path: str) -> Path:
        entry = self.site.at(path)
        if not entry.exists():
            raise Overtaken(path)
        return entry

    def _free(self, path: str) -> Path:
        entry = self.site.at(path)
        if entry.exists() or not entry.parent.is_dir():
            raise Overtaken(path)
        return entry

    def _id(self, path: str) -> str:
        return self._ids[self.site.at(path).stat().st_ino]

    def _row(
        self,
        kind: str,
        file_id: str,
        path: str,
        to_path: str | None = None,
        *,
        is_folder: bool = False,
    ) -> None:
        values = (USER, kind, file_id, path, to_path, int(is_folder), *self._maker)
        self._connection.execute(_INSERT, values)
        self.position += 1


def remove(entry: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where nothing is."""
    if entry.is_dir():
        shutil.rmtree(entry)
    elif entry.exists():
        entry.unlink()


def contents(folder: Path) -> dict[str, str | None]:
    """Map each path below `folder` to its content; to None for a folder."""
    found: dict[str, str | None] = {}
    for parent, folders, files in os.walk(folder):
        relative = parent.removeprefix(str(folder))
        found |= dict.fromkeys(f"{relative}/{name}" for name in folders)
        found |= {f"{relative}/{name}": Path(parent, name).read_text() for name in files}
    return found

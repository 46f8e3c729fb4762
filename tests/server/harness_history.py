"""Backups that are restored under clients, and the watchers and writers who live through it."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import Connection, Table, exc, inspect, make_url

from events_app import event, schema
from tests import rows
from tests.frames import Frame
from tests.server.harness import USERS
from tests.server.harness_client import Client, JournalRow, Told
from tests.serving import Server

FOLDERS = ("/a", "/b")
# Some thirty rows a second, whatever the machine is busy with.
PAUSE_SECONDS = 0.03
TRIES = 10


class Backup:
    """The tables as they are now, to be put back later.

    As a dump does it: dropped, made anew and filled. PostgreSQL does it in one transaction; MariaDB
    shows every step, table after table by their names.
    """

    def __init__(self, url: str) -> None:
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        self._tables: list[Table] = sorted(schema.metadata.tables.values(), key=lambda t: t.name)
        with self._engine.connect() as connection:
            self._rows = {
                table: [dict(row) for row in connection.execute(table.select()).mappings()]
                for table in self._tables
            }

    def restore(self) -> None:
        """Put the tables back; whoever uses them meanwhile waits or fails for a moment.

        On PostgreSQL that may be us: it ends one of two who wait for each other.
        """
        for _ in range(TRIES):
            with contextlib.suppress(exc.OperationalError):
                return self._restore()
        raise TimeoutError("the readers always come first")

    def _restore(self) -> None:
        with self._engine.begin() as connection, self._without_views(connection):
            for table in self._tables:
                self._empty(connection, table)
                if self._rows[table]:
                    connection.execute(table.insert(), self._rows[table])

    @contextlib.contextmanager
    def _without_views(self, connection: Connection) -> Iterator[None]:
        """PostgreSQL drops no table that a view is made of."""
        look = inspect(connection)
        is_strict = connection.dialect.name == "postgresql"
        names = look.get_view_names() if is_strict else []
        views = {name: look.get_view_definition(name) for name in names}
        for name in views:
            connection.exec_driver_sql(f"DROP VIEW {name}")
        yield
        for name, definition in views.items():
            connection.exec_driver_sql(f"CREATE VIEW {name} AS {definition}")

    def _empty(self, connection: Connection, table: Table) -> None:
        table.drop(connection)
        table.create(connection)

    def restore_stopped(self) -> None:
        """Put them back while nobody uses them."""
        self.restore()


class RowsBackup(Backup):
    """The rows of the tables: a worker that froze while it read would hold up a DROP."""

    def _empty(self, connection: Connection, table: Table) -> None:
        connection.execute(table.delete())


class FileBackup:
    """A SQLite file as it is now. While it is in use it is restored as `.restore` does it."""

    def __init__(self, url: str) -> None:
        self._file = Path(str(make_url(url).database))
        self._kept = self._file.with_suffix(".backup")
        self._copy(self._file, self._kept)

    def _copy(self, source: Path, target: Path) -> None:
        """Copy page by page through SQLite, which takes all locks that it takes."""
        with (
            contextlib.closing(sqlite3.connect(source)) as one,
            contextlib.closing(sqlite3.connect(target, timeout=30)) as other,
        ):
            one.backup(other)

    def restore(self) -> None:
        """Put it back under whoever uses it."""
        self._copy(self._kept, self._file)

    def restore_stopped(self) -> None:
        """Copy the file itself."""
        self._remove_logs()
        shutil.copyfile(self._kept, self._file)

    def _remove_logs(self) -> None:
        """Remove what SQLite has written beside the old file: it is none of the new one's."""
        for end in ("-wal", "-shm"):
            Path(f"{self._file}{end}").unlink(missing_ok=True)


class MovedFile(FileBackup):
    """A SQLite file that takes the name of the one in use."""

    def restore(self) -> None:
        """Move a copy to where it is looked for."""
        moved = self._kept.with_suffix(".moved")
        shutil.copyfile(self._kept, moved)
        self._remove_logs()
        moved.replace(self._file)


class Era(NamedTuple):
    """What a watcher was told since one `subscribed`."""

    epoch: int
    start: int
    claims: list[Told]


class Survivor(Client):
    """A watcher that starts afresh when it is told to, and remembers every start."""

    def __init__(self, server: Server, user: str, folder: str = "", **others: Any) -> None:
        super().__init__([server], user, folder, **others)
        self.eras: list[Era] = []
        self.planned_ends = 0

    def _hear(self, frame: Frame) -> None:
        super()._hear(frame)
        self.planned_ends += frame.name == "reconnect-required"

    def _start_at(self, frame: Frame, position: int) -> None:
        if frame.name == "subscribed":
            cursor = event.Cursor.parse(str(frame.id))
            assert cursor is not None
            self.claims = []
            self.eras.append(Era(cursor.epoch, position, self.claims))
            self._farthest = self.start_position = position
        else:
            super()._start_at(frame, position)

    @property
    def epoch(self) -> int:
        """The history that it lives in."""
        return self.eras[-1].epoch if self.eras else 0

    def wrong_in(self, era: Era, journal: list[JournalRow]) -> list[str]:
        """Hold what it was told in an era to the journal of that time."""
        self.claims = era.claims
        return self.wrong_claims(journal)


class Scribe(threading.Thread):
    """An app that commits a change of one user after the other, until it pauses.

    Each pause is the end of a chapter, and no two chapters name the same file.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.chapter = 0
        self._url = url
        self._chance = random.Random(1)  # noqa: S311 -- guards nothing
        self._leave = threading.Event()
        self._may_write = threading.Event()
        self._pen = threading.Lock()

    def run(self) -> None:
        for number in itertools.count():
            self._may_write.wait()
            if self._leave.is_set():
                return
            with self._pen:
                if self._may_write.is_set():
                    self._write(number)
            self._leave.wait(PAUSE_SECONDS)

    def _write(self, number: int) -> None:
        # By chance: so a position that is given out again often belongs to another user and folder,
        # however many rows lie between.
        path = f"{self._chance.choice(FOLDERS)}/{self.chapter}-{number}"
        rows.commit(self._url, path, user_id=self._chance.choice(USERS))

    def pause(self) -> None:
        """Return when nothing is being written any more."""
        self._may_write.clear()
        with self._pen:
            self.chapter += 1

    def go_on(self) -> None:
        """Write, for the first time or again."""
        self._may_write.set()

    def stop(self) -> None:
        """Write no more."""
        self._leave.set()
        self.go_on()
        self.join(20)

"""An app at work on one tree: random valid steps, and what the tree was after each of its rows.

Rows are committed one transaction after the other, so the row of number n gets position n: what a
client was told can be held to the tree of that very moment.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence

import sqlalchemy

from events_app import outbox
from events_app.event import Change
from tests.app_steps import STEPS, Choice
from tests.file_app import NAMES, ROOT, WITNESS, App, Place

USER = "42"
GONE = "gone"
LARGEST_CHOICE = 10**9
# What there is before anybody watches.
FIRST_STEPS = 60
# Most steps take something away: below so many entries half of them add something instead.
FEW_ENTRIES = 30

# Each path with its id, and with the number of the row that wrote its content.
View = dict[str, tuple[str, int]]


class KeepingApp(App):
    """Does what any app does, but not to folders that are kept, nor to what is in somebody's home.

    A home is changed by the one who lives there alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, str] = {}
        self.homes: list[str] = []

    def keep(self, name: str, folder: str = ROOT) -> str:
        """Make a folder that stays where it is; return its id."""
        file_id = self.new(Place(folder, name), folder=True)
        self.kept[file_id] = f"{self.kept.get(folder, '')}/{name}"
        return file_id

    def entries(self) -> list[str]:
        """List the ids of all that a step may name."""
        return [
            entry.file_id
            for path, entry in sorted(self.tree.entries.items())
            if not path.endswith(f"/{WITNESS}") and self._is_anybodys(path, entry.file_id)
        ]

    def _is_anybodys(self, path: str, file_id: str) -> bool:
        return file_id not in self.kept and not is_at_home(path, self.homes)

    def places(self) -> list[Place]:
        folders = [each for each, path in self.kept.items() if path not in self.homes]
        return super().places() + [Place(folder, name) for folder in folders for name in NAMES]

    def is_free(self, place: Place) -> bool:
        """Say whether nothing is at a place."""
        return f"{self._path(place.folder)}/{place.name}" not in self.tree.entries

    def delete(self, file_id: str) -> bool:
        return file_id not in self.kept and super().delete(file_id)

    def move(self, file_id: str, place: Place) -> bool:
        return file_id not in self.kept and super().move(file_id, place)


def is_at_home(path: str, homes: Sequence[str]) -> bool:
    """Say whether a path is in one of these homes."""
    return any(path.startswith(f"{home}/") for home in homes)


class Truth:
    """The app, its database and its past. Who changes anything holds the `lock`."""

    def __init__(self, url: str, seed: str) -> None:
        self.lock = threading.RLock()
        self.random = random.Random(seed)  # noqa: S311 -- guards nothing
        self._app = KeepingApp()
        timeout = {"timeout": 60} if url.startswith("sqlite") else {}
        self._engine = sqlalchemy.create_engine(url, connect_args=timeout)
        self._makers: list[str | None] = []
        self._home_ids = self._make_folders()
        for _ in range(FIRST_STEPS):
            self._do(self._any_step())
        self._replayed = self._app.begin()
        self.versions: list[View] = [self._replayed.contents()]

    def _make_folders(self) -> dict[str, str]:
        for name in ("docs", GONE):
            self._app.keep(name)
        shared = self._app.keep("shared")
        homes = {"/home": self._app.keep("home"), "/shared/home": self._app.keep("home", shared)}
        self._app.homes = [*homes]
        return homes

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @property
    def rows(self) -> int:
        """Count the rows, which is the position of the last one."""
        return len(self.versions) - 1

    def view(self, rows: int, watched: str) -> View:
        """Return what was below a folder after so many rows."""
        return {
            path[len(watched) :]: it
            for path, it in self.versions[rows].items()
            if path.startswith(f"{watched}/")
        }

    def near(self, position: int, rows: int) -> list[str]:
        """Write down the rows around a position."""
        numbered = list(enumerate(zip(self._app.rows, self._makers, strict=True), start=1))
        return [str(each) for each in numbered[max(0, position - rows) : position + rows]]

    # -- what is done ----------------------------------------------------------------------------

    def work(self) -> None:
        """Do one step of somebody, in one transaction or in several."""
        with self.lock:
            if self.random.random() < 0.03:
                self._commit(self._replace_gone())
            elif self.random.random() < 0.5:
                self._commit(self._any_step())
            else:
                for _ in self._any_step():
                    self._write()

    def work_as(self, client_id: str, actor_id: str) -> None:
        """Do one step as a client does that has heard of everything; the caller holds the lock."""
        self._commit(self._any_step(), client_id, actor_id)

    def live(self, home: str, client_id: str, actor_id: str) -> None:
        """Change something in a home."""
        with self.lock:
            self._commit(self._housework(home), client_id, actor_id)

    def _any_step(self) -> Iterator[object]:
        if len(self._app.entries()) < FEW_ENTRIES and self.random.random() < 0.5:
            return self._growth()
        choice = Choice(self.random.randrange(LARGEST_CHOICE))
        return self.random.choice(STEPS)(self._app, choice)

    def _growth(self) -> Iterator[object]:
        app = self._app
        free = [each for each in app.places() if app.is_free(each)]
        for place in self.random.sample(free, min(len(free), self.random.randint(1, 3))):
            yield app.is_free(place) and app.new(place, folder=self.random.random() < 0.4)

    def _housework(self, home: str) -> Iterator[object]:
        app, folder = self._app, self._home_ids[home]
        mine = [
            entry.file_id
            for path, entry in app.tree.entries.items()
            if path.startswith(f"{home}/") and not path.endswith(f"/{WITNESS}")
        ]
        place = Place(folder, f"own {self.rows}")
        kind = self.random.random()
        if not mine or kind < 0.4:
            yield app.new(place, folder=kind < 0.1)
        elif kind < 0.7:
            yield app.move(self.random.choice(mine), place)
        elif kind < 0.85:
            yield app.modify(self.random.choice(mine))
        else:
            yield app.delete(self.random.choice(mine))
        app.bin = [each for each in app.bin if each not in mine]

    def _replace_gone(self) -> Iterator[object]:
        """Let a watched folder go, and another one take its place."""
        app = self._app
        (gone,) = (each for each, path in app.kept.items() if path == f"/{GONE}")
        del app.kept[gone]
        if self.random.random() < 0.5:
            yield app.delete(gone)
        else:
            yield app.move(gone, Place(ROOT, self.random.choice(NAMES)))
        app.bin = [each for each in app.bin if each != gone]
        app.keep(GONE)
        yield True

    # -- what is written -------------------------------------------------------------------------

    def _do(self, step: Iterator[object]) -> None:
        for _ in step:
            pass

    def _commit(self, step: Iterator[object], *by: str) -> None:
        self._do(step)
        self._write(*by)

    def _write(self, client_id: str | None = None, actor_id: str | None = None) -> None:
        """Commit the rows that are new, once they can be asked for."""
        rows = self._app.rows[self.rows :]
        for row in rows:
            self._replayed.apply([row])
            self.versions.append(self._replayed.contents())
            self._makers.append(client_id)
        if rows:
            with self._engine.begin() as connection:
                for row in rows:
                    self._insert(connection, row, client_id, actor_id)

    def _insert(
        self,
        connection: sqlalchemy.Connection,
        row: Change,
        client_id: str | None,
        actor_id: str | None,
    ) -> None:
        outbox.append(
            connection,
            USER,
            row.type,
            row.file_id,
            row.from_path,
            row.to_path or None,
            is_folder=int(row.file_id.startswith("d")),
            client_id=client_id,
            actor_id=actor_id,
        )

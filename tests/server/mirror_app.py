"""An app at work: random operations on a real tree, each with its rows. A program of its own.

Run with one argument, a JSON document of `Orders`; prints how often it did what, as JSON.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.server.mirror_site import Maker, Overtaken, Site, View

NAMES = ("a", "b", "c.txt", "ü é.txt", "A", "plan 100%.md")
TEMPORARY = ("t", ".plan.tmp")
DEEPEST = 5
# Now and then the bursts are so far apart that each is a run of its own.
PAUSE_SECONDS = 0.02
QUIET_SHARE = 0.05

# The name of a method of `Changes`, and its arguments.
Step = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Orders:
    """Where to work, with which seed, how many operations, and what to leave alone.

    Entries at `fixed` stay where they are, and nothing below `foreign` is touched. `quiet_seconds`
    is longer than changes take to settle. Rows say any of `client_ids`, by another actor.
    """

    folder: str
    database: str
    seed: int
    operations: int
    fixed: list[str]
    foreign: list[str]
    client_ids: list[str]
    quiet_seconds: float


class Choice:
    """What can be done to a tree at one moment. Raises `IndexError` where there is nothing."""

    def __init__(self, view: View, pick: random.Random, orders: Orders) -> None:
        self.view = view
        self._pick = pick
        mine = [path for path in view.paths() if not _is_below(path, orders.foreign)]
        self._folders = ["", *(path for path in mine if view.is_folder(path))]
        self._files = [path for path in mine if not view.is_folder(path)]
        self._movable = [path for path in mine if path not in orders.fixed]
        self._taken = set(mine)

    def file(self) -> str:
        return self._pick.choice(self._files)

    def entry(self) -> str:
        return self._pick.choice(self._movable)

    def folder(self) -> str:
        """Choose a folder that may be moved."""
        return self._pick.choice([path for path in self._movable if path in self._folders])

    def place(self, outside: str | None = None, names: tuple[str, ...] = NAMES) -> str:
        """Choose a free path; not below `outside`."""
        places = [
            f"{folder}/{name}"
            for folder in self._folders
            if folder.count("/") < DEEPEST and not (outside and _is_below(folder, [outside]))
            for name in names
        ]
        return self._pick.choice([place for place in places if place not in self._taken])

    def beside(self, path: str) -> str:
        """Choose a free temporary name in the same folder."""
        parent = path.rpartition("/")[0]
        places = [f"{parent}/{name}" for name in TEMPORARY]
        return self._pick.choice([place for place in places if place not in self._taken])

    def across(self, fixed: list[str]) -> tuple[str, str]:
        """Choose an entry and a free path on the other side of a watched folder's border."""
        border = self._pick.choice(fixed)
        path = self.entry()
        place = self.place(outside=path)
        if _is_below(path, [border]) == _is_below(place, [border]):
            raise IndexError
        return path, place

    def removed(self) -> str:
        """Choose what is in the bin."""
        return self._pick.choice(self.view.in_bin())


def _is_below(path: str, folders: list[str]) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for folder in folders)


class App:
    """Does one operation after the other."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.done: collections.Counter[str] = collections.Counter()
        self._site = Site(Path(orders.folder), Path(orders.database))
        self._random = random.Random(orders.seed)  # noqa: S311 -- guards nothing
        self._writes = 0

    def run(self) -> None:
        while self.done.total() < self.orders.operations:
            name, plan = self._random.choice(PLANS)
            with contextlib.suppress(IndexError):
                self._do(name, plan)
                time.sleep(self._pause())

    def _pause(self) -> float:
        if self._random.random() < QUIET_SHARE:
            return self.orders.quiet_seconds
        return self._random.uniform(0, 2 * PAUSE_SECONDS)

    def _do(self, name: str, plan: Callable[[App, Choice], list[Step]]) -> None:
        """Do it in one transaction, or each step in its own."""
        with self._site.reading() as view:
            steps = plan(self, Choice(view, self._random, self.orders))
        parts = [steps] if self._random.random() < 0.5 else [[step] for step in steps]
        with contextlib.suppress(Overtaken):
            for part in parts:
                self._commit(part)
            self.done[name] += 1

    def _commit(self, steps: list[Step]) -> None:
        overtaken = None
        with self._site.changing(self._maker()) as changes:
            try:
                for method, *arguments in steps:
                    getattr(changes, method)(*arguments)
            except Overtaken as caught:
                overtaken = caught  # what was done before stays done
        if overtaken is not None:
            raise overtaken

    def _maker(self) -> Maker:
        """Sometimes another user sends a client's id: that hides nothing from it."""
        if self._random.random() < 0.2:
            return Maker(self._random.choice(self.orders.client_ids), "7")
        return Maker()

    def text(self) -> str:
        """Write a content that no file has had."""
        self._writes += 1
        return f"{self.orders.seed}-{self._writes} " * self._random.choice([1, 5, 200])

    # -- what it does: each method plans the steps of one operation ------------------------------

    def create(self, tree: Choice) -> list[Step]:
        return [("create", tree.place(), self.text())]

    def modify(self, tree: Choice) -> list[Step]:
        return [("modify", tree.file(), self.text())]

    def burst(self, tree: Choice) -> list[Step]:
        path = tree.file()
        return [("modify", path, self.text()) for _ in range(self._random.randint(3, 8))]

    def make_folder(self, tree: Choice) -> list[Step]:
        path = tree.place()
        inside = [("create", f"{path}/{name}", self.text()) for name in NAMES[:3]]
        return [("create", path, None), *inside[: self._random.randint(0, 3)]]

    def rename(self, tree: Choice) -> list[Step]:
        path = tree.entry()
        return [("rename", path, tree.place(outside=path))]

    def move_folder(self, tree: Choice) -> list[Step]:
        path = tree.folder()
        return [("rename", path, tree.place(outside=path))]

    def cross_border(self, tree: Choice) -> list[Step]:
        return [("rename", *tree.across(self.orders.fixed))]

    def rename_over(self, tree: Choice) -> list[Step]:
        path, other = tree.file(), tree.file()
        if path == other:
            raise IndexError
        return [("rename_over", path, other)]

    def save_atomically(self, tree: Choice) -> list[Step]:
        path = tree.file()
        temporary = tree.beside(path)
        return [("create", temporary, self.text()), ("rename_over", temporary, path)]

    def save_with_delete(self, tree: Choice) -> list[Step]:
        path = tree.file()
        new = tree.beside(path)
        return [("create", new, self.text()), ("delete", path), ("rename", new, path)]

    def swap(self, tree: Choice) -> list[Step]:
        one, other = tree.entry(), tree.entry()
        if _is_below(one, [other]) or _is_below(other, [one]):
            raise IndexError
        aside = tree.beside(one)
        return [("rename", one, aside), ("rename", other, one), ("rename", aside, other)]

    def reuse_name(self, tree: Choice) -> list[Step]:
        path = tree.file()
        first = tree.beside(path)
        second = tree.place(names=("second",))
        text = self.text()
        return [("rename", path, first), ("create", path, text), ("rename", first, second)]

    def delete(self, tree: Choice) -> list[Step]:
        return [("delete", tree.file())]

    def remove_folder(self, tree: Choice) -> list[Step]:
        return [("delete", tree.folder())]

    def remove_folder_with_rows(self, tree: Choice) -> list[Step]:
        """Delete what is in it first, each with its own row."""
        path = tree.folder()
        inside = [each for each in tree.view.paths() if each.startswith(f"{path}/")]
        return [("delete", each) for each in (*inside[::-1], path)]

    def discard(self, tree: Choice) -> list[Step]:
        return [("discard", tree.entry())]

    def restore(self, tree: Choice) -> list[Step]:
        return [("restore", tree.removed(), tree.place())]

    def discard_and_restore(self, tree: Choice) -> list[Step]:
        path = tree.entry()
        file_id = tree.view.id_at(path)
        return [("discard", path), ("restore", file_id, path)]

    def there_and_back(self, tree: Choice) -> list[Step]:
        path = tree.entry()
        place = tree.place(outside=path)
        return [("rename", path, place), ("rename", place, path)]

    def chain(self, tree: Choice) -> list[Step]:
        path = tree.place()
        place = tree.place(outside=path)
        if path == place:
            raise IndexError
        inside = ("create", f"{path}/inside", self.text())
        return [("create", path, None), inside, ("rename", path, place)]

    def rescue(self, tree: Choice) -> list[Step]:
        folder = tree.folder()
        inside = [each for each in tree.view.paths() if each.startswith(f"{folder}/")]
        place = tree.place(outside=folder)
        return [("rename", self._random.choice(inside), place), ("delete", folder)]

    def bury(self, tree: Choice) -> list[Step]:
        path, folder = tree.file(), tree.folder()
        if _is_below(path, [folder]):
            raise IndexError
        return [("rename", path, f"{folder}/buried"), ("delete", folder)]


# What makes a tree grow comes more often than what empties it.
_OFTEN = (App.create, App.create, App.modify, App.modify, App.make_folder, App.restore)
_ALL = (
    *(App.create, App.modify, App.burst, App.make_folder, App.rename, App.move_folder),
    *(App.cross_border, App.rename_over, App.save_atomically, App.save_with_delete, App.swap),
    *(App.reuse_name, App.delete, App.remove_folder, App.remove_folder_with_rows, App.discard),
    *(App.restore, App.discard_and_restore, App.there_and_back, App.chain, App.rescue, App.bury),
)
PLANS = [(plan.__name__, plan) for plan in (*_OFTEN, *_ALL)]


if __name__ == "__main__":
    app = App(Orders(**json.loads(sys.argv[1])))
    app.run()
    sys.stdout.write(json.dumps(app.done))

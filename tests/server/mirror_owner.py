"""The changes that a client makes itself: to its own folder and to the app's tree."""

from __future__ import annotations

import contextlib
import random

from tests.server.mirror_copy import Mirror
from tests.server.mirror_site import Changes, Maker, Overtaken, Site

# How often an owner that looks does something: seldom enough to be told of everything in between.
OWN_SHARE = 0.35


class Owner:
    """Makes changes with the client's id, of which the client is never told.

    In `home` nobody else changes anything, so there it works at any time. Elsewhere it makes new
    files, and touches what is there only when everything has been told: what was told on the way
    would be told in the tree before.
    """

    def __init__(self, site: Site, mirror: Mirror, client_id: str, home: str, seed: int) -> None:
        self.home = home
        self.done = 0
        self.done_elsewhere = 0
        self._has_stopped = False
        self._site = site
        self._mirror = mirror
        self._maker = Maker(client_id)
        self._random = random.Random(seed)  # noqa: S311 -- guards nothing

    def stop(self) -> None:
        """Do nothing any more, from the next turn on."""
        self._has_stopped = True

    def change(self, elsewhere: list[str]) -> None:
        """Do one thing or nothing; new files also go to the folders `elsewhere`."""
        if self._random.random() > OWN_SHARE:
            return
        with self._site.changing(self._maker) as changes, contextlib.suppress(Overtaken):
            if self._has_stopped:
                return
            mine = [path for path in changes.paths() if path.startswith(f"{self.home}/")]
            if changes.position == self._mirror.position:
                self._alter_elsewhere(changes, mine, elsewhere)
            elif self._random.random() < 0.4 or not mine:
                self._create(changes, self._random.choice([self.home, *elsewhere]))
            else:
                self._alter(changes, self._random.choice(mine))
            self.done += 1

    def _create(self, changes: Changes, folder: str) -> None:
        path = f"{folder}/own {changes.position}"
        content = None if self._random.random() < 0.3 else f"{path}\n"
        file_id = changes.create(path, content)
        here = self._mirror.at(path)
        if content is None:
            here.mkdir()
        else:
            here.write_text(content)
        self._mirror.name(path, file_id)

    def _alter(self, changes: Changes, path: str) -> None:
        target = f"{path.rpartition('/')[0]}/own {changes.position}"
        if self._random.random() < 0.2:
            changes.delete(path)
            self._mirror.clear(path)
        elif changes.is_folder(path) or self._random.random() < 0.5:
            changes.rename(path, target)
            self._mirror.at(path).rename(self._mirror.at(target))
        else:
            changes.modify(path, target)
            self._mirror.at(path).write_text(target)

    def _alter_elsewhere(self, changes: Changes, mine: list[str], fixed: list[str]) -> None:
        others = [path for path in changes.paths() if path not in {*mine, *fixed, self.home}]
        if others and not self._mirror.owed:
            self._alter(changes, self._random.choice(others))
            self.done_elsewhere += 1

"""Watchers of a soak: told when to leave, to stall, to move; what they heard is counted at the end.

A watcher may be told `subscribed` a second time only where its first one need not have arrived.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import random
import threading
import time
import uuid
from typing import Any, NamedTuple

from tests.frames import Frame, Reader
from tests.server.harness_client import JournalRow
from tests.server.harness_traveller import Traveller
from tests.serving import Server

# A `subscribed` that was heard for less than this need not be known as heard when a worker dies.
UNPROVEN_SECONDS = 3.0
# Longer than the keep-alives of a worker that is frozen for a while.
PATIENCE_SECONDS = 8.0
# Real clients wait longer; without any pause a refused connection would be a busy loop of ours.
RETURN_SECONDS = (0.05, 0.5)


class Tellings(NamedTuple):
    """Of so many changes that were a watcher's to hear, it was told of so many."""

    due: int
    told: int


class Walker(Traveller):
    """A watcher that survives whatever a soak does to its connections."""

    def __init__(self, servers: list[Server], user: str, folder: str = "", **others: Any) -> None:
        """Watch `folder` of `user`; the rest is as for `Traveller`."""
        super().__init__(servers, user, folder=folder, patience_seconds=PATIENCE_SECONDS, **others)
        self.afresh = 0
        self.failed = 0
        self._listed_at = 0.0
        self._only_listed = True

    def _connect_once(self) -> None:
        try:
            super()._connect_once()
        except (OSError, EOFError):
            self.failed += 1
        time.sleep(random.uniform(*RETURN_SECONDS))

    def _listen(self, reader: Reader) -> None:
        if reader.status != 200:  # noqa: PLR2004 -- HTTP's own number
            self._fault(f"refused: {reader.head.splitlines()[0]}")
            return
        super()._listen(reader)

    def _start_at(self, frame: Frame, position: int) -> None:
        if frame.name == "resumed":
            self._only_listed = False
        elif self.start_position >= 0 and self._may_be_told_again():
            self.afresh += 1
            self.start_position = position
            self.claims.clear()
            self._farthest = position
            self._listed_at = time.monotonic()
            return
        else:
            self._listed_at = time.monotonic()
        super()._start_at(frame, position)

    def _may_be_told_again(self) -> bool:
        heard_for = time.monotonic() - self._listed_at
        return not self._by_event_id and self._only_listed and heard_for < UNPROVEN_SECONDS

    @property
    def may_stall(self) -> bool:
        """Whether it reads what its kernel has, once it has stalled, before it comes back.

        What the kernel took counts as delivered, so one that throws it away must bring its `id`.
        """
        return self._by_event_id or self.stay_seconds is None

    def tellings(self, journal: list[JournalRow]) -> Tellings:
        """Count, row by row, what it was to hear since it listed its folder, and what it heard."""
        mine = [
            row for row in journal if self.is_told_of(row) and row.position > self.start_position
        ]
        positions = [row.position for row in mine]
        told: set[int] = set()
        heard: set[str] = set()
        connection = 0
        for claim in self.claims:
            if claim.connection != connection:
                connection, heard = claim.connection, set()
            heard.update(claim.file_ids)
            first, last = (bisect.bisect_right(positions, p) for p in (claim.before, claim.after))
            told.update(row.position for row in mine[first:last] if row.file_id in heard)
            if last > first:
                heard = set()
        return Tellings(len(mine), len(told))


class Nomad:
    """One client id that watches one folder at a time, and moves between them."""

    def __init__(self, servers: list[Server], user: str, folders: list[str]) -> None:
        """Watch `folders` of `user`, all of them until it is told to move."""
        client_id = str(uuid.uuid4())
        self.walkers = [
            Walker(servers, user, folder, client_id=client_id, by_event_id=False)
            for folder in folders
        ]
        self._next = itertools.cycle(self.walkers)

    def move(self) -> None:
        """Leave the folder and watch the next one."""
        for walker in self.walkers:
            walker.leave()
        next(self._next).come_back()


class Storm(threading.Thread):
    """Connects as fast as it can for some seconds, mostly as clients that nobody knows."""

    def __init__(self, server: Server, seconds: float) -> None:
        """Storm `server` for `seconds`."""
        super().__init__(daemon=True)
        self.connects = 0
        self._server = server
        self._seconds = seconds

    def run(self) -> None:
        """Blow."""
        deadline = time.monotonic() + self._seconds
        known = str(uuid.uuid4())
        while time.monotonic() < deadline:
            client_id = str(uuid.uuid4()) if self.connects % 3 else known
            # What becomes of it is the server's affair: here only the others' streams count.
            with (
                contextlib.suppress(OSError, EOFError, AssertionError),
                Reader(self._server, "storm", client_id) as reader,
            ):
                reader.expect("subscribed", "resumed", seconds=2.0)
            self.connects += 1

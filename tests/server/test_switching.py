"""Clients that go between streams and pages at random, under writes, have the right tree.

What a client is, says `switching_client`; what the app does, `switching_app`. The seed is told with
what fails. To look for longer, at other seeds each time, or at one of them again:

    SWITCHING_MINUTES=15 make test ARGS="-n 0 tests/server/test_switching.py"
    SWITCHING_SEED=7 make test ARGS="-k switching"

The threads and the servers run as they like, so one seed may pass and fail.
"""

from __future__ import annotations

import collections
import contextlib
import os
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import insert, select

from events_app.schema import grant, state
from tests import databases
from tests.conftest import need
from tests.server import harness_stories
from tests.server.harness_stories import Stories
from tests.server.switching_app import GONE, USER, Truth
from tests.server.switching_client import CONFIRM_SECONDS, Client, Habits
from tests.serving import Server

SETTINGS = {
    "EVENTS_DEBOUNCE": "0.15",
    "EVENTS_DEBOUNCE_MAX": "0.6",
    "EVENTS_KEEP_ALIVE": "0.4",
    "EVENTS_CONFIRM_SECONDS": str(CONFIRM_SECONDS),
}
# Alembic keeps what it is at in one place for all threads.
_MIGRATING = threading.Lock()
GUEST, SHARE = "43", "s1"
LEAST_ROWS = 100
# A run ends when each client has done everything, which takes some 20 seconds on a quiet machine.
BUSY_SECONDS = 300.0
CATCH_UP_SECONDS = 60.0
PAUSE_SECONDS = 0.06
# Now and then all may hear of everything; who acts has some looks more to do so.
QUIET_SECONDS, QUIET_SHARE = 2.0, 0.08
ACT_SECONDS = 0.3

EVERYBODY = {
    *("streams by cursor", "asks for a page", "waits for a page", "lists", "dies"),
    *("goes in order", "breaks off", "breaks off within a frame"),
}
REMEMBERED = {"streams by client id", "hears again"}
ACTING = {"changes anything", "changes its home"}


def _habits() -> list[Habits]:
    """Watch everything, a folder, a share and a folder that goes now and then."""
    ids = [str(uuid.uuid4()) for _ in range(4)]
    docs, gone = "cloudreve://my/docs", f"cloudreve://my/{GONE}"
    return [
        Habits("whole", USER, "cloudreve://my", "", ids[0], home="/home"),
        Habits("docs", USER, docs, "/docs", ids[1], payload="object"),
        Habits("nameless", USER, docs, "/docs"),
        Habits(
            "guest", GUEST, f"cloudreve://{SHARE}@share", "/shared", ids[2], home="/shared/home"
        ),
        Habits("gone", USER, gone, f"/{GONE}", ids[3], may_lose_folder=True),
    ]


def _must_do(habits: Habits) -> set[str]:
    found = set(EVERYBODY)
    found |= REMEMBERED if habits.client_id else set()
    return found | (ACTING if habits.home else set())


def _has_done_enough(client: Client) -> bool:
    return all(client.did[what] for what in _must_do(client.habits))


class Round:
    """Everything of one seed on one database."""

    def __init__(self, engine: str, folder: Path, seed: str) -> None:
        self.engine = engine
        self.seed = seed
        self._folder = folder
        self.did: collections.Counter[str] = collections.Counter()
        self.rows = 0

    def run(self) -> Round:
        """Let it happen; everything that is wrong is told with the seed."""
        with contextlib.ExitStack() as stack:
            with _MIGRATING:
                url = stack.enter_context(databases.migrated(self.engine, self._folder))
            self._run_at(url)
        return self

    def _run_at(self, url: str) -> None:
        database = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        values = {"share_id": SHARE, "user_id": GUEST, "owner_id": USER, "path": "/shared"}
        with database.begin() as connection:
            connection.execute(insert(grant).values({**values, "is_folder": 1}))
        log = self._folder / f"{self.engine}-{self.seed}.log"
        truth = Truth(url, self.seed)
        with contextlib.closing(truth), Server(url, log, SETTINGS).running() as server:
            self._run(server, truth)
            with database.connect() as connection:
                assert connection.scalar(select(state.c.last_position)) == truth.rows
        assert "Traceback" not in log.read_text()

    def _run(self, server: Server, truth: Truth) -> None:
        self._truth = truth
        clients = [Client(server, truth, each, self.seed) for each in _habits()]
        for client in clients:
            client.start()
        try:
            self._write(truth, clients)
            with truth.lock:  # so that none of them acts when another one may have ended
                for client in clients:
                    client.finish()
            self._wait(clients)
        finally:
            for client in clients:
                client.leave()
            for client in clients:
                client.join(CATCH_UP_SECONDS)
        self.rows = truth.rows
        for client in clients:
            self.did += client.did
            whole = truth.view(truth.rows, client.habits.watched)
            self._hold(client, client.copy.entries == whole, "its copy is not the tree")

    def _write(self, truth: Truth, clients: list[Client]) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        while truth.rows < LEAST_ROWS or not all(map(_has_done_enough, clients)):
            if any(client.faults for client in clients):
                return
            lacking = [(client.name, client.did) for client in clients]
            assert time.monotonic() < deadline, f"seed {self.seed}: too little done: {lacking}"
            truth.work()
            if truth.random.random() < QUIET_SHARE:
                _rest(truth, clients)
            time.sleep(truth.random.uniform(0, 2 * PAUSE_SECONDS))

    def _wait(self, clients: list[Client]) -> None:
        deadline = time.monotonic() + CATCH_UP_SECONDS
        for client in clients:
            client.join(max(0.0, deadline - time.monotonic()))
            self._hold(client, not client.is_alive(), "was not told of everything")
        for client in clients:
            self._hold(client, not client.faults, "\n".join(client.faults))

    def _hold(self, client: Client, right: object, what: str) -> None:
        past = "\n".join([*client.log, "rows:", *self._truth.near(client.copy.position, 25)])
        faults = "\n".join(client.faults)
        assert right, (
            f"SWITCHING_SEED={self.seed} on {self.engine}, client {client.name}: {what}\n"
            f"{faults}\nposition {client.copy.position}, doubt up to {client.copy.doubt_upto};"
            f" it did last:\n{past}"
        )


def _rest(truth: Truth, clients: list[Client]) -> None:
    """Wait until somebody who acts knows of everything, but not for ever."""
    until = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < until:
        time.sleep(ACT_SECONDS)
        if any(each.habits.home and each.copy.position == truth.rows for each in clients):
            return


def _tell(engine: str, folder: Path) -> list[Round]:
    """Run one round, or as many as go into the time that is asked for."""
    minutes = float(os.environ.get("SWITCHING_MINUTES", "0"))
    until = time.monotonic() + 60 * minutes
    seed = os.environ.get("SWITCHING_SEED") or (secrets.token_hex(4) if minutes else "1")
    rounds = [Round(engine, folder, seed).run()]
    while time.monotonic() < until:
        rounds.append(Round(engine, folder, f"{seed}-{len(rounds)}").run())
    return rounds


@pytest.fixture(scope="module")
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stories[list[Round]]]:
    folder = tmp_path_factory.mktemp("switching")
    tellers = {engine: partial(_tell, engine, folder) for engine in databases.ENGINES}
    with harness_stories.side_by_side(request, tellers) as told:
        yield told


@pytest.mark.parametrize("name", databases.ENGINES)
def test_whoever_switches_at_random_ends_with_the_right_tree(
    stories: Stories[list[Round]], name: str
) -> None:
    need(name)
    rounds = stories[name]
    did = sum((each.did for each in rounds), collections.Counter[str]())
    rows = sum(each.rows for each in rounds)
    sys.stdout.write(f"{name}: {len(rounds)} rounds from {rounds[0].seed}, {rows} rows: {did}\n")
    assert all(did[what] for what in EVERYBODY | REMEMBERED | ACTING)

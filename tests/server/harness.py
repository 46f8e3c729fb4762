"""Writers, two instances, clients that come and go, and the proof that nothing was lost.

The writers say what they committed, the clients what they were told; both must fit the journal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy
from sqlalchemy import func, make_url, select, text

from events_app import schema
from tests import databases
from tests.server.harness_client import Client, JournalRow
from tests.server.harness_writer import Orders, Outcome
from tests.serving import Server, eventually

USERS = ["42", "ann@example.org"]
# Between two kills of a worker.
KILL_SECONDS = 1.0
_READY_WORKER = re.compile(r'^events_ready\{worker="(\d+)"\} 1', re.MULTILINE)
# Longer than any drain, so that what is missing by then is lost and not late.
CATCH_UP_SECONDS = 40.0
NAIVE_PAUSE_SECONDS = 0.01

_APP_TABLE = {
    "sqlite": "id INTEGER PRIMARY KEY AUTOINCREMENT",
    "postgresql": "id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "mariadb": "id BIGINT AUTO_INCREMENT PRIMARY KEY",
}


@dataclasses.dataclass(frozen=True)
class Load:
    """How much happens, and how roughly."""

    engine: str
    writers: int = 8
    seconds: float = 10.0
    held_seconds: float = 1.0
    held_share: float = 0.03
    pause_seconds: float = 0.06
    kill_workers: bool = False


class NaiveReader(threading.Thread):
    """Follows the app's own table by `id > cursor`: what everybody writes first."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.seen: set[int] = set()
        self._engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
        self._leave = threading.Event()

    def run(self) -> None:
        cursor = 0
        with self._engine.connect() as connection:
            while True:
                last_look = self._leave.is_set()
                query = text("SELECT id FROM app_change WHERE id > :cursor ORDER BY id")
                found = list(connection.scalars(query, {"cursor": cursor}))
                self.seen.update(found)
                cursor = found[-1] if found else cursor
                if last_look:
                    return
                time.sleep(NAIVE_PAUSE_SECONDS)

    def stop(self) -> None:
        """Look once more, and end."""
        self._leave.set()
        self.join(10)
        self._engine.dispose()


@dataclasses.dataclass
class Run:
    """What happened in a run, for tests to judge."""

    load: Load
    outcomes: list[Outcome]
    journal: list[JournalRow]
    last_position: int
    outbox_rows: int
    clients: list[Client]
    naive_missed: int
    kills: int
    logs: list[str]

    def journalled_by(self, writer: int) -> list[tuple[str, str]]:
        """List the (type, file id) of a writer's rows, by position."""
        prefix = f"w{writer}-"
        return [(row.type, row.file_id) for row in self.journal if row.file_id.startswith(prefix)]


def run(load: Load, folder: Path) -> Run:
    """Let `load` happen on a database of its own."""
    with databases.migrated(load.engine, folder) as url, _instances(url, folder, load) as servers:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        make_app_table(engine, load.engine)
        clients = _clients(servers)
        for client in clients:
            client.start()
        for client in clients:
            assert client.begun.wait(20), "no stream began"
        naive = NaiveReader(url)
        naive.start()
        kills = _Kills(servers)
        if load.kill_workers:
            kills.start()
        try:
            outcomes = _write(url, load, clients)
        finally:
            naive.stop()
            kills.stop()
        finish(engine, clients)
        return _collect(engine, load, outcomes, clients, naive, kills, servers)


def make_app_table(engine: sqlalchemy.Engine, name: str) -> None:
    """Make the app's own table, which the writers write beside ours."""
    columns = f"{_APP_TABLE[name]}, user_id VARCHAR(64), file_id VARCHAR(128)"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE app_change ({columns})"))


@contextlib.contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Run several instances, which start and stop side by side."""
    try:
        for server in servers:
            server.start(ready=False)
        for server in servers:
            eventually(server.is_ready, what=f"{server.log} says that it is ready")
        yield
    finally:
        for server in servers:
            if server.process is not None:
                server.process.terminate()
        for server in servers:
            server.stop()


@contextlib.contextmanager
def _instances(url: str, folder: Path, load: Load) -> Iterator[list[Server]]:
    secret = secrets.token_urlsafe(48)
    settings = {"EVENTS_CONFIRM_SECONDS": "1"}
    settling = {"EVENTS_DEBOUNCE": "0.2", "EVENTS_DEBOUNCE_MAX": "0.8"}
    name = f"{load.engine}-{'kill' if load.kill_workers else 'calm'}"
    servers = [
        Server(url, folder / f"{name}-1.log", settings, secret=secret),
        Server(url, folder / f"{name}-2.log", settings | settling, secret=secret),
    ]
    with running(*servers):
        yield servers


def _clients(servers: list[Server]) -> list[Client]:
    """Watch whole trees and folders, as every kind of returning client, from both instances."""
    first, second = servers, servers[::-1]
    leaves = 1.0
    ids = [str(uuid.UUID(int=number)) for number in range(1, 5)]
    return [
        Client(first, USERS[0]),
        Client(second, USERS[0], client_id=ids[0]),
        Client(first, USERS[0], client_id=ids[1], stay_seconds=leaves),
        Client(second, USERS[0], client_id=ids[2], stay_seconds=leaves, by_event_id=False),
        Client(first, USERS[0], "/b", client_id=ids[2], stay_seconds=leaves, by_event_id=False),
        Client(second, USERS[1], "/Übersicht 1", stay_seconds=leaves),
        Client(second, USERS[1], client_id=ids[3], by_event_id=False),
    ]


def _write(url: str, load: Load, clients: list[Client]) -> list[Outcome]:
    """Run the writers to their end."""
    ids = sorted({client.client_id for client in clients if client.client_id})
    with writing(url, load, ids) as programs:
        return outcomes_of(programs, load)


@contextlib.contextmanager
def writing(
    url: str, load: Load, client_ids: Sequence[str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run the writers; now and then a row is by one of `client_ids`."""
    with contextlib.ExitStack() as stack:
        programs = []
        for number in range(load.writers):
            orders = Orders(
                engine=load.engine,
                address=_address(url, load.engine),
                number=number,
                seconds=load.seconds,
                held_seconds=load.held_seconds,
                held_share=load.held_share,
                pause_seconds=load.pause_seconds,
                users=USERS,
                client_ids=list(client_ids),
            )
            program = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.server.harness_writer"),
                    json.dumps(dataclasses.asdict(orders)),
                ],
                cwd=databases.ROOT,
                stdout=subprocess.PIPE,
            )
            programs.append(stack.enter_context(program))
            stack.callback(program.kill)
        yield programs


def outcomes_of(programs: list[subprocess.Popen[bytes]], load: Load) -> list[Outcome]:
    """Wait for the end of writers; what they did."""
    outcomes = []
    for program in programs:
        printed, _ = program.communicate(timeout=load.seconds + 60)
        assert program.returncode == 0
        found = json.loads(printed)
        found["committed"] = [tuple(row) for row in found["committed"]]
        outcomes.append(Outcome(**found))
    return outcomes


def _address(url: str, engine: str) -> dict[str, Any]:
    parsed = make_url(url)
    if engine == "sqlite":
        return {"database": parsed.database}
    name = "dbname" if engine == "postgresql" else "database"
    return {
        "host": parsed.host,
        "port": parsed.port,
        "user": parsed.username,
        "password": parsed.password,
        name: parsed.database,
    }


def scalar(url: str, query: str) -> Any:
    """Read one value from the database at `url`."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return connection.scalar(text(query))


def _count(engine: sqlalchemy.Engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(sqlalchemy.table(table))) or 0


def _wait_for_empty_outbox(engine: sqlalchemy.Engine) -> None:
    eventually(
        lambda: _count(engine, "file_event_outbox") == 0, CATCH_UP_SECONDS, "the outbox is empty"
    )


def finish(engine: sqlalchemy.Engine, clients: Sequence[Client]) -> None:
    """Wait until all that was committed is journalled, and all of it told."""
    _wait_for_empty_outbox(engine)
    with engine.connect() as connection:
        last = connection.scalar(text("SELECT last_position FROM file_event_state")) or 0
    for client in clients:
        client.finish_at(last)
    deadline = time.monotonic() + CATCH_UP_SECONDS
    for client in clients:
        client.join(max(0.0, deadline - time.monotonic()))


class _Kills(threading.Thread):
    """Kills a worker that follows the journal, of one instance after the other.

    One that is still starting moves nothing: to kill it would prove nothing, and on a busy machine
    no worker would ever get further.
    """

    def __init__(self, servers: list[Server]) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self._servers = itertools.cycle(servers)
        self._leave = threading.Event()

    def run(self) -> None:
        while not self._leave.wait(KILL_SECONDS):
            if (worker := following_worker(next(self._servers))) is not None:
                os.kill(worker, signal.SIGKILL)
                self.count += 1

    def stop(self) -> None:
        """Kill no more."""
        self._leave.set()
        if self.is_alive():
            self.join(5)


def following_worker(server: Server) -> int | None:
    """Return the process id of whichever worker answers, if it follows the journal."""
    with contextlib.suppress(httpx.TransportError):
        found = _READY_WORKER.search(httpx.get(f"{server.url}/metrics").text)
        return int(found[1]) if found else None
    return None


def journal_of(engine: sqlalchemy.Engine) -> list[JournalRow]:
    """Read the whole journal."""
    columns = [schema.journal.c[name] for name in JournalRow._fields]
    with engine.connect() as connection:
        found = connection.execute(select(*columns).order_by(schema.journal.c.position))
        return [JournalRow._make(row) for row in found]


def _collect(
    engine: sqlalchemy.Engine,
    load: Load,
    outcomes: list[Outcome],
    clients: list[Client],
    naive: NaiveReader,
    kills: _Kills,
    servers: list[Server],
) -> Run:
    rows = journal_of(engine)
    with engine.connect() as connection:
        app_ids = set(connection.scalars(text("SELECT id FROM app_change")))
    return Run(
        load=load,
        outcomes=outcomes,
        journal=rows,
        last_position=max((client.position for client in clients), default=0),
        outbox_rows=_count(engine, "file_event_outbox"),
        clients=clients,
        naive_missed=len(app_ids - naive.seen),
        kills=kills.count,
        logs=[server.log.read_text() for server in servers],
    )

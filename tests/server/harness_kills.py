"""Workers that are stopped in the very middle of a step of the mover, and what a worker leaves.

A step is held up where it appends its first row, by a row of ours at the same position that is not
committed. The worker is stopped while it waits there. Then our row goes, the database does what it
was asked, and the step stands still with the lock in its hands.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import Connection, Engine, insert, text

from events_app import schema
from events_app.columns import utc_now
from tests.server.harness_traveller import Traveller
from tests.serving import Server, eventually

# Below what a real client waits, so that more happens in less time.
RETURN_SECONDS = 0.1

_PORTS_OF_WAITING_STEPS = {
    "postgresql": text(
        "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND query LIKE 'COPY file_event_journal %'"
    ),
    "mariadb": text(
        "SELECT SUBSTRING_INDEX(p.host, ':', -1) FROM information_schema.innodb_trx t "
        "JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id "
        "WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT' "
        "AND t.trx_query LIKE 'INSERT INTO file_event_journal %'"
    ),
}
_PORTS_OF_SESSIONS = {
    "postgresql": text(
        "SELECT client_port, xact_start IS NOT NULL FROM pg_stat_activity "
        "WHERE datname = current_database()"
    ),
    "mariadb": text(
        "SELECT SUBSTRING_INDEX(p.host, ':', -1), t.trx_id IS NOT NULL "
        "FROM information_schema.processlist p "
        "LEFT JOIN information_schema.innodb_trx t ON p.id = t.trx_mysql_thread_id "
        "WHERE p.db = DATABASE()"
    ),
}
_OWNED = re.compile(r":(\d+)\s+\S+:(\d+)\s+users:\(\(.*?pid=(\d+),")


class Returning(Traveller):
    """Comes back a moment after each end, as real clients do; counts the ends without a word."""

    def __init__(self, servers: list[Server], user: str, **others: Any) -> None:
        super().__init__(servers, user, **others)
        self.broken_off = 0
        self._pause = threading.Event()

    def _connect_once(self) -> None:
        before = self.connections
        try:
            super()._connect_once()
        except (EOFError, ConnectionError, TimeoutError):
            self.broken_off += self.connections - before
        finally:
            self._pause.wait(RETURN_SECONDS)


class Step(NamedTuple):
    """A worker that is stopped in the middle of a step, and the ports of its sessions."""

    worker: int
    ports: set[int]


class Sessions:
    """The connections of workers to their database, on the server's side and on theirs."""

    def __init__(self, name: str, engine: Engine) -> None:
        """Look at `engine`, a database of the family `name`."""
        self._name = name
        self._engine = engine

    @contextlib.contextmanager
    def stopped_in_a_step(self) -> Iterator[Step]:
        """Stop the worker that moves, in the middle of a step; afterwards it may go on."""
        with _appends_held_up(self._engine):
            (port,) = eventually(self._waiting_steps, what="a step is held up")
            worker = self._workers()[port]
            process = os.pidfd_open(worker)
            signal.pidfd_send_signal(process, signal.SIGSTOP)
        step = Step(worker, {mine for mine, owner in self._workers().items() if owner == worker})
        try:
            assert port in self.in_transaction(), "it was stopped too late"
            yield step
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)

    def _waiting_steps(self) -> list[int]:
        with self._engine.connect() as connection:
            return [int(port) for port in connection.scalars(_PORTS_OF_WAITING_STEPS[self._name])]

    def _workers(self) -> dict[int, int]:
        """Map the ports of sessions to the processes that have them."""
        database = self._engine.url.port
        return {near: pid for (near, far), pid in owners().items() if far == database}

    def in_transaction(self) -> set[int]:
        """List the ports of the sessions that are in a transaction."""
        return {port for port, has_begun in self._sessions() if has_begun}

    def open(self) -> set[int]:
        """List the ports of all sessions."""
        return {port for port, _ in self._sessions()}

    def _sessions(self) -> list[tuple[int, bool]]:
        with self._engine.connect() as connection:
            found = connection.execute(_PORTS_OF_SESSIONS[self._name])
            return [(int(port), bool(begun)) for port, begun in found if port is not None]


@contextlib.contextmanager
def _appends_held_up(engine: Engine) -> Iterator[None]:
    with engine.connect() as planted:
        with engine.begin() as connection:
            last = connection.scalar(
                sqlalchemy.select(schema.state.c.last_position).with_for_update()
            )
            _plant(planted, (last or 0) + 1)
        yield


def _plant(connection: Connection, position: int) -> None:
    row = {"user_id": "0", "type": "create", "file_id": "0", "fs": "my", "from_path": "/0"}
    times = {"created_at": utc_now(), "recorded_at": utc_now()}
    values = {"position": position, "is_folder": 0, "tag": 0} | row | times
    connection.execute(insert(schema.journal).values(values))


def owners() -> dict[tuple[int, int], int]:
    """Map the two ports of every TCP connection, ours first, to the process that has it."""
    shown = subprocess.run(["ss", "-HOtnp"], capture_output=True, text=True, check=True).stdout
    return {(int(near), int(far)): int(pid) for near, far, pid in _OWNED.findall(shown)}


class Processes:
    """Processes, by descriptors that never mean another one."""

    def __init__(self, pids: list[int]) -> None:
        self._open = {pid: os.pidfd_open(pid) for pid in pids}

    def signal(self, number: signal.Signals) -> None:
        """Send each of them a signal."""
        for process in self._open.values():
            signal.pidfd_send_signal(process, number)

    def are_gone(self) -> bool:
        """Tell whether all have ended."""
        ended, _, _ = select.select(list(self._open.values()), [], [], 0)
        return len(ended) == len(self._open)

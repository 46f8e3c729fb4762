"""Planned ends are clean and in time; a database that is away ends nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from sqlalchemy import make_url

from events_app.database import STATEMENT_TIMEOUT_SECONDS, Database
from tests import conftest, databases
from tests.frames import Frame, Reader
from tests.server import harness
from tests.server.harness_client import Client
from tests.server.harness_proxy import Proxy
from tests.serving import Server, eventually

STREAMS = 50
DRAIN_SECONDS = 1.0
# What the protocol's bar allows beyond the drain.
MARGIN_SECONDS = 3.0
# After so long gunicorn kills who has not ended; gunicorn.conf.py says it.
KILL_SECONDS = DRAIN_SECONDS + 15
USER = "42"
# Enough for some to wait in the kernel's queue at any time.
CROWD = 12
REFUSED = repr(httpx.ConnectError("[Errno 111] Connection refused"))


# -- planned ends ------------------------------------------------------------------------------


@pytest.fixture
def draining(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    """Run a server that spreads its ends over a second."""
    server = Server(sqlite_url, tmp_path / "gunicorn.log", {"EVENTS_DRAIN": str(DRAIN_SECONDS)})
    with server.running():
        yield server


@dataclasses.dataclass
class End:
    """How a stream ended: its last frame, and when after the signal (seconds)."""

    last: Frame | None = None
    seconds: float = -1.0


def read_to_the_end(readers: list[Reader], signalled_at: float) -> list[End]:
    """Read all streams side by side; one that breaks off has no end."""
    ends = [End() for _ in readers]

    def read(reader: Reader, end: End) -> None:
        with contextlib.suppress(EOFError, OSError):
            last = None
            while (frame := reader.frame()) is not None:
                assert last is None or last.name != "reconnect-required"
                last = frame
            end.last, end.seconds = last, time.monotonic() - signalled_at

    threads = [threading.Thread(target=read, args=pair) for pair in zip(readers, ends, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_a_connection_that_says_nothing_holds_no_stop_up(draining: Server) -> None:
    """As a browser opens them ahead. It is ended, and those that ask are answered before."""
    with draining.connect() as silent, Reader(draining) as reader:
        reader.expect("subscribed")
        signalled_at = time.monotonic()
        draining.stop()
        assert time.monotonic() - signalled_at < KILL_SECONDS / 2
        reader.expect("reconnect-required")
        assert silent.recv(1) == b""


def reload(server: Server, readers: list[Reader]) -> list[End]:
    """Reload, and read all streams side by side; their seconds begin when new workers do.

    Before that it is tried whether these would start.
    """

    def begun() -> int:
        return server.log.read_text().count("Booting worker")

    before = begun()
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: begun() == before + server.workers, what="new workers begin")
    return read_to_the_end(readers, time.monotonic())


def open_streams(server: Server, stack: contextlib.ExitStack) -> list[Reader]:
    """Open many streams, on both workers."""
    readers = [stack.enter_context(Reader(server)) for _ in range(STREAMS)]
    for reader in readers:
        reader.expect("subscribed")
    return readers


def assert_clean(ends: list[End]) -> None:
    assert {end.last.name if end.last else "broken off" for end in ends} == {"reconnect-required"}
    assert max(end.seconds for end in ends) < DRAIN_SECONDS + MARGIN_SECONDS
    # Spread, so that the clients do not all come back at once.
    assert max(end.seconds for end in ends) - min(end.seconds for end in ends) > DRAIN_SECONDS / 4


def assert_goes_on(server: Server, ends: list[End]) -> None:
    """Let the first of those that ended come back and hear what happened meanwhile."""
    server.append("create", "/meanwhile")
    last = ends[0].last
    assert last is not None
    with Reader(server, last_event_id=last.id) as reader:
        reader.expect("resumed")
        assert reader.changes(1)[0]["from"] == "/meanwhile"


def test_a_stop_tells_every_stream_and_ends_it_cleanly_in_time(draining: Server) -> None:
    with contextlib.ExitStack() as stack:
        readers = open_streams(draining, stack)
        process = draining.process
        assert process is not None
        process.terminate()
        ends = read_to_the_end(readers, time.monotonic())
        assert_clean(ends)
        assert process.wait(DRAIN_SECONDS + MARGIN_SECONDS) == 0
    draining.append("create", "/meanwhile")
    draining.start()
    last = ends[0].last
    assert last is not None
    with Reader(draining, last_event_id=last.id) as reader:
        reader.expect("resumed")
        assert reader.changes(1)[0]["from"] == "/meanwhile"


def test_a_stream_that_is_held_for_its_first_seconds_is_told_of_a_stop_too(
    draining: Server,
) -> None:
    """The watched folder is gone, so it would end after ten seconds; the stop comes first."""
    with Reader(draining, uri="cloudreve://my/docs") as reader:
        reader.expect("subscribed")
        draining.append("create", "/docs/a")
        reader.expect("event")
        draining.append("delete", "/docs")
        draining.append("create", "/docs/b")
        reader.expect("keep-alive")
        process = draining.process
        assert process is not None
        process.terminate()
        assert_clean_one(read_to_the_end([reader], time.monotonic())[0])
        assert process.wait(DRAIN_SECONDS + MARGIN_SECONDS) == 0


def assert_clean_one(end: End) -> None:
    assert end.last is not None
    assert end.last.name == "reconnect-required"
    assert 0 <= end.seconds < DRAIN_SECONDS + MARGIN_SECONDS


class Knocking(threading.Thread):
    """Comes in again and again, and notes every time that nobody answers."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.answers: list[str] = []
        self._server = server
        self._leave = threading.Event()

    def run(self) -> None:
        # The server closes after each answer, so every knock is a new connection all the same.
        with httpx.Client() as client:
            while not self._leave.is_set():
                try:
                    answer = client.get(f"{self._server.url}/healthz")
                    self.answers.append(str(answer.status_code))
                except httpx.TransportError as error:
                    self.answers.append(repr(error))

    def stop(self) -> None:
        """Leave."""
        self._leave.set()
        self.join()


def test_a_reload_ends_the_streams_cleanly_while_the_socket_keeps_accepting(
    draining: Server,
) -> None:
    with contextlib.ExitStack() as stack:
        readers = open_streams(draining, stack)
        old = set(draining.worker_pids())
        knocking = Knocking(draining)
        knocking.start()
        ends = reload(draining, readers)
        eventually(lambda: old.isdisjoint(draining.worker_pids()), what="only new workers")
        knocking.stop()
        assert_clean(ends)
        assert len(knocking.answers) > 10
        assert set(knocking.answers) == {"200"}
        assert_goes_on(draining, ends)


def test_a_stop_resets_nobody_whom_the_kernel_has_let_in(draining: Server) -> None:
    """Whoever comes in is answered; then nobody comes in any more."""
    crowd = [Knocking(draining) for _ in range(CROWD)]
    for knocking in crowd:
        knocking.start()
    eventually(lambda: all(knocking.answers for knocking in crowd))
    process = draining.process
    assert process is not None
    process.terminate()
    eventually(lambda: all(knocking.answers[-1] == REFUSED for knocking in crowd))
    for knocking in crowd:
        knocking.stop()
    answers = {answer for knocking in crowd for answer in knocking.answers}
    assert answers == {"200", REFUSED}


def test_a_client_that_follows_a_reload_hears_everything_that_happens_during_it(
    draining: Server,
) -> None:
    """It comes back by `Last-Event-ID` whenever it is asked to, to whoever accepts."""
    client = Client([draining], USER)
    client.start()
    assert client.begun.wait(20)
    process = draining.process
    assert process is not None
    count = 40
    for number in range(count):
        if number % 20 == 10:
            process.send_signal(signal.SIGHUP)
        draining.append("create", f"/{number}")
        time.sleep(0.05)  # the load: changes come all through both reloads
    client.finish_at(count)
    client.join(20)
    assert client.faults == []
    assert client.position == count
    told = [file_id for claim in client.claims for file_id in claim.file_ids]
    assert told == [f"f-/{number}" for number in range(count)]


# -- a database that is away -------------------------------------------------------------------


class Distant(NamedTuple):
    """A server, and the line to its database. `near` commits as the app does, beside that line."""

    server: Server
    near: Server
    line: Proxy


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def distant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Distant]:
    """Run a server whose database is at the end of a line."""
    conftest.need(request.param)
    folder = tmp_path_factory.mktemp("distant")
    with databases.migrated(request.param, folder) as url:
        address = make_url(url)
        assert address.host is not None
        assert address.port is not None
        with Proxy((address.host, address.port)) as line:
            through = address.set(host="127.0.0.1", port=line.port)
            server = Server(
                through.render_as_string(hide_password=False),
                folder / "gunicorn.log",
                {"EVENTS_KEEP_ALIVE": "0.5"},
            )
            near = Server(url, folder / "never-started.log")
            with server.running():
                yield Distant(server, near, line)


@pytest.fixture(params=["cut", "frozen"])
def way(request: pytest.FixtureRequest) -> str:
    """Name a way to be away."""
    return str(request.param)


@contextlib.contextmanager
def away(line: Proxy, way: str) -> Iterator[None]:
    if way == "cut":
        line.cut()
    else:
        line.freeze()
    try:
        yield
    finally:
        line.restore()


def held_reader(
    server: Server, user: str, client_id: str | None, last_event_id: str | None
) -> Reader:
    """Open a stream that is held: it has headers and a first frame within a second all the same."""
    opened_at = time.monotonic()
    reader = Reader(server, user, client_id, last_event_id=last_event_id)
    first = reader.frame()
    assert first is not None
    assert (first.name, first.id) == ("keep-alive", last_event_id)
    # Half a second for two shared cores.
    assert time.monotonic() - opened_at < 1.5
    return reader


def assert_keep_alive(reader: Reader) -> None:
    """Read a frame that says nothing, in the time in which one is due."""
    frame = reader.frame(2.0)
    assert frame is not None
    assert frame.name == "keep-alive"


def told_until(reader: Reader, path: str) -> list[str]:
    """Read changes up to the one of `path`."""
    told: list[str] = []
    while path not in told:
        told += [change["from"] for change in reader.changes(1)]
    return told


def test_a_reload_waits_for_no_database(distant: Distant) -> None:
    """New workers do, as at a start."""
    old = set(distant.server.worker_pids())
    process = distant.server.process
    assert process is not None
    with away(distant.line, "cut"):
        process.send_signal(signal.SIGHUP)
        eventually(lambda: old.isdisjoint(distant.server.worker_pids()), what="only new workers")
    eventually(distant.server.is_ready)


def test_streams_outlive_a_database_that_is_away_and_hear_what_happened(
    distant: Distant, way: str
) -> None:
    """Open ones stay, new ones are held on keep-alives; then everything is told, once."""
    user, known, new = (str(uuid.uuid4()) for _ in range(3))
    with Reader(distant.server, user) as steady:
        begun = steady.expect("subscribed")
        with Reader(distant.server, user, known) as reader:
            reader.expect("subscribed")
            reader.expect("keep-alive")
        with contextlib.ExitStack() as stack:
            with away(distant.line, way):
                distant.near.append("create", "/meanwhile", user_id=user)
                # The first keep-alive has the client's own id or none: nothing is claimed yet.
                held = [
                    stack.enter_context(held_reader(distant.server, user, *asked))
                    for asked in ((None, begun.id), (known, None), (new, None))
                ]
                for reader in (*held, steady):
                    for _ in range(3):
                        assert_keep_alive(reader)
            resuming, returning, starting = held
            for reader in (resuming, returning):
                reader.expect("resumed")
                assert reader.changes(1)[0]["from"] == "/meanwhile"
            assert steady.changes(1)[0]["from"] == "/meanwhile"
            starting.expect("subscribed")
            distant.near.append("create", "/later", user_id=user)
            for reader in (resuming, returning, steady):
                assert [change["from"] for change in reader.changes(1)] == ["/later"]
            # It may have subscribed before the first change had its position.
            assert told_until(starting, "/later") in (["/later"], ["/meanwhile", "/later"])


def test_a_server_that_starts_before_its_database_serves_when_it_comes(distant: Distant) -> None:
    user = str(uuid.uuid4())
    process = distant.server.process
    assert process is not None
    distant.server.stop()
    with away(distant.line, "cut"):
        distant.server.start(ready=False)
        eventually(lambda: answers(distant.server), what="it listens")
        assert httpx.get(f"{distant.server.url}/readyz").status_code == 503
        with Reader(distant.server, user) as reader:
            assert_keep_alive(reader)
            distant.line.restore()
            reader.expect("subscribed")
            distant.near.append("create", "/a", user_id=user)
            assert reader.changes(1)[0]["from"] == "/a"
    assert distant.server.is_ready()


def answers(server: Server) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{server.url}/healthz").status_code == httpx.codes.OK
    return False


def test_a_held_stream_is_told_of_a_stop(distant: Distant, way: str) -> None:
    """Its end is as clean as any other; its `id` is its own or none."""
    with away(distant.line, way), Reader(distant.server, str(uuid.uuid4())) as reader:
        assert_keep_alive(reader)
        process = distant.server.process
        assert process is not None
        process.terminate()
        end = reader.expect("reconnect-required")
        assert end.id is None
        assert reader.frame() is None
    assert process.wait(15) == 0
    distant.server.start()


def test_a_database_machine_that_vanishes_is_noticed(distant: Distant) -> None:
    """Waiting for an answer of a server that is no more ends, by the kernel or by the driver.

    PyMySQL reads with a timeout; libpq does not, so the kernel must ask whether it is still there.
    """
    database = Database(distant.near.database_url)
    try:
        with database.engine.connect() as connection:
            if not database.is_postgresql:
                assert connection.connection.driver_connection._read_timeout  # type: ignore[union-attr] # PyMySQL's
                return
            number = connection.connection.driver_connection.fileno()  # type: ignore[union-attr] # psycopg's
            with socket.socket(fileno=os.dup(number)) as line:
                assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                idle, interval, count = (
                    line.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                )
        assert idle + interval * count <= STATEMENT_TIMEOUT_SECONDS
    finally:
        database.close()


def outbox_rows(server: Server) -> int:
    return int(harness.scalar(server.database_url, "SELECT COUNT(*) FROM file_event_outbox"))


def test_a_worker_that_froze_holds_up_nobody(distant: Distant) -> None:
    """Whatever it held, the database lets go of it, and the other worker moves on."""
    user = str(uuid.uuid4())
    workers = distant.server.worker_pids()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
        try:
            distant.near.append("create", f"/{worker}", user_id=user)
            eventually(lambda: outbox_rows(distant.near) == 0, 15, "the other one moves")
        finally:
            os.kill(worker, signal.SIGCONT)
    with Reader(distant.server, user) as reader:
        reader.expect("subscribed")
        distant.near.append("create", "/after", user_id=user)
        assert reader.changes(1)[0]["from"] == "/after"

"""Workers that cannot start where others serve, or have served: nobody ends with them."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import databases
from tests.frames import Reader
from tests.key_server import RSA, signed_by
from tests.server import harness
from tests.server.harness_kills import Processes, owners
from tests.server.harness_program import APPLICATION, KEYS, OLD, PACKAGE, SCHEMA, Damage, Program
from tests.serving import Server, eventually

WAITS = "a worker cannot start, and is tried again in"
PAUSE = "AGAIN_SECONDS = 10"
# Nobody waits for so long here: who has not left before is late.
LONG_SECONDS = 30
ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def program_of(url: str, folder: Path, *, workers: int, pause_seconds: int) -> Program:
    """Make a program whose workers that cannot start wait for so long."""
    program = Program(url, folder, workers=workers)
    source = program.module("start")
    text = source.read_text()
    assert PAUSE in text
    source.write_text(text.replace(PAUSE, f"AGAIN_SECONDS = {pause_seconds}"))
    return program


def ready_workers(server: Server, count: int) -> set[int]:
    """Return the process ids of so many workers, when they all serve."""
    found: set[int] = set()

    def look() -> bool:
        worker = harness.following_worker(server)
        found.update([] if worker is None else [worker])
        return len(found) == count

    eventually(look, what=f"{count} workers serve")
    return found


def worker_of(reader: Reader) -> int:
    """Return the process at the other end of a connection."""
    here, there = reader.connection.getsockname(), reader.connection.getpeername()
    return owners()[there[1], here[1]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Run a program that each test mends again."""
    folder = tmp_path_factory.mktemp("shared")
    with databases.migrated("sqlite", folder) as url:
        program = program_of(url, folder, workers=2, pause_seconds=1)
        with program.server.running():
            yield program


def in_anothers_place(program: Program, another: int) -> int:
    """Let one more begin, and say how many there are then."""
    del program
    os.kill(another, signal.SIGKILL)
    return 2


def beside_others(program: Program, another: int) -> int:
    """Do the same."""
    del another
    program.signal(signal.SIGTTIN)
    return 3


@pytest.mark.parametrize(
    ("damage", "come"),
    [(KEYS, in_anothers_place), (APPLICATION, in_anothers_place), (PACKAGE, beside_others)],
    ids=lambda value: getattr(value, "name", None) or value.__name__,
)
def test_the_streams_of_others_go_on(
    shared: Program, damage: Damage, come: Callable[[Program, int], int]
) -> None:
    """And new ones begin. When what is broken is mended, all serve."""
    token, server = signed_by(RSA), shared.server
    both = ready_workers(server, 2)
    with Reader(server, token=token) as reader:
        reader.expect("subscribed")
        serving = worker_of(reader)
        damage.do(shared)
        workers = come(shared, *(both - {serving}))
        eventually(lambda: shared.which_said(WAITS, damage.words), what="it waits")
        server.append("create", "/a")
        assert [change["from"] for change in reader.changes(1)] == ["/a"]
        with Reader(server, token=token) as another:
            another.expect("subscribed")
        damage.undo(shared)
        assert serving in ready_workers(server, workers)
        server.append("create", "/b")
        assert [change["from"] for change in reader.changes(1)] == ["/b"]


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_where_nobody_is_left_clients_wait_and_are_served(url: str, tmp_path: Path) -> None:
    """The kernel lets them in, and nobody is refused or broken off."""
    program = program_of(url, tmp_path, workers=1, pause_seconds=1)
    with program.server.running():
        lose_the_only_one(program, SCHEMA)
        with program.server.connect() as client:
            client.sendall(ASKED)
            before = program.said(WAITS)
            eventually(lambda: program.said(WAITS) > before, what="it is tried again")
            assert not select.select([client], [], [], 0)[0], "nobody has answered yet"
            SCHEMA.undo(program)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        with Reader(program.server, token=signed_by(RSA)) as reader:
            reader.expect("subscribed")


def lose(program: Program, worker: int, damage: Damage) -> int:
    """Let a worker die, and another one wait in its place; return its process id."""
    damage.do(program)
    os.kill(worker, signal.SIGKILL)
    (waiting,) = eventually(lambda: program.which_said(WAITS), what="it waits")
    return waiting


def lose_the_only_one(program: Program, damage: Damage) -> int:
    """Do the same to the only worker."""
    (worker,) = program.server.worker_pids()
    return lose(program, worker, damage)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_one_that_waits_holds_no_stop_up(
    number: signal.Signals, sqlite_url: str, tmp_path: Path
) -> None:
    program = program_of(sqlite_url, tmp_path, workers=1, pause_seconds=LONG_SECONDS)
    with program.server.running():
        lose_the_only_one(program, KEYS)
        assert program.server.stop(number) == 0
    assert program.said("Worker exiting") == 1, "it left by itself, and was not killed"


def test_one_that_waits_is_given_no_connection_and_leaves_at_a_reload(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Also where each worker has a socket of its own, which the kernel would go on to fill."""
    program = program_of(sqlite_url, tmp_path, workers=2, pause_seconds=LONG_SECONDS)
    program.server.environment["GUNICORN_CMD_ARGS"] = "--reuse-port"
    with program.server.running():
        serving, _ = ready_workers(program.server, 2)
        lose(program, serving, KEYS)
        assert program.runs() == {OLD}
        KEYS.undo(program)
        program.reload()


def test_one_that_waits_leaves_when_its_master_is_gone(sqlite_url: str, tmp_path: Path) -> None:
    program = program_of(sqlite_url, tmp_path, workers=1, pause_seconds=LONG_SECONDS)
    with program.server.running():
        waiting = Processes([lose_the_only_one(program, KEYS)])
        program.signal(signal.SIGKILL)
        eventually(waiting.are_gone, what="it ends")

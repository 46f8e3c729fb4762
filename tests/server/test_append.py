"""Appending by HTTP to real gunicorn: nothing doubled, nothing lost, each body answered."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import sqlalchemy
from sqlalchemy import Engine, func, select

from events_app import event
from events_app.schema import journal, outbox, state
from tests import conftest, databases
from tests.frames import Reader
from tests.serving import EVENTS_PATH, Server, eventually
from tests.writers import programs

SERVICE: dict[str, Any] = {"sub": "importer", "scopes": ["Events.Write"]}
CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
OTHER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
ROWS = 40
RETRIES = 2
MOST_BATCHES = 40

Change = dict[str, Any]


def batch(user: str, number: int) -> list[Change]:
    """Make a batch of its own keys."""
    return [
        {
            "user_id": user,
            "type": "create",
            "file_id": f"f{number}-{each}",
            "from": f"/{number}/{each} ä.txt",
            "event_key": f"k{number}-{each}",
        }
        for each in range(ROWS)
    ]


class Php:
    """The example program, which appends batches for a service."""

    def __init__(self, server: Server, query: str = "") -> None:
        self._process = subprocess.Popen(
            ["php", programs.EXAMPLES / "php" / "append.php", server.events_url + query],
            env=programs.environment() | {"APPEND_TOKEN": server.token(**SERVICE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def give(self, changes: list[Change]) -> None:
        """Let it append a batch."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(changes) + "\n")
        self._process.stdin.flush()

    def take(self) -> dict[str, int]:
        """Wait for what it says of the batch."""
        assert self._process.stdout is not None
        found: dict[str, int] = json.loads(self._process.stdout.readline())
        return found


@pytest.fixture(scope="module")
def _php() -> None:
    conftest.toolchain("php")


@pytest.fixture(scope="module", params=databases.ENGINES)
def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Run two workers on each engine; each test has users of its own."""
    conftest.need(request.param)
    folder = tmp_path_factory.mktemp("append")
    with (
        databases.migrated(request.param, folder) as url,
        Server(url, folder / "gunicorn.log").running() as server,
    ):
        yield server


def kill_workers(server: Server) -> None:
    """Kill every worker; gunicorn starts others."""
    for worker in server.worker_pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


@contextlib.contextmanager
def engine_of(server: Server) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(server.database_url, poolclass=sqlalchemy.NullPool)
    yield engine
    engine.dispose()


@contextlib.contextmanager
def held_up(engine: Engine) -> Iterator[None]:
    """Keep SQLite's one place for a writer: a batch is written there sooner than we could kill."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield


def has_come(server: Server) -> bool:
    """Tell whether a connection to the server is open, also one that nobody has accepted yet."""
    to = f"127.0.0.1:{server.port}"
    command = [conftest.toolchain("ss"), "-Htn", "state", "established", "dst", to]
    return bool(subprocess.run(command, capture_output=True, check=True).stdout)


def waiting(engine: Engine) -> int:
    """Count the rows in the outbox."""
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(outbox)) or 0


def rows_of(engine: Engine, user: str) -> Sequence[Any]:
    """Read the journal of one user, once the outbox is empty."""
    eventually(lambda: waiting(engine) == 0, what="the outbox is empty")
    query = select(journal).where(journal.c.user_id == user).order_by(journal.c.position)
    with engine.connect() as connection:
        return connection.execute(query).all()


def repeated(engine: Engine, user: str, batches: int) -> int:
    """Look that each change of so many batches is told once, in order; count the repetitions."""
    found = rows_of(engine, user)
    told = [row.file_id for row in found if row.rejected is None]
    assert told == [each["file_id"] for number in range(batches) for each in batch(user, number)]
    assert {row.rejected for row in found} <= {None, event.DUPLICATE}
    return len(found) - len(told)


def stored(engine: Engine, user: str) -> int:
    """Count the rows of a user, moved or not."""
    with engine.connect() as connection:
        return sum(
            connection.scalar(
                select(func.count()).select_from(table).where(table.c.user_id == user)
            )
            or 0
            for table in (outbox, journal)
        )


def has_more(engine: Engine, user: str, rows: int) -> bool:
    """Tell whether more than so many are stored."""
    return stored(engine, user) > rows


@pytest.mark.usefixtures("_php")
def test_a_writer_that_retries_while_workers_are_killed_doubles_and_loses_nothing(
    serving: Server,
) -> None:
    """On its way in and while it is moved; for a while there is no worker at all."""
    number = retries = 0
    with Php(serving, "?wait=20") as php, engine_of(serving) as engine:
        while retries < RETRIES:
            assert number < MOST_BATCHES, f"only {retries} kills have hit a request"
            before = stored(engine, "killed")
            with held_up(engine) if number % 2 == 0 else contextlib.nullcontext():
                php.give(batch("killed", number))
                if number % 2:
                    eventually(partial(has_more, engine, "killed", before), what="it is written")
                else:
                    eventually(partial(has_come, serving), what="it is on its way")
                kill_workers(serving)
            answer = php.take()
            assert answer["accepted"] == ROWS
            retries += answer["tries"] > 1
            number += 1
        repeated(engine, "killed", number)


# On SQLite whoever holds up the mover holds up the writer.
@pytest.mark.parametrize("serving", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.usefixtures("_php")
def test_a_batch_whose_answer_is_lost_after_its_commit_is_told_once(serving: Server) -> None:
    """The mover is held up, so the commit is long done when the worker dies without an answer."""
    with Php(serving, "?wait=30") as php, engine_of(serving) as engine:
        with engine.connect() as holder:
            holder.execute(select(state.c.id).with_for_update())
            php.give(batch("lost", 0))
            eventually(lambda: waiting(engine) == ROWS, what="the batch is committed")
            kill_workers(serving)
            eventually(lambda: waiting(engine) == 2 * ROWS, what="the batch is committed again")
        answer = php.take()
        assert repeated(engine, "lost", 1) == ROWS
        told = [row.position for row in rows_of(engine, "lost") if row.rejected is None]
    assert answer == {"accepted": ROWS, "first": told[0], "last": told[-1], "tries": 2}


def test_who_waits_reads_its_own_writes(serving: Server) -> None:
    """The positions are those of the journal; other clients hear of the changes, this one not."""
    changes = [{"type": "create", "file_id": f"f{n}", "from": f"/{n}"} for n in range(3)]
    headers = serving.headers("reader", CLIENT)
    with (
        Reader(serving, "reader", OTHER) as other,
        Reader(serving, "reader", CLIENT) as own,
        engine_of(serving) as engine,
    ):
        other.expect("subscribed")
        own.expect("subscribed")
        for round_ in (1, 2):
            url = serving.events_url + "?wait=20"
            answer = httpx.post(url, json=changes, headers=headers, timeout=30).json()["data"]
            rows = rows_of(engine, "reader")[-3:]
            assert answer == {
                "accepted": 3,
                "first": rows[0].position,
                "last": rows[-1].position,
            }
            assert [row.from_path for row in rows] == ["/0", "/1", "/2"], round_
        assert {row.actor_id for row in rows_of(engine, "reader")} == {"reader"}
        assert {each["from"] for each in other.changes(3)} == {"/0", "/1", "/2"}
        serving.append("create", "/last", user_id="reader")
        assert [each["from"] for each in own.changes(1)] == ["/last"]


# -- bodies on the wire ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one worker on SQLite."""
    folder = tmp_path_factory.mktemp("append")
    with (
        databases.migrated("sqlite", folder) as url,
        Server(url, folder / "gunicorn.log", workers=1).running() as server,
    ):
        yield server


CREATE = b'{"type":"create","file_id":"f","from":"/a"}'
MEGABYTE = 1_000_000


def exchange(server: Server, head: str, body: bytes, *, token: str | None = None) -> int:
    """Send a request whole, then read the status of the answer."""
    lines = [
        f"POST {EVENTS_PATH} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {token or server.token()}",
        "Content-Type: application/x-ndjson",
        head,
    ]
    with server.connect() as connection:
        connection.settimeout(30)
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["msg"] or document["code"] == 0
    return int(answer.split()[1])


def chunked(body: bytes, size: int = 65_536) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (f"Content-Length: {len(CREATE)}", CREATE, 201),
        (CHUNKED, chunked(CREATE, 7), 201),
        ("Content-Length: 20000000", b" " * 20 * MEGABYTE, 413),
        (CHUNKED, chunked(CREATE + b" " * 20 * MEGABYTE), 413),
        # Cut off at the limit, this would be a good body of fewer changes.
        (CHUNKED, chunked((CREATE + b"\n") * 120_000), 413),
        ("Content-Length: 100", CREATE, 400),
        (CHUNKED, chunked(CREATE)[:-5], 400),
        (CHUNKED, b"nonsense\r\n", 400),
        ("X-None: 1", b"", 400),
    ],
    ids=lambda each: str(each)[:30],
)
def test_every_body_gets_its_answer(small: Server, head: str, body: bytes, status: int) -> None:
    """Also one that is refused long before its end: the answer is not lost in a reset."""
    assert exchange(small, head, body) == status


def test_a_token_that_is_refused_is_answered_behind_a_long_body(small: Server) -> None:
    body = b" " * 5 * MEGABYTE
    assert exchange(small, f"Content-Length: {len(body)}", body, token="x.y.z") == 401


def test_curl_that_waits_to_be_asked_for_its_body_is_answered(
    small: Server, tmp_path: Path
) -> None:
    """It sends `Expect: 100-continue` with long bodies."""
    conftest.toolchain("curl")
    for lines, status in ((10_000, "201"), (10_001, "413"), (200_000, "413")):
        file = tmp_path / str(lines)
        file.write_bytes((CREATE + b"\n") * lines)
        done = subprocess.run(
            [
                *("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"),
                *("-H", f"Authorization: Bearer {small.token()}"),
                *("-H", "Content-Type: application/x-ndjson", "--data-binary", f"@{file}"),
                small.events_url,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.stderr) == (status, "")


def test_nothing_of_this_is_a_failure_in_the_log(small: Server) -> None:
    """What clients do wrong is said, and is no traceback."""
    assert exchange(small, CHUNKED, b"nonsense\r\n") == 400
    log = small.log.read_text()
    assert "a request is refused: BadParameter" in log
    assert "Traceback" not in log

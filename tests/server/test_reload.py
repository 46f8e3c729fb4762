"""A reload (SIGHUP) brings what is there now, all of it; and nothing that would not start."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy

from tests.databases import ROOT
from tests.frames import Reader
from tests.key_server import OTHER_RSA, RSA, public_pem, signed_by
from tests.serving import Server, eventually

REFUSED = "not reloaded, the workers go on as they are"
OLD, UPDATED = "old", "updated"


class Program:
    """A copy of the program, its key file, and gunicorn that runs it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.root = folder / "program"
        self.keys = folder / "keys.pem"
        settings = {
            "EVENTS_JWT_ALGORITHM": "RS256",
            "EVENTS_JWT_PUBLIC_KEY_FILE": str(self.keys),
        }
        # With more of them one might still be starting while things are spoilt.
        self.server = Server(url, folder / "gunicorn.log", settings, workers=1, root=self.root)
        shutil.copytree(ROOT / "events_app", self.root / "events_app")
        for name in ("gunicorn.conf.py", "wsgi.py"):
            shutil.copy(ROOT / name, self.root)
        self.keys.write_bytes(public_pem(RSA))
        self.write(OLD)

    def write(self, version: str) -> None:
        """Update it: `/healthz` tells which version of three modules its worker runs."""
        for name in ("errors", "sse", "status"):
            text = (ROOT / "events_app" / f"{name}.py").read_text()
            self.module(name).write_text(f"{text}\nTHIS = {version!r}\n")
        text = self.module("status").read_text()
        alive = 'Well(status="ok")'
        assert alive in text
        text = text.replace(alive, 'Well(status=" ".join([errors.THIS, sse.THIS, THIS]))')
        self.module("status").write_text(f"{text}\nfrom events_app import errors, sse\n")

    def module(self, name: str) -> Path:
        """Say where the source of a module is."""
        return self.root / "events_app" / f"{name}.py"

    def runs(self) -> set[str]:
        """Tell which versions answer."""
        answers = [httpx.get(f"{self.server.url}/healthz") for _ in range(10)]
        return set(" ".join(answer.json()["status"] for answer in answers).split())

    def hang_up(self) -> None:
        """Ask for a reload."""
        assert self.server.process is not None
        self.server.process.send_signal(signal.SIGHUP)

    def reload(self) -> None:
        """Reload, and return when only new workers are there."""
        old = set(self.server.worker_pids())
        self.hang_up()
        eventually(lambda: old.isdisjoint(self.server.worker_pids()), what="only new workers")
        eventually(self.server.is_ready)

    def refusals(self) -> int:
        """Count the reloads that were refused."""
        return self.server.log.read_text().count(REFUSED)


@pytest.fixture
def program(sqlite_url: str, tmp_path: Path) -> Iterator[Program]:
    """Run a copy of the program."""
    program = Program(sqlite_url, tmp_path)
    with program.server.running():
        yield program


def test_a_reload_brings_all_of_the_updated_program(program: Program) -> None:
    assert program.runs() == {OLD}
    program.write(UPDATED)
    for pid in program.server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    eventually(program.server.is_ready)
    assert program.runs() == {OLD}, "a worker that died meanwhile comes back as it was"
    program.reload()
    assert program.runs() == {UPDATED}
    assert program.refusals() == 0


def break_keys(program: Program) -> None:
    program.keys.write_text("no key at all")


def mend_keys(program: Program) -> None:
    program.keys.write_bytes(public_pem(RSA, OTHER_RSA))


def break_code(program: Program) -> None:
    program.module("tailer").write_text("this is no Python")


def mend_code(program: Program) -> None:
    shutil.copy(ROOT / "events_app" / "tailer.py", program.module("tailer"))


def set_schema(program: Program, version: str) -> None:
    engine = sqlalchemy.create_engine(program.server.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        statement = "UPDATE file_event_schema_version SET version_num = :version"
        connection.execute(sqlalchemy.text(statement), {"version": version})


def break_schema(program: Program) -> None:
    set_schema(program, "0001")


def mend_schema(program: Program) -> None:
    set_schema(program, "0003")


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        pytest.param(break_keys, mend_keys, "EVENTS_JWT_PUBLIC_KEY_FILE", id="key file"),
        pytest.param(break_code, mend_code, "SyntaxError", id="code"),
        pytest.param(break_schema, mend_schema, "the tables are of version 0001", id="schema"),
    ],
)
def test_what_would_not_start_is_not_reloaded(
    program: Program,
    spoil: Callable[[Program], None],
    mend: Callable[[Program], None],
    words: str,
) -> None:
    """The streams go on, new ones begin, and the log says what is wrong."""
    token, server = signed_by(RSA), program.server
    before = server.worker_pids()
    with Reader(server, token=token) as reader:
        reader.expect("subscribed")
        spoil(program)
        program.hang_up()
        eventually(lambda: program.refusals() == 1, what="the reload is refused")
        assert words in server.log.read_text()
        assert server.worker_pids() == before
        server.append("create", "/a")
        assert [change["from"] for change in reader.changes(1)] == ["/a"]
        with Reader(server, token=token) as another:
            another.expect("subscribed")
        mend(program)
        program.reload()
        reader.expect("reconnect-required")
    assert program.refusals() == 1

"""A reload (SIGHUP) brings what is there now, all of it; and nothing that would not start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frames import Reader
from tests.key_server import RSA, signed_by
from tests.server.harness_program import CODE, KEYS, OLD, SCHEMA, UPDATED, Damage, Program
from tests.serving import eventually

REFUSED = "not reloaded, the workers go on as they are"


@pytest.fixture
def program(sqlite_url: str, tmp_path: Path) -> Iterator[Program]:
    """Run a copy of the program."""
    # With more of them one might still be starting while things are spoilt.
    program = Program(sqlite_url, tmp_path, workers=1)
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
    assert program.said(REFUSED) == 0


@pytest.mark.parametrize("damage", [KEYS, CODE, SCHEMA], ids=lambda damage: damage.name)
def test_what_would_not_start_is_not_reloaded(program: Program, damage: Damage) -> None:
    """The streams go on, new ones begin, and the log says what is wrong."""
    token, server = signed_by(RSA), program.server
    before = server.worker_pids()
    with Reader(server, token=token) as reader:
        reader.expect("subscribed")
        damage.do(program)
        program.signal(signal.SIGHUP)
        eventually(lambda: program.said(REFUSED) == 1, what="the reload is refused")
        assert program.said(damage.words)
        assert server.worker_pids() == before
        server.append("create", "/a")
        assert [change["from"] for change in reader.changes(1)] == ["/a"]
        with Reader(server, token=token) as another:
            another.expect("subscribed")
        damage.undo(program)
        program.reload()
        reader.expect("reconnect-required")
    assert program.said(REFUSED) == 1

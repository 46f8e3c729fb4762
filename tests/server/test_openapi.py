"""Every door of a running server is held to the document that it serves, by schemathesis."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from events_app import doors
from tests import conftest, databases
from tests.databases import ROOT
from tests.serving import Server

CONFIGURATION = ROOT / "tests/server/schemathesis.toml"

USER, SERVICE = "a user", "a service"
CLAIMS: dict[str, dict[str, Any]] = {
    USER: {},
    SERVICE: {"sub": "importer", "scopes": ["Events.Write"]},
}
# Who asks for a few seconds, and whether each bound of each parameter and key is tried, too.
QUICK: dict[str, dict[str, bool]] = {
    "sqlite": {SERVICE: False},
    "postgresql": {USER: True},
    "mariadb": {USER: False, SERVICE: False},
}
EXAMPLES = 15
PAUSE_SECONDS = 0.2

# `make fuzz`: so many minutes in all, of new examples.
MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
LONG_EXAMPLES = 200

SETTINGS = {
    # A body of one change too many need not be long.
    "EVENTS_APPEND_MAX_ROWS": "20",
    # Of each stream two frames are read.
    "EVENTS_KEEP_ALIVE": "0.05",
    "EVENTS_TOKEN_IN_QUERY": "true",
    "EVENTS_TOKEN_IN_COOKIE": "true",
}


@contextlib.contextmanager
def serving(engine: str, folder: Path) -> Iterator[Server]:
    """Run two workers on a database, which has an opinion of its own on odd texts."""
    conftest.need(engine)
    with (
        databases.migrated(engine, folder) as url,
        Server(url, folder / "gunicorn.log", SETTINGS).running() as server,
    ):
        yield server


@contextlib.contextmanager
def somebody_writes(server: Server) -> Iterator[None]:
    """Let changes come all the time, or requests that wait for one would wait for long."""
    stopped = threading.Event()

    def write() -> None:
        while not stopped.wait(PAUSE_SECONDS):
            server.append("modify", "/docs/plan.md")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def ask(server: Server, who: str, *how: str) -> None:
    """Ask every door for what its document allows and for what it forbids."""
    behalf = {"FUZZ_ON_BEHALF_OF": "42"} if who == SERVICE else {}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIGURATION}", "run"),
            *("--no-color", f"--header=Authorization: Bearer {server.token(**CLAIMS[who])}"),
            *(*how, server.url + doors.DOCUMENT_PATH),
        ],
        cwd=ROOT,
        env=os.environ | behalf,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


def ask_quickly(server: Server, who: str, *, thoroughly: bool) -> None:
    """Ask the same each time."""
    phases = "examples,coverage,fuzzing" if thoroughly else "examples,fuzzing"
    how = ("--generation-deterministic", f"--max-examples={EXAMPLES}", f"--phases={phases}")
    ask(server, who, *how)


def ask_for_long(server: Server, who: str, seconds: float) -> None:
    """Ask something else each time, once at least."""
    until = time.monotonic() + seconds
    for seed in itertools.count(SEED):
        ask(server, who, f"--seed={seed}", f"--max-examples={LONG_EXAMPLES}")
        if time.monotonic() > until:
            return


@pytest.mark.parametrize("engine", databases.ENGINES)
def test_every_door_does_what_the_document_says(tmp_path: Path, engine: str) -> None:
    """Statuses, headers and shapes; what is wrong is refused, and what is right is taken."""
    with serving(engine, tmp_path) as server, somebody_writes(server):
        if MINUTES:
            for who in CLAIMS:
                ask_for_long(server, who, 60 * MINUTES / len(databases.ENGINES) / len(CLAIMS))
        else:
            for who, thoroughly in QUICK[engine].items():
                ask_quickly(server, who, thoroughly=thoroughly)

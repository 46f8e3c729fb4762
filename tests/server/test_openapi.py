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
# Each bound of each parameter and key is tried here; chance is given everywhere.
THOROUGH = ("postgresql", USER)
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


@pytest.fixture(scope="module", params=databases.ENGINES)
def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Run two workers on each engine, which has an opinion of its own on odd texts."""
    conftest.need(request.param)
    folder = tmp_path_factory.mktemp("openapi")
    with (
        databases.migrated(request.param, folder) as url,
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


@pytest.mark.parametrize("who", CLAIMS)
def test_every_door_does_what_the_document_says(
    request: pytest.FixtureRequest, serving: Server, who: str
) -> None:
    """Statuses, headers and shapes; what is wrong is refused, and what is right is taken."""
    engine = request.node.callspec.params["serving"]
    phases = "examples,coverage,fuzzing" if (engine, who) == THOROUGH else "examples,fuzzing"
    with somebody_writes(serving):
        if not MINUTES:
            how = ("--generation-deterministic", f"--max-examples={EXAMPLES}")
            ask(serving, who, f"--phases={phases}", *how)
            return
        until = time.monotonic() + 60 * MINUTES / (len(databases.ENGINES) * len(CLAIMS))
        for seed in itertools.count(SEED):
            ask(serving, who, f"--seed={seed}", f"--max-examples={LONG_EXAMPLES}")
            if time.monotonic() > until:
                return

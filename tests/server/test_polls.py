"""Pages of changes from real gunicorn: by cron with curl and jq, and by clients that wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy

from tests.conftest import toolchain
from tests.databases import ROOT
from tests.frames import Reader
from tests.servers import toolchains
from tests.serving import EVENTS_PATH, Server, eventually

SCRIPT = ROOT / "examples/bash/follow.sh"
TRY_LATER = 75
WAIT_SECONDS = 40

# Writes down what it is called for; fails while a file says so.
HANDLER = """#!/bin/sh
[ ! -e broken ] || exit 3
echo "$1" >>calls
cat >>changes
"""


@pytest.fixture
def server(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    with Server(sqlite_url, tmp_path / "gunicorn.log").running() as running:
        yield running


@pytest.fixture
def single(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    """Serve with one worker, whose numbers are those of the server."""
    with Server(sqlite_url, tmp_path / "gunicorn.log", workers=1).running() as running:
        yield running


def ask(server: Server, **query: Any) -> dict[str, Any]:
    answer = httpx.get(
        f"{server.events_url}/changes",
        params=query,
        headers=server.headers(),
        timeout=WAIT_SECONDS + 20,
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    found: dict[str, Any] = answer.json()["data"]
    return found


class Cron:
    """A machine with the script in its crontab."""

    def __init__(self, server: Server, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._server = server
        handler = folder / "handler"
        handler.write_text(HANDLER)
        handler.chmod(0o755)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it once."""
        known = {
            "FOLLOW_ADDRESS": self._server.url,
            "FOLLOW_TOKEN": self._server.token(),
            "FOLLOW_FOLDER": "cloudreve://my/docs",
        }
        return subprocess.run(
            [SCRIPT, "./handler"],
            cwd=self.folder,
            env=os.environ | {"PATH": toolchains.path()} | known | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().split()

    def heard(self) -> list[str]:
        return [
            json.loads(line)["from"] for line in (self.folder / "changes").read_text().splitlines()
        ]


def test_a_cron_job_follows_a_folder_through_faults(server: Server, tmp_path: Path) -> None:
    for program in ("jq", "curl", "flock"):
        toolchain(program)
    cron = Cron(server, tmp_path / "cron")
    done = cron.run()
    assert (done.returncode, done.stderr, cron.calls()) == (0, "", ["list"])
    for number in range(3):
        server.append("create", f"/docs/{number}")
        server.append("create", f"/elsewhere/{number}")
    eventually(lambda: cron.run().returncode == 0 and len(cron.heard()) == 3)
    server.append("create", "/docs/while the handler is broken")
    (cron.folder / "broken").touch()
    eventually(lambda: cron.run().returncode == 3, what="the handler is asked, and fails")
    (cron.folder / "broken").unlink()
    server.stop(signal.SIGKILL)
    server.append("rename", "/docs/0", "/docs/while the server is away")
    assert cron.run().returncode == TRY_LATER
    server.start()
    eventually(lambda: cron.run().returncode == 0 and len(cron.heard()) == 5)
    assert cron.heard() == ["/0", "/1", "/2", "/while the handler is broken", "/0"]
    (cron.folder / "events.cursor").write_text("garbage\n")
    assert "list again: no cursor of ours" in cron.run().stderr
    assert cron.calls()[-1] == "list"
    refused = cron.run(FOLLOW_TOKEN="garbage")
    assert (refused.returncode, refused.stderr[:8]) == (1, "refused:")


def places_taken(server: Server) -> int:
    text = httpx.get(f"{server.url}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("events_streams{")]
    return int(float(line.split()[-1]))


def transactions(engine: sqlalchemy.Engine) -> int:
    """Count the transactions that others have open."""
    query = sqlalchemy.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    )
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_those_who_wait_hold_no_connection_and_hear_of_a_change_at_once(
    url: str, tmp_path: Path
) -> None:
    server = Server(url, tmp_path / "gunicorn.log", workers=1)
    observer = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with server.running(), ThreadPoolExecutor(20) as threads:
        cursor = ask(server)["cursor"]
        polls = [threads.submit(ask, server, cursor=cursor, wait=WAIT_SECONDS) for _ in range(20)]
        eventually(lambda: places_taken(server) == len(polls))
        eventually(lambda: transactions(observer) == 0)
        assert not any(each.done() for each in polls)
        server.append("create", "/a")
        pages = [each.result(20) for each in polls]
        assert {page["events"][0]["from"] for page in pages} == {"/a"}
        eventually(lambda: places_taken(server) == 0)


def test_a_stop_answers_those_who_wait_with_the_cursor_they_have(single: Server) -> None:
    cursor = ask(single)["cursor"]
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(ask, single, cursor=cursor, wait=WAIT_SECONDS)
        eventually(lambda: places_taken(single) == 1)
        assert single.stop() == 0
        assert waits.result(5) == {"events": [], "cursor": cursor, "more": False}


def test_who_leaves_while_waiting_frees_the_place(single: Server) -> None:
    cursor = ask(single)["cursor"]
    query = f"{EVENTS_PATH}/changes?wait={WAIT_SECONDS}&cursor={cursor}"
    left = single.connect()
    token = single.token()
    left.sendall(
        f"GET {query} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    eventually(lambda: places_taken(single) == 1)
    left.close()
    eventually(lambda: places_taken(single) == 0)


def test_a_client_that_switches_between_pages_and_streams_hears_everything_once(
    server: Server,
) -> None:
    cursor = ask(server)["cursor"]
    heard: list[str] = []
    for number in range(12):
        server.append("create", f"/{number}")
        if number % 3:
            found = ask(server, cursor=cursor, wait=WAIT_SECONDS)
            heard += [each["from"] for each in found["events"]]
            cursor = found["cursor"]
        else:
            with Reader(server, last_event_id=cursor) as reader:
                reader.expect("resumed")
                frame = reader.expect("event")
            heard += [each["from"] for each in frame.changes]
            cursor = frame.id or ""
    assert heard == [f"/{number}" for number in range(12)]

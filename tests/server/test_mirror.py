"""Clients keep real folders like the app's, whatever is done to those, by `make run`'s server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import operator
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.databases import ROOT
from tests.server import mirror_app
from tests.server.make_run import MakeRun
from tests.server.mirror_client import Client
from tests.server.mirror_copy import Mirror
from tests.server.mirror_owner import Owner
from tests.server.mirror_site import Site
from tests.serving import eventually

SETTINGS = {
    "EVENTS_DEBOUNCE": "0.2",
    "EVENTS_DEBOUNCE_MAX": "1",
    "EVENTS_KEEP_ALIVE": "0.5",
    "EVENTS_CONFIRM_SECONDS": "5",
}
# Longer than a run takes to settle and to be told.
QUIET_SECONDS = 0.5
OPERATIONS = 120
CATCH_UP_SECONDS = 20
# Where one fails, hundreds may.
SHOWN_PATHS = 5
HOME = "/desk"
WATCHED = ["/docs", "/docs/plans"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRun]:
    """Run the demo once for all tests of this module; it must end cleanly."""
    made = MakeRun(tmp_path_factory.mktemp("make-run"), SETTINGS)
    try:
        made.start()
        yield made
    finally:
        status = made.stop()
    assert status == 0, made.log.read_text()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", made.port)), "something still listens"
    log = made.log.read_text()
    assert "CRITICAL" not in log
    assert "Traceback" not in log


@pytest.fixture
def site(server: MakeRun, tmp_path: Path) -> Site:
    """Make a tree of its own for each test: who watched another one has left."""
    made = Site(tmp_path / "site", server.database)
    made.make([*WATCHED, HOME])
    return made


@dataclasses.dataclass
class Watch:
    """The clients of one test, each with a mirror below `folder`."""

    server: MakeRun
    site: Site
    folder: Path
    clients: list[Client] = dataclasses.field(default_factory=list)

    def add(self, watched: str, *, slow: bool = False, query: str = "") -> Client:
        """Start a client; return when it has listed what it watches."""
        mirror = Mirror(self.site, watched, self.folder / f"mirror-{len(self.clients)}")
        client = Client(
            self.server,
            self.server.printed_token,
            mirror,
            watched,
            str(uuid.uuid4()),
            slow=slow,
            query=query,
        )
        self.clients.append(client)
        client.start()
        self.until(client.begun.is_set, "a stream begins")
        return client

    def until(self, look: Callable[[], bool], what: str) -> None:
        """Wait until `look` says so, or for a fault, of which `finish` tells."""
        eventually(lambda: look() or any(client.faults for client in self.clients), what=what)

    def wait_until_moved(self) -> None:
        """Wait until every row has its position: who begins earlier is told of it."""
        with self.site.reading() as view:
            last = view.position
        eventually(lambda: self._last_position() == last, what="every row has its position")

    def _last_position(self) -> int:
        with contextlib.closing(sqlite3.connect(self.server.database)) as connection:
            query = "SELECT last_position FROM file_event_state"
            return int(connection.execute(query).fetchone()[0])

    def leave(self) -> None:
        """End every client, however the test ends."""
        for client in self.clients:
            client.leave()
        for client in self.clients:
            client.join(CATCH_UP_SECONDS)

    def finish(self) -> None:
        """Wait until every client was told of everything, and hold its mirror to the tree."""
        with self.site.reading() as view:
            last = view.position
        for client in self.clients:
            client.finish_at(last)
        deadline = time.monotonic() + CATCH_UP_SECONDS
        for client in self.clients:
            client.join(max(0.0, deadline - time.monotonic()))
        wrong = [line for client in self.clients for line in self._wrong(client, last)]
        assert not wrong, "\n".join(wrong)

    def _wrong(self, client: Client, last: int) -> Iterator[str]:
        who = f"{'slow ' * client.slow}client of {client.watched or '/'}"
        yield from (f"{who}: {fault}" for fault in client.faults)
        if client.mirror.position != last:
            yield f"{who}: told up to {client.mirror.position} of {last}"
        for path in client.mirror.differences()[:SHOWN_PATHS]:
            yield f"{who}: {path} differs"
            yield from (f"    row {row}" for row in self._rows_of(client.watched + path))
            yield from (f"    heard at {told}" for told in client.heard if _names(path, told[1]))

    def _rows_of(self, path: str) -> Iterator[str]:
        """Show the rows that name a path or a folder above it."""
        with contextlib.closing(sqlite3.connect(self.server.database)) as connection:
            columns = "position, type, file_id, from_path, to_path, client_id, actor_id"
            query = f"SELECT {columns} FROM file_event_journal ORDER BY position"  # noqa: S608 -- constant
            for row in connection.execute(query):
                if _names(path, {"from": row[3], "to": row[4] or ""}):
                    yield str(row)


def _names(path: str, change: dict[str, str]) -> bool:
    """Say whether a change names `path` or a folder above it."""
    named = [change[end] for end in ("from", "to") if change[end]]
    return any(f"{path}/".startswith(f"{each}/") for each in named)


@pytest.fixture
def watch(server: MakeRun, site: Site, tmp_path: Path) -> Iterator[Watch]:
    """Give an empty watch, whose clients leave with the test."""
    made = Watch(server, site, tmp_path)
    yield made
    made.leave()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_mirror_ends_as_the_tree(watch: Watch, site: Site, seed: int) -> None:
    """Three clients, one of them making changes too, and a slow one."""
    owner = watch.add("")
    watch.add("/docs", query="&payload=object")
    watch.add("/docs/plans")
    slow = watch.add("", slow=True)
    own = Owner(site, owner.mirror, owner.client_id, HOME, seed)
    owner.between_frames = lambda: own.change(WATCHED)
    done = work(watch, seed)
    watch.until(lambda: own.done_elsewhere >= 3 and own.done >= 10, "own changes everywhere")
    watch.until(lambda: len(slow.starts) >= 4, "resumptions of either kind")
    own.stop()
    watch.finish()
    # Without these the equality would prove little.
    assert len(done) >= len(dict(mirror_app.PLANS)) * 0.8, done
    assert set(slow.starts[1:]) == {"resumed"}
    assert all(client.starts == ["subscribed"] for client in watch.clients if client is not slow)
    assert all(client.mirror.strict_steps >= 5 for client in watch.clients)
    assert not [change for _, change in owner.heard if HOME in change["from"] + change["to"]]


def test_a_client_whose_folder_went_starts_afresh(watch: Watch, site: Site) -> None:
    """Deleted, or moved with a folder above it; then another one takes its place."""
    with site.changing() as changes:
        for path in ("/gone", "/above", "/above/moved"):
            changes.create(path, None)
        changes.create("/gone/old.txt", "1")
        changes.create("/above/moved/old.txt", "1")
    watch.wait_until_moved()
    whole = watch.add("")
    ending = [watch.add("/gone"), watch.add("/above/moved")]
    with site.changing() as changes:
        changes.modify("/gone/old.txt", "2")
        changes.modify("/above/moved/old.txt", "2")
        changes.delete("/gone")
        changes.rename("/above", "/elsewhere")
        for path in ("/gone", "/above", "/above/moved"):
            changes.create(path, None)
        changes.create("/gone/new.txt", "1")
        changes.create("/above/moved/new.txt", "1")
    afresh = ["subscribed", "reconnect-required", "subscribed"]
    for client in ending:
        watch.until(partial(operator.eq, client.starts, afresh), "it starts afresh")
        assert [(change["type"], change["from"]) for _, change in client.heard] == [
            ("modify", "/old.txt")
        ]
    with site.changing() as changes:
        changes.modify("/gone/new.txt", "2")
        changes.rename("/above/moved/new.txt", "/above/moved/newer.txt")
    watch.finish()
    assert whole.starts == ["subscribed"]
    assert [client.starts for client in ending] == [afresh, afresh]
    assert [len(client.heard) for client in ending] == [2, 2]


def work(watch: Watch, seed: int) -> dict[str, int]:
    """Let the app do its random operations; return how many of each."""
    orders = mirror_app.Orders(
        folder=str(watch.site.folder),
        database=str(watch.site.database),
        seed=seed,
        operations=OPERATIONS,
        fixed=WATCHED,
        foreign=[HOME],
        client_ids=[client.client_id for client in watch.clients],
        quiet_seconds=QUIET_SECONDS,
    )
    program = subprocess.run(
        [sys.executable, "-m", "tests.server.mirror_app", json.dumps(dataclasses.asdict(orders))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    done: dict[str, int] = json.loads(program.stdout)
    return done

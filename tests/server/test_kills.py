"""Killed, stopped and frozen processes, under steady writes: after each, everybody has everything.

All of it happens once for each engine, one fault after the other; the tests look at what it left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy

from events_app import schema
from events_app.database import IDLE_IN_TRANSACTION_SECONDS
from events_app.delivery import TICK_SECONDS
from tests import conftest, databases
from tests.frames import Reader
from tests.server import harness, harness_kills
from tests.server.harness import Load
from tests.server.harness_client import Client, JournalRow
from tests.server.harness_kills import Processes, Returning, Sessions
from tests.server.harness_writer import Outcome
from tests.serving import Server, child_pids, eventually

QUIET_USER = "quiet"
# How long a real client bears it to hear nothing.
PATIENCE_SECONDS = 3.0
# Longer than it takes to freeze a worker after a frame of its own, on a disk that others use too.
CONFIRM_SECONDS = 12.0
DRAIN_SECONDS = 0.5
# What gunicorn gives the last requests of a worker that stops, beyond the drain.
GRACE_SECONDS = 5.0
# gunicorn asks a worker that is still there a second time, after the grace.
RELOAD_SECONDS = 40.0
# Between two looks at everybody, at the least.
LEAST_ROWS = 30
MOST_WITNESSES = 50
# For two shared cores: to see what is the case, and for a worker to look whether it is to end.
MARGIN_SECONDS = 3.0


class Check(NamedTuple):
    """What had become of everybody after a fault: claims that do not fit, and streams cut off."""

    wrong: dict[str, list[str]]
    faults: dict[str, list[str]]
    broken_off: dict[str, int]
    connections: dict[str, int]


@dataclasses.dataclass
class Frozen:
    """What happened while a worker was frozen in the middle of a step, and afterwards."""

    moves_on_seconds: float
    unread_position: int
    before: dict[str, Any]
    after: dict[str, Any]
    told_again: list[str]


@dataclasses.dataclass
class Story:
    """What happened, to be judged."""

    engine: str
    checks: dict[str, Check] = dataclasses.field(default_factory=dict)
    left_seconds: float | None = None
    orphans_seconds: float = -1.0
    frozen: Frozen | None = None
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    journal: list[JournalRow] = dataclasses.field(default_factory=list)
    clients: dict[str, Client] = dataclasses.field(default_factory=dict)
    log: str = ""

    def broken_off_by(self, fault: str) -> dict[str, int]:
        """Count the streams that a fault ended without a word, for each client that lost any."""
        names = list(self.checks)
        before = self.checks[names[names.index(fault) - 1]].broken_off
        after = self.checks[fault].broken_off
        return {name: after[name] - before[name] for name in after if after[name] > before[name]}

    def by_writer(self, number: int) -> list[tuple[str, str]]:
        """List the (type, file id) of a writer's rows, by position."""
        prefix = f"w{number}-"
        return [(row.type, row.file_id) for row in self.journal if row.file_id.startswith(prefix)]


class Witness(NamedTuple):
    """A client of the quiet user's, and where it began."""

    reader: Reader
    client_id: str
    begun: str


class Place:
    """The server, its database and everybody who watches."""

    def __init__(self, url: str, folder: Path, load: Load) -> None:
        settings = {
            "EVENTS_DEBOUNCE": "0.2",
            "EVENTS_DEBOUNCE_MAX": "0.8",
            "EVENTS_KEEP_ALIVE": "0.5",
            "EVENTS_DRAIN": str(DRAIN_SECONDS),
            "EVENTS_CONFIRM_SECONDS": str(CONFIRM_SECONDS),
            "EVENTS_LOG_FORMAT": "json",
        }
        self.server = Server(url, folder / "gunicorn.log", settings)
        self.engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        self.sessions = None if load.engine == "sqlite" else Sessions(load.engine, self.engine)
        self.story = Story(load.engine)
        self.load = load
        self.clients = _clients(self.server)
        self._checked = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The master."""
        assert self.server.process is not None
        return self.server.process

    def begin(self) -> None:
        """Let everybody watch."""
        harness.make_app_table(self.engine, self.load.engine)
        for client in self.clients.values():
            client.start()
        for client in self.clients.values():
            assert client.begun.wait(20), "no stream began"

    def check(self, fault: str) -> None:
        """Wait until everybody has what was committed so far, and hold it against the journal."""
        least = self._checked + LEAST_ROWS
        eventually(lambda: self.last_position() >= least, what="the writers write")
        self.server.append("create", f"/after {fault}", user_id=harness.USERS[0])
        self._checked = eventually(lambda: self._position_of(f"/after {fault}"), what="it is moved")
        eventually(self._have_everything, harness.CATCH_UP_SECONDS, f"all catch up after {fault}")
        journal = harness.journal_of(self.engine)
        each = self.clients.items()
        self.story.checks[fault] = Check(
            wrong={name: client.wrong_claims(journal) for name, client in each},
            faults={name: list(client.faults) for name, client in each},
            broken_off={name: client.broken_off for name, client in each},
            connections={name: client.connections for name, client in each},
        )

    def _have_everything(self) -> bool:
        return all(
            client.position >= self._checked or client.faults for client in self.clients.values()
        )

    def _position_of(self, path: str) -> int | None:
        query = "SELECT position FROM file_event_journal WHERE from_path = :path"
        with self.engine.connect() as connection:
            found = connection.scalar(sqlalchemy.text(query), {"path": path})
        return None if found is None else int(found)

    def position_of(self, path: str) -> int:
        """Return the position of a change, once it has one."""
        return eventually(lambda: self._position_of(path), what=f"{path} is moved")

    def last_position(self) -> int:
        """Return how far the journal goes."""
        query = "SELECT last_position FROM file_event_state"
        with self.engine.connect() as connection:
            return int(connection.scalar(sqlalchemy.text(query)) or 0)

    def stored(self, witness: Witness) -> Any:
        """Return the subscription of a client, as it is stored."""
        query = "SELECT * FROM file_event_subscription WHERE client_id = :client_id"
        values = {"client_id": witness.client_id}
        with self.engine.connect() as connection:
            return connection.execute(sqlalchemy.text(query), values).one()

    def ends_of(self, witness: Witness) -> int:
        """Count the streams of a client whose end is in the log."""
        lines = self.server.log.read_text().splitlines()
        said = [json.loads(line) for line in lines if line.startswith("{")]
        ends = [line for line in said if line["message"] == "a stream ends"]
        return sum(line.get("client_id") == witness.client_id for line in ends)


def _clients(server: Server) -> dict[str, Returning]:
    """Make every kind of client that comes back; their own changes are among the writers'."""
    first, second, third, fourth = (str(uuid.UUID(int=number)) for number in range(1, 5))
    user, other = harness.USERS

    def make(user: str, folder: str = "", **others: Any) -> Returning:
        patience = PATIENCE_SECONDS
        return Returning([server], user, folder=folder, patience_seconds=patience, **others)

    return {
        "by event id": make(user),
        "by event id, with an id": make(user, client_id=first),
        "remembered": make(user, client_id=second, by_event_id=False),
        "remembered in a folder": make(user, "/b", client_id=second, by_event_id=False),
        "another user": make(other, client_id=third, by_event_id=False),
        "another user in a folder": make(other, "/Übersicht 1"),
        "leaving": make(user, client_id=fourth, by_event_id=False, stay_seconds=1.0),
    }


_SERVER_LOAD = Load("postgresql", writers=2, seconds=150.0, held_seconds=0.3)
LOADS = [
    _SERVER_LOAD,
    dataclasses.replace(_SERVER_LOAD, engine="mariadb"),
    dataclasses.replace(_SERVER_LOAD, engine="sqlite", held_seconds=0.1),
]


@pytest.fixture(scope="module", params=LOADS, ids=lambda load: load.engine)
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """Let it happen on each engine."""
    load: Load = request.param
    conftest.need(load.engine)
    conftest.toolchain("ss")
    folder = tmp_path_factory.mktemp("kills")
    with databases.migrated(load.engine, folder) as url:
        place = Place(url, folder, load)
        with place.server.running():
            yield happen(place)


def happen(place: Place) -> Story:
    """Let one fault after the other happen while the writers write."""
    place.begin()
    ids = sorted({client.client_id for client in place.clients.values() if client.client_id})
    with harness.writing(place.server.database_url, place.load, ids) as writers:
        place.check("nothing yet")
        for fault in FAULTS:
            fault(place)
            place.check(fault.__name__)
        if place.sessions is not None:
            place.story.frozen = freeze(place, place.sessions)
            place.check(freeze.__name__)
        for writer in writers:
            writer.terminate()
        place.story.outcomes = harness.outcomes_of(writers, place.load)
    clients = list(place.clients.values())
    harness.finish(place.engine, clients)
    place.story.clients = dict(place.clients)
    place.story.journal = harness.journal_of(place.engine)
    place.story.log = place.server.log.read_text()
    return place.story


# -- the faults --------------------------------------------------------------------------------


def kill_a_worker(place: Place) -> None:
    """Kill one, where a server keeps the lock in the very middle of a step."""
    if place.sessions is None:
        os.kill(place.server.worker_pids()[0], signal.SIGKILL)
        return
    with place.sessions.stopped_in_a_step() as step:
        os.kill(step.worker, signal.SIGKILL)
        killed_at = time.monotonic()
        sessions = place.sessions
        eventually(lambda: not step.ports & sessions.open(), what="its sessions are gone")
        place.story.left_seconds = time.monotonic() - killed_at
    eventually(lambda: step.worker not in place.server.worker_pids(), what="the master sees it")
    eventually(lambda: len(place.server.worker_pids()) == place.server.workers)


def kill_the_master(place: Place) -> None:
    """Kill it, and start another one at once, beside the workers that it left."""
    orphans = Processes(place.server.worker_pids())
    place.process.kill()
    place.process.wait()
    killed_at = time.monotonic()
    place.server.start(ready=False)
    eventually(orphans.are_gone, what="the orphans end")
    place.story.orphans_seconds = time.monotonic() - killed_at
    eventually(place.server.is_ready)


def kill_everybody(place: Place) -> None:
    """Kill master and workers in the same moment, as the end of a container may do."""
    everybody = Processes([place.process.pid, *place.server.worker_pids()])
    everybody.signal(signal.SIGKILL)
    place.process.wait()
    place.server.start()


def reload(place: Place) -> None:
    """Replace the workers."""
    old = set(place.server.worker_pids())
    place.process.send_signal(signal.SIGHUP)
    eventually(
        lambda: old.isdisjoint(child_pids(place.process.pid)), RELOAD_SECONDS, "only new workers"
    )
    eventually(place.server.is_ready)


def restart(place: Place) -> None:
    """Stop in the planned way, and start again."""
    assert place.server.stop() == 0
    place.server.start()


FAULTS: list[Callable[[Place], None]] = [
    kill_a_worker,
    kill_the_master,
    kill_everybody,
    reload,
    restart,
]


def freeze(place: Place, sessions: Sessions) -> Frozen:
    """Stop a worker in the middle of a step for longer than silence counts as proof.

    Meanwhile one of its clients dies with a frame that it never read, and another one comes back
    by way of the other worker.
    """
    with contextlib.ExitStack() as stack:
        witnesses = witnesses_on_both_workers(place, stack)
        place.server.append("create", "/unread", user_id=QUIET_USER)
        for each in witnesses:
            eventually(partial(has_arrived, each.reader, b"/unread"), what="the frame arrives")
        with sessions.stopped_in_a_step() as step:
            stopped_at, last = time.monotonic(), place.last_position()
            dead, returned, third = by_worker(witnesses, place.server)[step.worker][:3]
            dead.reader.connection.close()
            eventually(lambda: place.last_position() > last, what="the other one moves")
            moves_on_seconds = time.monotonic() - stopped_at
            come_back(place, returned)
            before = {"dead": place.stored(dead), "returned": place.stored(returned)}
            place.check("still frozen")
            proven_at = stopped_at + CONFIRM_SECONDS + TICK_SECONDS
            eventually(lambda: time.monotonic() > proven_at, what="silence would be proof")
        eventually(lambda: place.ends_of(dead) == 1, what="it sees who is gone")
        returned.reader.connection.close()
        eventually(lambda: place.ends_of(returned) == 2, what="it sees who has left")
        # What it has to store of the others is stored by then, or before.
        third.reader.connection.close()
        eventually(lambda: place.stored(third).sent_position is not None)
        after = {"dead": place.stored(dead), "returned": place.stored(returned)}
    return Frozen(
        moves_on_seconds,
        place.position_of("/unread"),
        before,
        after,
        told_again(place, dead),
    )


def witnesses_on_both_workers(place: Place, stack: contextlib.ExitStack) -> list[Witness]:
    """Open streams of the quiet user until each worker has three."""
    found: list[Witness] = []
    while len(found) < MOST_WITNESSES:
        client_id = str(uuid.uuid4())
        reader = stack.enter_context(Reader(place.server, QUIET_USER, client_id))
        begun = reader.expect("subscribed").id
        assert begun is not None
        found.append(Witness(reader, client_id, begun))
        shared = by_worker(found, place.server)
        if len(shared) == 2 and all(len(each) >= 3 for each in shared.values()):
            break
    for each in found:
        eventually(lambda each=each: place.stored(each).state == schema.LIVE)  # type: ignore[misc] # its own default
    return found


def by_worker(witnesses: list[Witness], server: Server) -> dict[int, list[Witness]]:
    """Sort streams by the worker that serves them."""
    workers = harness_kills.owners()
    found: dict[int, list[Witness]] = {}
    for each in witnesses:
        port = each.reader.connection.getsockname()[1]
        found.setdefault(workers[server.port, port], []).append(each)
    return found


def has_arrived(reader: Reader, words: bytes) -> bool:
    """Tell whether the kernel has these words for a reader who has not asked for them."""
    reader.connection.settimeout(5)
    return words in reader.connection.recv(65536, socket.MSG_PEEK)


def come_back(place: Place, witness: Witness) -> None:
    """Set the cursor back to where it was, hear what there is, and leave."""
    with Reader(place.server, QUIET_USER, witness.client_id, last_event_id=witness.begun) as reader:
        reader.expect("resumed")
        assert [change["from"] for change in reader.changes(1)] == ["/unread"]
    eventually(lambda: place.stored(witness).sent_position is not None, what="its end is stored")


def told_again(place: Place, witness: Witness) -> list[str]:
    """Come back by the stored cursor; list what is told before there is nothing more."""
    told: list[str] = []
    with Reader(place.server, QUIET_USER, witness.client_id) as reader:
        told.append(reader.expect("resumed", "subscribed").name)
        while (frame := reader.frame()) is not None and frame.name == "event":
            told += [change["from"] for change in frame.changes]
    return told


# -- what is left of it ------------------------------------------------------------------------


def test_the_story_was_what_it_claims_to_be(story: Story) -> None:
    """Without writes, and streams that were cut off, the other tests prove nothing."""
    assert all(outcome.rolled_back for outcome in story.outcomes)
    names = ["nothing yet", *(fault.__name__ for fault in FAULTS)]
    counts = [sum(story.checks[name].connections.values()) for name in names]
    # The first worker that is killed may have had no stream: all may have come to the other one.
    assert counts == sorted(counts), counts
    assert len(set(counts)) >= len(counts) - 1, "each of these costs somebody a connection"
    assert story.broken_off_by("kill_everybody").keys() >= story.clients.keys() - {"leaving"}


def test_after_each_fault_every_client_was_told_of_every_change(story: Story) -> None:
    """Of every one of its user's in its folder that is not its own, and of nothing else."""
    for fault, check in story.checks.items():
        for name in check.wrong:
            assert check.faults[name] == [], (fault, name)
            assert check.wrong[name] == [], (fault, name)


def test_at_the_end_every_client_has_everything(story: Story) -> None:
    for name, client in story.clients.items():
        assert client.faults == [], name
        assert client.position == len(story.journal), name
        assert client.wrong_claims(story.journal) == [], name


def test_the_journal_holds_exactly_what_was_committed_each_writers_in_its_order(
    story: Story,
) -> None:
    """However many moved at once: masters that were killed leave workers beside the new ones."""
    for number, outcome in enumerate(story.outcomes):
        assert story.by_writer(number) == outcome.committed
    assert [row.position for row in story.journal] == list(range(1, len(story.journal) + 1))


def test_the_workers_of_a_killed_master_end_in_time(story: Story) -> None:
    assert 0 < story.orphans_seconds < DRAIN_SECONDS + GRACE_SECONDS + MARGIN_SECONDS


def test_planned_ends_are_told_to_every_client(story: Story) -> None:
    """Also those of workers whose master was killed."""
    for fault in ("kill_the_master", "reload", "restart"):
        assert story.broken_off_by(fault) == {}, fault


def test_a_killed_worker_leaves_no_session_at_the_database(story: Story) -> None:
    """And so no lock: it was killed in the middle of a step."""
    if story.engine != "sqlite":
        assert story.left_seconds is not None
        assert story.left_seconds < MARGIN_SECONDS


def test_a_worker_that_is_frozen_in_a_step_holds_the_others_up_no_longer_than_it_may(
    story: Story,
) -> None:
    """A second less: what the database counts is not what we see."""
    least = IDLE_IN_TRANSACTION_SECONDS - 1
    for frozen in frozen_on_a_server(story):
        assert least < frozen.moves_on_seconds < IDLE_IN_TRANSACTION_SECONDS + MARGIN_SECONDS


def test_what_a_frozen_worker_wrote_to_a_client_that_died_is_told_again(story: Story) -> None:
    """Else it would take the frame for delivered, going by the time and not by the client."""
    for frozen in frozen_on_a_server(story):
        assert frozen.before["dead"].position < frozen.unread_position
        assert frozen.after["dead"].position < frozen.unread_position
        assert frozen.told_again == ["resumed", "/unread"]


def test_a_revived_worker_moves_no_cursor_of_who_came_back_meanwhile(story: Story) -> None:
    for frozen in frozen_on_a_server(story):
        before, after = frozen.before["returned"], frozen.after["returned"]
        assert before.generation == 2
        assert before.position < frozen.unread_position
        assert after == before


def frozen_on_a_server(story: Story) -> list[Frozen]:
    """List what happened to a frozen worker: SQLite has no server that would take its lock away."""
    assert (story.frozen is None) == (story.engine == "sqlite")
    return [] if story.frozen is None else [story.frozen]


def test_nothing_was_called_broken(story: Story) -> None:
    assert "CRITICAL" not in story.log
    assert "Traceback" not in story.log

"""Clients that stop reading, that come back fifty times a second, that share one id; and the rest.

Everything happens once for each engine, under steady writes; the tests look at what it left.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from events_app import outbox, schema
from tests import conftest, databases
from tests.frames import Reader
from tests.server import harness
from tests.server.harness import Load
from tests.server.harness_client import Client, JournalRow
from tests.server.harness_traveller import Traveller
from tests.serving import Server, eventually

STORMY, SLUGGISH = harness.USERS
PING_USER = "ping"
SEND_TIMEOUT_SECONDS = 3.0
MOST_SUBSCRIPTIONS = 12
# What a stalled stream may hold of the kernel's memory; its buffer is 16 KiB, which Linux doubles.
MOST_HELD_BYTES = 64 * 1024
SLEEPERS = 4
FLOOD_ROWS, FLOOD_NAME = 400, "n" * 1_000
STORM_THREADS, STORM_CONNECTS, STORM_PER_SECOND = 5, 250, 50
# Half of the send timeout: whoever waits for a stalled reader waits longer.
LATEST_SECONDS = SEND_TIMEOUT_SECONDS / 2


class Storm:
    """Connects again and again; every second time as a client that nobody has seen before."""

    def __init__(self, server: Server) -> None:
        self.faults: list[str] = []
        self.begun: list[str] = []
        self._server = server
        self._one_id = str(uuid.uuid4())
        self._threads = [threading.Thread(target=self._blow) for _ in range(STORM_THREADS)]
        self._never = threading.Event()

    def start(self) -> None:
        """Let it blow."""
        for thread in self._threads:
            thread.start()

    def is_over(self) -> bool:
        """Tell whether it has calmed down."""
        return not any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait for its end."""
        for thread in self._threads:
            thread.join()

    def _blow(self) -> None:
        for number in range(STORM_CONNECTS // STORM_THREADS):
            due_at = time.monotonic() + STORM_THREADS / STORM_PER_SECOND
            client_id = str(uuid.uuid4()) if number % 2 else self._one_id
            try:
                with Reader(self._server, STORMY, client_id) as reader:
                    self.begun.append(reader.expect("subscribed", "resumed").name)
            except (OSError, EOFError, AssertionError) as error:
                self.faults.append(repr(error))
            self._never.wait(max(0.0, due_at - time.monotonic()))


@dataclass
class Held:
    """What streams with these peers hold of the kernel's memory, and since when they do not."""

    server: Server
    ports: list[int] = field(default_factory=list)
    most_bytes: int = 0

    def dial(self, address: tuple[str, int], seconds: float) -> socket.socket:
        """Connect with little room to receive."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(seconds)
        connection.connect(address)
        self.ports.append(connection.getsockname()[1])
        return connection

    def look(self) -> int:
        """Count those that are still served; remember what the largest of them holds."""
        shown = subprocess.run(
            ["ss", "-HOtnm", "state", "established", "sport", "=", f":{self.server.port}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        lines = [line for line in shown.splitlines() if self._is_of_ours(line)]
        for line in lines:
            (held,) = re.findall(r"skmem:\(.*?,w(\d+)", line)
            self.most_bytes = max(self.most_bytes, int(held))
        return len(lines)

    def _is_of_ours(self, line: str) -> bool:
        return int(line.split()[3].rpartition(":")[2]) in self.ports[:SLEEPERS]


@dataclass
class Story:
    """What happened, to be judged. Times in seconds."""

    journal: list[JournalRow]
    clients: dict[str, Client]
    storm: Storm
    most_bytes: int
    first_drop: float
    last_drop: float
    latencies: list[float]
    most_subscriptions: int
    subscriptions_afterwards: int
    ends: int


class Place:
    """The server, its database and those who are there all the time."""

    def __init__(self, url: str, folder: Path) -> None:
        settings = {
            "EVENTS_SEND_TIMEOUT": str(SEND_TIMEOUT_SECONDS),
            "EVENTS_CONFIRM_SECONDS": "60",
            "EVENTS_MAX_SUBSCRIPTIONS_PER_USER": str(MOST_SUBSCRIPTIONS),
            "EVENTS_LOG_FORMAT": "json",
        }
        self.server = Server(url, folder / "gunicorn.log", settings)
        self.engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        self.held = Held(self.server)
        narrow = self.server.seen_by(self.held.dial)
        twins = str(uuid.uuid4())
        self.laptop = self._traveller(self.server, STORMY)
        self.sleepers = [self._traveller(narrow, SLUGGISH) for _ in range(SLEEPERS)]
        self.clients: dict[str, Client] = {
            "steady": Client([self.server], STORMY),
            "steady too": Client([self.server], SLUGGISH),
            "a twin": Client([self.server], STORMY, client_id=twins),
            "the other twin": Client([self.server], STORMY, client_id=twins, stay_seconds=1.0),
            "laptop": self.laptop,
            **{f"sleeper {number}": each for number, each in enumerate(self.sleepers)},
        }

    def _traveller(self, server: Server, user: str) -> Traveller:
        return Traveller(
            [server], user, client_id=str(uuid.uuid4()), by_event_id=False, patience_seconds=5.0
        )

    def begin(self) -> None:
        """Start everybody; the laptop has been here twice, and is asleep."""
        for client in self.clients.values():
            client.start()
        for client in self.clients.values():
            assert client.begun.wait(20), "no stream began"
        self.put_laptop_to_sleep()
        self.laptop.come_back()
        eventually(lambda: self.laptop.connections == 2)
        self.put_laptop_to_sleep()

    def put_laptop_to_sleep(self) -> None:
        """Let it leave once it is known to have heard where it starts."""
        eventually(self.laptop_is_known)
        self.laptop.leave()
        assert self.laptop.away.wait(20)

    def laptop_is_known(self) -> bool:
        """Tell whether its `subscribed` counts as heard."""
        query = "SELECT state FROM file_event_subscription WHERE client_id = :client_id"
        return bool(self._scalar(query, client_id=self.laptop.client_id) == schema.LIVE)

    def subscriptions(self) -> int:
        """Count those of the user whose clients are a storm."""
        query = "SELECT COUNT(*) FROM file_event_subscription WHERE user_id = :user"
        return int(self._scalar(query, user=STORMY))

    def flood(self) -> None:
        """Commit more in one transaction than the buffers between us and a reader take."""
        with self.engine.begin() as connection:
            for number in range(FLOOD_ROWS):
                path = f"/{FLOOD_NAME}/{number}"
                outbox.append(connection, SLUGGISH, "create", f"flood{number}", path)

    def ends(self) -> int:
        """Count the ends of the sleepers' streams.

        The kernel's time and ours are the same, so either may be what ends them.
        """
        ids = {sleeper.client_id for sleeper in self.sleepers}
        said = [json.loads(line) for line in self.server.log.read_text().splitlines()]
        ends = [line for line in said if line["message"] == "a stream ends"]
        return sum(line.get("client_id") in ids for line in ends)

    def _scalar(self, query: str, **values: Any) -> Any:
        with self.engine.connect() as connection:
            return connection.scalar(sqlalchemy.text(query), values)


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """Let it happen on each engine."""
    conftest.need(request.param)
    conftest.toolchain("ss")
    folder = tmp_path_factory.mktemp("rude")
    with databases.migrated(request.param, folder) as url:
        place = Place(url, folder)
        with place.server.running():
            yield happen(place, Load(request.param, writers=3, seconds=9.0, held_seconds=0.3))


def happen(place: Place, load: Load) -> Story:
    """Let readers fall asleep, then a storm come; measure how the others fare."""
    harness.make_app_table(place.engine, load.engine)
    place.begin()
    storm = Storm(place.server)
    drops: list[float] = []
    latencies: list[float] = []
    most_subscriptions = 0
    with (
        harness.writing(place.server.database_url, load, [str(uuid.uuid4())]) as programs,
        Reader(place.server, PING_USER) as pinged,
    ):
        pinged.expect("subscribed")
        for sleeper in place.sleepers:
            sleeper.stop_reading()
        for sleeper in place.sleepers:
            assert sleeper.away.wait(20)
        flooded_at = time.monotonic()
        place.flood()
        storm.start()
        for number in itertools.count():
            latencies.append(ping(place.server, pinged, number))
            most_subscriptions = max(most_subscriptions, place.subscriptions())
            gone = SLEEPERS - place.held.look()
            drops += [time.monotonic() - flooded_at] * (gone - len(drops))
            if storm.is_over() and gone == SLEEPERS:
                break
            assert time.monotonic() < flooded_at + 30, "the sleepers are never dropped"
        storm.join()
        ends = place.ends()
        for traveller in (*place.sleepers, place.laptop):
            traveller.come_back()
        harness.outcomes_of(programs, load)
    with Reader(place.server, STORMY, str(uuid.uuid4())) as last:
        last.expect("subscribed")
    afterwards = place.subscriptions()
    harness.finish(place.engine, list(place.clients.values()))
    return Story(
        journal=harness.journal_of(place.engine),
        clients=place.clients,
        storm=storm,
        most_bytes=place.held.most_bytes,
        first_drop=drops[0],
        last_drop=drops[-1],
        latencies=latencies,
        most_subscriptions=most_subscriptions,
        subscriptions_afterwards=afterwards,
        ends=ends,
    )


def ping(server: Server, reader: Reader, number: int) -> float:
    """Commit a change; return how long it takes to reach its reader."""
    committed_at = time.monotonic()
    server.append("create", f"/{number}", user_id=PING_USER)
    assert [change["from"] for change in reader.changes(1)] == [f"/{number}"]
    return time.monotonic() - committed_at


def test_the_story_was_what_it_claims_to_be(story: Story) -> None:
    """Without a storm and full buffers the other tests prove nothing."""
    assert len(story.journal) > 300
    assert len(story.storm.begun) == STORM_CONNECTS
    assert set(story.storm.begun) == {"subscribed", "resumed"}
    assert story.most_bytes > 8 * 1024
    assert story.clients["laptop"].connections == 3
    assert len(story.latencies) > 10


def test_a_reader_that_takes_nothing_is_dropped_in_time_and_not_before(story: Story) -> None:
    assert story.first_drop >= SEND_TIMEOUT_SECONDS
    assert story.last_drop < 2 * SEND_TIMEOUT_SECONDS + 1
    assert story.ends == SLEEPERS


def test_a_reader_that_takes_nothing_is_held_little_for(story: Story) -> None:
    assert story.most_bytes < MOST_HELD_BYTES


def test_nobody_else_waits(story: Story) -> None:
    assert max(story.latencies) < LATEST_SECONDS


def test_nobody_is_refused_in_a_storm(story: Story) -> None:
    assert story.storm.faults == []


def test_a_storm_of_new_clients_does_not_fill_the_table(story: Story) -> None:
    """Connects that run at once each make room for themselves; the next one makes up for them."""
    assert story.most_subscriptions <= MOST_SUBSCRIPTIONS + STORM_THREADS
    assert story.subscriptions_afterwards <= MOST_SUBSCRIPTIONS


def test_every_client_was_told_of_every_change(story: Story) -> None:
    """The laptop that slept through the storm was remembered: it resumes, as all others do."""
    for name, client in story.clients.items():
        assert client.faults == [], name
        assert client.position == len(story.journal), name
        assert client.wrong_claims(story.journal) == [], name

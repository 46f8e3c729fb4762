"""A wall clock that is set back and forth while the server runs.

With SQLite the database reads the same clock; other databases have one of their own, which stays
right. Everything happens once for each engine, under steady writes.
"""

from __future__ import annotations

import email.utils
import functools
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import sqlalchemy

from events_app import schema
from tests import conftest, databases
from tests.frames import Reader
from tests.server import harness
from tests.server.harness import Load
from tests.server.harness_client import Client, JournalRow
from tests.server.harness_wall_clock import WallClock
from tests.serving import Server, eventually

DEBOUNCE_SECONDS, DEBOUNCE_MAX_SECONDS = 0.3, 1.0
# How wrong the clock is, one after the other. Tokens are good for an hour.
WRONG_BY_SECONDS = (1_800, -1_800, 1_800, 0)
PING_USER = "ping"
# What goes by a clock that is wrong waits for half an hour; what does not, so long at most, also
# behind the others who write into SQLite.
LATEST_SECONDS = DEBOUNCE_MAX_SECONDS + 4


@dataclass
class Story:
    """What happened, to be judged: `latencies` (seconds) are from a commit to its reader."""

    engine: str
    journal: list[JournalRow]
    clients: dict[str, Client]
    latencies: list[float]
    recorded_over_seconds: float
    log: str


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """Let it happen on an engine that has the clock of the worker, and on one that has not."""
    conftest.need(request.param)
    folder = tmp_path_factory.mktemp("clock")
    settings = {
        "EVENTS_DEBOUNCE": str(DEBOUNCE_SECONDS),
        "EVENTS_DEBOUNCE_MAX": str(DEBOUNCE_MAX_SECONDS),
        "EVENTS_CONFIRM_SECONDS": "1",
    }
    with databases.migrated(request.param, folder) as url:
        clock = WallClock(folder)
        server = Server(url, folder / "gunicorn.log", settings)
        server.environment |= clock.environment
        with server.running():
            yield happen(
                server, clock, Load(request.param, writers=2, seconds=4.0, held_seconds=0.2)
            )


def happen(server: Server, clock: WallClock, load: Load) -> Story:
    """Set the clock again and again; measure how long changes take."""
    engine = sqlalchemy.create_engine(server.database_url, poolclass=sqlalchemy.NullPool)
    harness.make_app_table(engine, load.engine)
    user = harness.USERS[0]
    clients = {
        "steady": Client([server], user),
        "by event id": Client([server], user, stay_seconds=0.5),
        "remembered": Client(
            [server], user, client_id=str(uuid.uuid4()), by_event_id=False, stay_seconds=0.5
        ),
    }
    for client in clients.values():
        client.start()
    for client in clients.values():
        assert client.begun.wait(20), "no stream began"
    latencies = []
    with (
        harness.writing(server.database_url, load, [str(uuid.uuid4())]) as programs,
        Reader(server, PING_USER) as pinged,
    ):
        pinged.expect("subscribed")
        for number, wrong_by in enumerate(WRONG_BY_SECONDS):
            clock.be_wrong_by(wrong_by)
            eventually(functools.partial(is_wrong_by, server, wrong_by), what="the clock is wrong")
            latencies.append(ping(server, pinged, f"/{number}"))
        harness.outcomes_of(programs, load)
    harness.finish(engine, list(clients.values()))
    with engine.connect() as connection:
        times = list(connection.scalars(sqlalchemy.select(schema.journal.c.recorded_at)))
    return Story(
        engine=load.engine,
        journal=harness.journal_of(engine),
        clients=clients,
        latencies=latencies,
        recorded_over_seconds=(max(times) - min(times)).total_seconds(),
        log=server.log.read_text(),
    )


def is_wrong_by(server: Server, seconds: int) -> bool:
    """Ask one of the workers what time it is; a hundred seconds more or less do not matter."""
    date = httpx.get(f"{server.url}/healthz").headers["Date"]
    told = email.utils.parsedate_to_datetime(date).timestamp()
    return round(told - time.time(), -2) == seconds


def ping(server: Server, reader: Reader, path: str) -> float:
    """Commit a change; return how long it takes to reach its reader."""
    server.append("create", path, user_id=PING_USER)
    committed_at = time.monotonic()
    assert [change["from"] for change in reader.changes(1)] == [path]
    return time.monotonic() - committed_at


def test_the_story_was_what_it_claims_to_be(story: Story) -> None:
    """Without a clock that is wrong the other tests prove nothing."""
    is_shared = story.engine == "sqlite"
    assert (story.recorded_over_seconds > max(WRONG_BY_SECONDS)) == is_shared
    assert len(story.journal) > 50
    assert all(story.clients[name].connections > 2 for name in ("by event id", "remembered"))


def test_no_change_waits_longer_than_it_may(story: Story) -> None:
    assert max(story.latencies) < LATEST_SECONDS


def test_no_stream_ends_and_nothing_is_called_broken(story: Story) -> None:
    assert story.clients["steady"].connections == 1
    assert "CRITICAL" not in story.log
    assert "Traceback" not in story.log


def test_every_client_was_told_of_every_change(story: Story) -> None:
    for name, client in story.clients.items():
        assert client.faults == [], name
        assert client.position == len(story.journal), name
        assert client.wrong_claims(story.journal) == [], name

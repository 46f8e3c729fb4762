"""A database that fails over: by plan nothing is lost, by accident every client starts afresh.

First the primary becomes read-only and a replica that has everything takes its place; the old one
goes on serving whoever is connected. Then that one dies, and its heir lacks the last positions,
which are given to other changes before any worker looks.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy

from events_app.database import POOL_RECYCLE_SECONDS, Database
from events_app.sequencer import Mover
from tests.frames import Frame, Reader
from tests.server import harness, harness_stories, harness_succession, harness_trouble
from tests.server.harness_client import Client, JournalRow
from tests.server.harness_database import text_of
from tests.server.harness_stories import Stories
from tests.server.harness_succession import Succession
from tests.server.harness_trouble import App, Said, Watched
from tests.serving import Server, eventually

PLANNED_USER, LATER_USER = harness.USERS
SETTINGS = {"EVENTS_KEEP_ALIVE": "0.5", "EVENTS_CONFIRM_SECONDS": "1"}
SUCCESSIONS = {
    "postgresql": harness_succession.of_postgresql,
    "mariadb": harness_succession.of_mariadb,
}
# On a busy machine; the workers may have to leave the first server yet.
RECOVERY_SECONDS = 60.0
LOST = ["lost-1", "lost-2", "lost-3"]
# More than were lost, so that the last position seen is another row's.
OTHERS = [f"other-{number}" for number in range(6)]


@dataclass
class Planned:
    """What was seen of the handing over. `epochs` are those before and after it."""

    clients: dict[str, Client]
    journal: list[JournalRow]
    app: App
    epochs: list[int]
    seconds: float


@dataclass
class Ended:
    """One stream that heard of what was lost: its first frames on its way back, and after that."""

    heard: list[str]
    end: Frame
    first_again: Frame
    told: list[str] = field(default_factory=list)


@dataclass
class Story:
    """Both ways to fail over, one after the other."""

    planned: Planned
    accident: dict[str, Ended]
    said: list[Said]
    epochs: list[int]


@pytest.fixture(scope="module")
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stories[Story]]:
    """Let each engine fail over."""
    tellers = {
        name: partial(tell, name, tmp_path_factory.mktemp(f"succession-{name}"))
        for name in SUCCESSIONS
    }
    with harness_stories.side_by_side(request, tellers) as told:
        yield told


@pytest.fixture(params=list(SUCCESSIONS))
def story(request: pytest.FixtureRequest, stories: Stories[Story]) -> Story:
    """Give what happened on one engine after the other."""
    return stories[request.param]


def tell(name: str, folder: Path) -> Story:
    """Prepare three servers, and let the first hand over and the second die."""
    with SUCCESSIONS[name](folder) as succession:
        server = Server(text_of(succession.address), folder / "gunicorn.log", SETTINGS)
        with server.running():
            watched = Watched(server)
            planned = hand_over(watched, succession)
            before = len(watched.log())
            epochs = [epoch(succession)]
            accident = die(server, succession)
            epochs.append(epoch(succession))
            return Story(planned, accident, watched.log()[before:], epochs)


def hand_over(watched: Watched, succession: Succession) -> Planned:
    """Hand over under steady writes."""
    app = App(succession.at.app, PLANNED_USER)
    by_id = str(uuid.uuid4())
    clients = {
        "steady": Client([watched.server], PLANNED_USER),
        "by event id": Client([watched.server], PLANNED_USER, stay_seconds=1.0),
        "steady with an id": Client([watched.server], PLANNED_USER, client_id=by_id),
    }
    harness_trouble.begin(list(clients.values()), text_of(succession.at.admin))
    epochs = [epoch(succession)]
    app.start()
    eventually(lambda: len(app.committed) > 30, what="the app writes")
    begun_at = time.monotonic()
    succession.hand_over()
    eventually(lambda: app.failures, what="the app's writes are refused")
    app.lead_to(succession.at.app.set(port=succession.port))
    written = len(app.committed)
    eventually(lambda: len(app.committed) > written + 30, what="the app writes again")
    app.stop()
    reading = sqlalchemy.create_engine(
        succession.at.admin.set(port=succession.port), poolclass=sqlalchemy.NullPool
    )
    harness.finish(reading, list(clients.values()))
    seconds = time.monotonic() - begun_at
    epochs.append(epoch(succession))
    return Planned(
        clients,
        harness.journal_of(reading),
        app,
        epochs,
        seconds,
    )


def epoch(succession: Succession) -> int:
    """Read the epoch from the present primary."""
    url = text_of(succession.at.admin.set(port=succession.port))
    return int(harness.scalar(url, "SELECT epoch FROM file_event_state"))


def die(server: Server, succession: Succession) -> dict[str, Ended]:
    """Let streams hear of changes that the next primary does not have."""
    app = App(succession.at.app.set(port=succession.port), LATER_USER)
    ids = {"by event id": None, "by client id": str(uuid.uuid4())}
    readers = {name: Reader(server, LATER_USER, client_id) for name, client_id in ids.items()}
    for reader in readers.values():
        reader.expect("subscribed")
    app.commit("kept")
    for reader in readers.values():
        assert reader.changes(1, RECOVERY_SECONDS)[0]["file_id"] == "kept"
    succession.leave_heir_behind()
    for file_id in LOST:
        app.commit(file_id)
    heard = {
        name: [change["file_id"] for change in reader.changes(len(LOST))]
        for name, reader in readers.items()
    }
    succession.die()
    app.lead_to(succession.at.app.set(port=succession.port))
    for file_id in OTHERS:
        app.commit(file_id)
    move(succession)
    succession.open_line()
    ends = {name: reader.expect("reconnect-required") for name, reader in readers.items()}
    found = {}
    for name, client_id in ids.items():
        last = ends[name].id if client_id is None else None
        readers[name].connection.close()
        again = Reader(server, LATER_USER, client_id, last_event_id=last)
        found[name] = Ended(heard[name], ends[name], again.expect("subscribed", "resumed"))
        readers[name] = again
    app.commit("after")
    for name, reader in readers.items():
        with reader:
            while "after" not in found[name].told:
                found[name].told += [change["file_id"] for change in reader.changes(1)]
    app.stop()
    return found


def move(succession: Succession) -> None:
    """Give positions to what waits, as a worker of another host would."""
    database = Database(text_of(succession.at.sidecar.set(port=succession.port)))
    try:
        step = Mover(database).step()
    finally:
        database.close()
    assert step is not None
    assert step.moved == len(OTHERS)


def test_the_handing_over_was_what_it_claims_to_be(story: Story) -> None:
    planned = story.planned
    assert any("read-only" in failure for failure in planned.app.failures)
    assert len(planned.journal) > 60
    assert planned.clients["by event id"].connections > 1


def test_a_planned_fail_over_loses_nothing_and_ends_no_stream(story: Story) -> None:
    planned = story.planned
    harness_trouble.judge(planned.clients, planned.journal, planned.app)
    assert planned.epochs[0] == planned.epochs[1]


def test_workers_leave_the_old_primary_although_it_goes_on_answering(story: Story) -> None:
    """Until a connection is too old for the pool it would be asked again and again."""
    assert story.planned.seconds < POOL_RECYCLE_SECONDS / 2


def test_what_an_heir_lacks_ends_in_a_fresh_start_and_in_nobody_elses_changes(
    story: Story,
) -> None:
    """The positions that were heard of belong to other changes by then."""
    for name, ended in story.accident.items():
        assert ended.heard == LOST, name
        assert ended.end.name == "reconnect-required", name
        assert ended.first_again.name == "subscribed", name
        assert ended.told == ["after"], name


def test_another_history_is_said_and_begins_one_new_epoch(story: Story) -> None:
    # Both workers may see it in the same moment; one of them begins the epoch.
    alarms = [said for said in story.said if said.level == "CRITICAL"]
    assert 1 <= len(alarms) <= 2
    assert {said.words.split(" than ")[0] for said in alarms} == {"the journal has another history"}
    assert story.epochs[1] > story.epochs[0]

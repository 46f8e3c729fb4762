"""A network that fails without a word: no FIN, no reset, only packets that arrive no more.

Everything happens once for each engine, under steady writes; the tests look at what it left.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from events_app import schema
from tests import conftest, databases
from tests.frames import Reader
from tests.server import harness, harness_network
from tests.server.harness import Load
from tests.server.harness_client import Client, JournalRow, position_of
from tests.server.harness_network import Network
from tests.server.harness_traveller import Traveller
from tests.serving import Server, eventually

USER, QUIET_USER = "42", "quiet"
OTHER_CLIENTS = [str(uuid.UUID(int=1))]
# A dead peer is noticed in half of this time, counted from the first byte that it did not take,
# which is at the latest the next keep-alive. The rest is for two shared cores.
CONFIRM_SECONDS = 8.0
# How long a real client bears it to hear nothing.
PATIENCE_SECONDS = 3.0


@dataclass
class Story:
    """What happened, to be judged. The quiet client's cursor is moved by nobody but the dead."""

    journal: list[JournalRow]
    clients: dict[str, Client]
    connections_after_short_cut: set[int]
    half_open: int
    dead_seconds: float
    ends: list[dict[str, Any]]
    heard_before_cut: int
    shown_after_cut: Any
    quiet: Any
    quiet_position: int


class Line:
    """A server on the other side of a network, and a patient one on this side."""

    def __init__(self, url: str, folder: Path, network: Network, listener: socket.socket) -> None:
        secret = secrets.token_urlsafe(48)
        settings = {"EVENTS_CONFIRM_SECONDS": str(CONFIRM_SECONDS), "EVENTS_LOG_FORMAT": "json"}
        self.network = network
        self.server = Server(url, folder / "server.log", settings, secret=secret)
        self.server.listener = listener
        # Never in this test does it count anything as delivered that no client brought back.
        patient = {"EVENTS_CONFIRM_SECONDS": "600"}
        self.patient = Server(url, folder / "patient.log", patient, secret=secret)
        self.far = self.server.seen_by(network.dial, listener.getsockname())
        self.engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def stored(self, client_id: str | None) -> Any:
        """Return the subscription of a client, as it is stored."""
        query = "SELECT * FROM file_event_subscription WHERE client_id = :client_id"
        with self.engine.connect() as connection:
            return connection.execute(sqlalchemy.text(query), {"client_id": client_id}).one()

    def wait_until_live(self, client_id: str | None) -> None:
        """Wait until the client's `subscribed` counts as heard."""
        live = schema.LIVE
        eventually(lambda: self.stored(client_id).state == live, what="the subscription is live")

    def ends(self) -> list[dict[str, Any]]:
        """List what the log says of streams that ended."""
        lines = self.server.log.read_text().splitlines()
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in said if line["message"] == "a stream ends"]

    def noticed(self, client_id: str | None) -> Any:
        """Return the subscription as it is stored, once it says what was sent beyond it."""
        stored = self.stored(client_id)
        return None if stored.sent_position is None else stored

    def ended(self, client_ids: set[str | None]) -> list[dict[str, Any]]:
        """List the ends of these clients' streams, when each has one."""
        ends = [end for end in self.ends() if end.get("client_id") in client_ids]
        return ends if {end["client_id"] for end in ends} == client_ids else []


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """Let it happen on each engine."""
    conftest.need(request.param)
    folder = tmp_path_factory.mktemp("network")
    with (
        databases.migrated(request.param, folder) as url,
        harness_network.laid() as network,
        network.listen() as listener,
    ):
        line = Line(url, folder, network, listener)
        with harness.running(line.server, line.patient):
            yield happen(line, Load(request.param, writers=3, seconds=9.0, held_seconds=0.3))


def clients_of(line: Line) -> dict[str, Client]:
    """Make one who keeps the line, and those who lose it and come back by another."""
    ways = [line.far, line.patient]

    def traveller(client_id: str | None) -> Traveller:
        by_event_id = client_id is None
        return Traveller(
            ways,
            USER,
            client_id=client_id,
            by_event_id=by_event_id,
            patience_seconds=PATIENCE_SECONDS,
        )

    return {
        "near": Client([line.server], USER),
        "by event id": traveller(None),
        "remembered": traveller(str(uuid.uuid4())),
        "asleep": traveller(str(uuid.uuid4())),
    }


def happen(line: Line, load: Load) -> Story:
    """Cut the line for a moment, then for good; nobody is told."""
    harness.make_app_table(line.engine, load.engine)
    clients = clients_of(line)
    for client in clients.values():
        client.start()
    for client in clients.values():
        assert client.begun.wait(20), "no stream began"
    quiet_id = str(uuid.uuid4())
    with (
        harness.writing(line.server.database_url, load, OTHER_CLIENTS) as programs,
        Reader(line.far, QUIET_USER, quiet_id) as old,
    ):
        early = old.expect("subscribed")
        line.wait_until_live(quiet_id)
        line.server.append("create", "/heard", user_id=QUIET_USER)
        old.expect("event")
        cut_for_a_moment(line, clients)
        connections = {client.connections for client in clients.values()}

        asleep = clients["asleep"]
        assert isinstance(asleep, Traveller)
        asleep.stay_away()
        line.network.cut()
        cut_at = time.monotonic()
        line.server.append("create", "/lost", user_id=QUIET_USER)
        with Reader(line.patient, QUIET_USER, quiet_id, last_event_id=early.id) as new:
            new.expect("resumed")
            assert [change["from"] for change in new.changes(2)] == ["/heard", "/lost"]
            half_open = len(line.network.send_queues())
            eventually(lambda: not line.network.send_queues(), what="the dead are gone")
            dead_seconds = time.monotonic() - cut_at
            ids = {quiet_id, *(client.client_id for client in clients.values())} - {None}
            ends = eventually(lambda: line.ended(ids), what="their streams have ended")
            shown = eventually(lambda: line.noticed(asleep.client_id), what="its end is stored")
            assert asleep.away.wait(20)
            heard = asleep.position
            asleep.come_back()
            harness.outcomes_of(programs, load)
            harness.finish(line.engine, list(clients.values()))
            line.server.stop()
            quiet = line.stored(quiet_id)
    return Story(
        journal=harness.journal_of(line.engine),
        clients=clients,
        connections_after_short_cut=connections,
        half_open=half_open,
        dead_seconds=dead_seconds,
        ends=ends,
        heard_before_cut=heard,
        shown_after_cut=shown,
        quiet=quiet,
        quiet_position=position_of(str(early.id)),
    )


def cut_for_a_moment(line: Line, clients: dict[str, Client]) -> None:
    """Cut the line until something is written into it, and wait until all have caught up.

    The kernel tries again after as long as it has tried already: a moment must be short.
    """
    line.network.cut()
    eventually(lambda: any(line.network.send_queues()), what="a frame is on its way")
    line.network.mend()
    upto = clients["near"].position + 1
    eventually(lambda: all(client.position >= upto for client in clients.values()))


def test_the_story_was_what_it_claims_to_be(story: Story) -> None:
    """Without changes that got lost on the way the other tests prove nothing."""
    assert len(story.journal) > 300
    assert story.half_open == 4, "three travellers and the quiet one, when its successor is live"
    assert story.clients["near"].connections == 1
    for name in ("by event id", "remembered", "asleep"):
        assert story.clients[name].connections == 2, name


def test_a_cut_of_a_moment_costs_no_connection(story: Story) -> None:
    assert story.connections_after_short_cut == {1}


def test_a_dead_peer_is_noticed_before_silence_would_count_as_proof(story: Story) -> None:
    """By the kernel and by the stream, which is counted as a client that went."""
    assert story.dead_seconds < CONFIRM_SECONDS
    assert {end["reason"] for end in story.ends} <= {"client_left", "dropped"}
    assert len(story.ends) == 3


def test_what_went_into_the_cut_is_known_as_sent_and_not_as_delivered(story: Story) -> None:
    shown = story.shown_after_cut
    assert shown.generation == 1
    assert shown.state == schema.LIVE
    assert shown.position <= story.heard_before_cut < shown.sent_position


def test_the_late_death_of_a_half_open_connection_moves_no_cursor(story: Story) -> None:
    """Its successor was set back by the client, and stands there until more is known."""
    quiet = story.quiet
    standing = (quiet.generation, quiet.position, quiet.sent_position)
    assert standing == (2, story.quiet_position, None)


def test_every_client_was_told_of_every_change(story: Story) -> None:
    for name, client in story.clients.items():
        assert client.faults == [], name
        assert client.position == len(story.journal), name
        assert client.wrong_claims(story.journal) == [], name

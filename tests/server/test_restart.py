"""Coming back after a death between two frames: on the same worker, another one, another instance.

Both instances of a module's pair serve the same database. The first counts what the peer's kernel
took as delivered at once; the second hardly ever does, and lets changes settle for a while.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import sqlalchemy

from events_app import outbox
from tests import conftest, databases
from tests.frames import Reader
from tests.server import harness
from tests.server.harness_client import position_of
from tests.serving import Server, eventually

SETTLING_SECONDS = 1.5


class Pair(NamedTuple):
    """Two instances on one database: a trusting one, and a slow one that wants proof."""

    trusting: Server
    slow: Server

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Read from the database."""
        engine = sqlalchemy.create_engine(self.trusting.database_url, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            return list(connection.execute(sqlalchemy.text(query), values))

    def positions(self, user: str) -> list[Any]:
        """List the positions of a user's rows."""
        query = "SELECT position FROM file_event_journal WHERE user_id = :user"
        return self.rows(query, user=user)

    def stored(self, client_id: str) -> Any:
        """Return the subscription of a client, as it is stored."""
        query = "SELECT * FROM file_event_subscription WHERE client_id = :client_id"
        found = self.rows(query, client_id=client_id)
        assert len(found) == 1
        return found[0]


@pytest.fixture(scope="module", params=databases.ENGINES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Run two instances with two workers each, on every engine."""
    conftest.need(request.param)
    folder = tmp_path_factory.mktemp("pair")
    secret = secrets.token_urlsafe(48)
    common = {"EVENTS_KEEP_ALIVE": "0.2", "EVENTS_SEND_TIMEOUT": "2"}
    trusting = common | {"EVENTS_CONFIRM_SECONDS": "0"}
    slow = common | {"EVENTS_CONFIRM_SECONDS": "60", "EVENTS_DEBOUNCE": str(SETTLING_SECONDS)}
    with databases.migrated(request.param, folder) as url:
        made = Pair(
            Server(url, folder / "trusting.log", trusting, secret=secret),
            Server(url, folder / "slow.log", slow, secret=secret),
        )
        with harness.running(*made):
            yield made


@pytest.fixture
def user() -> str:
    """Name a user that no other test has."""
    return uuid.uuid4().hex


@pytest.fixture
def client() -> str:
    """Make a client id that no other test has."""
    return str(uuid.uuid4())


def wait_until_known(pair: Pair, client: str) -> None:
    """Wait until the client's `subscribed` counts as heard."""
    eventually(lambda: pair.stored(client).state == "live", what="the subscription is live")


def kill_workers(server: Server) -> None:
    """Kill every worker, as the kernel does when memory runs out; the master makes new ones."""
    old = set(server.worker_pids())
    for worker in old:
        os.kill(worker, signal.SIGKILL)
    eventually(lambda: old.isdisjoint(server.worker_pids()) and server.is_ready())


def test_a_client_resumes_on_another_instance(pair: Pair, user: str, client: str) -> None:
    with Reader(pair.slow, user, client) as reader:
        reader.expect("subscribed")
        wait_until_known(pair, client)
    pair.slow.append("create", "/missed", user_id=user)
    with Reader(pair.trusting, user, client) as reader:
        reader.expect("resumed")
        assert [change["from"] for change in reader.changes(1)] == ["/missed"]
    with Reader(pair.trusting, user, str(uuid.uuid4())) as stranger:
        stranger.expect("subscribed")
    with Reader(pair.trusting, user, client, uri="cloudreve://my/docs") as elsewhere:
        elsewhere.expect("subscribed")


def test_a_client_without_an_id_of_any_kind_starts_afresh(pair: Pair, user: str) -> None:
    for _ in range(2):
        with Reader(pair.trusting, user) as reader:
            reader.expect("subscribed")


def test_a_client_resumes_after_its_worker_was_killed_between_two_frames(
    pair: Pair, user: str, client: str
) -> None:
    """What was delivered is not told again where it is known; what happened meanwhile is told."""
    with Reader(pair.trusting, user, client) as reader:
        reader.expect("subscribed")
        pair.trusting.append("create", "/heard", user_id=user)
        heard = position_of(str(reader.expect("event").id))
        eventually(lambda: pair.stored(client).position == heard)
        kill_workers(pair.trusting)
        with pytest.raises((EOFError, ConnectionError)):
            reader.expect("event")
    pair.trusting.append("create", "/missed", user_id=user)
    for server in pair:
        with Reader(server, user, str(uuid.uuid4())) as stranger:
            stranger.expect("subscribed")
    with Reader(pair.trusting, user, client) as reader:
        reader.expect("resumed")
        assert [change["from"] for change in reader.changes(1)] == ["/missed"]


def test_what_waited_to_settle_when_the_worker_was_killed_is_told_later(
    pair: Pair, user: str, client: str
) -> None:
    """A row that was read is no row that was told."""
    with Reader(pair.slow, user, client) as reader:
        first = reader.expect("subscribed")
        wait_until_known(pair, client)
        pair.slow.append("create", "/pending", user_id=user)
        eventually(lambda: pair.positions(user), what="the row has its position")
        assert reader.expect("keep-alive").id == first.id
        kill_workers(pair.slow)
    for last_event_id in (None, first.id):
        with Reader(pair.slow, user, client, last_event_id=last_event_id) as reader:
            reader.expect("resumed")
            assert [change["from"] for change in reader.changes(1)] == ["/pending"]


def test_what_is_not_shown_to_be_delivered_is_told_again_as_what_can_be_repeated(
    pair: Pair, user: str, client: str
) -> None:
    """Without `Last-Event-ID` a crash leaves open what arrived, and a rename told twice would hurt.

    With it the client itself says what arrived.
    """
    with Reader(pair.slow, user, client) as reader:
        reader.expect("subscribed")
        wait_until_known(pair, client)
        pair.slow.append("rename", "/a", "/b", file_id="f", user_id=user)
        told = reader.expect("event")
        assert [change["type"] for change in told.changes] == ["rename"]
        kill_workers(pair.slow)
    pair.slow.append("rename", "/c", "/d", file_id="g", user_id=user)
    eventually(lambda: len(pair.positions(user)) == 2, what="both rows have their positions")
    with Reader(pair.slow, user, client) as reader:
        reader.expect("resumed")
        again = [(change["type"], change["from"]) for change in reader.changes(4)]
        assert again == [("delete", "/a"), ("create", "/b"), ("delete", "/c"), ("create", "/d")]
    with Reader(pair.slow, user, client, last_event_id=told.id) as reader:
        reader.expect("resumed")
        exactly = [(change["type"], change["from"]) for change in reader.changes(1)]
        assert exactly == [("rename", "/c")]


def test_only_the_newest_connection_of_a_client_moves_its_cursor(
    pair: Pair, user: str, client: str
) -> None:
    """Both hear everything; what only the older one heard is told again to the next."""
    with Reader(pair.trusting, user, client) as older:
        older.expect("subscribed")
        wait_until_known(pair, client)
        with Reader(pair.trusting, user, client) as newer:
            newer.expect("resumed")
            pair.trusting.append("create", "/both", user_id=user)
            both = position_of(str(newer.expect("event").id))
            assert older.changes(1)[0]["from"] == "/both"
            eventually(lambda: pair.stored(client).position == both)
        eventually(lambda: pair.stored(client).sent_position is not None)
        pair.trusting.append("create", "/only the older one", user_id=user)
        assert older.changes(1)[0]["from"] == "/only the older one"
        older.expect("keep-alive")
    standing = pair.stored(client)
    assert (standing.generation, standing.position) == (2, both)
    with Reader(pair.slow, user, client) as next_one:
        next_one.expect("resumed")
        assert next_one.changes(1)[0]["from"] == "/only the older one"


def test_a_last_event_id_sets_the_cursor_back(pair: Pair, user: str, client: str) -> None:
    """The client knows best what it has; it may have been restored from a backup."""
    with Reader(pair.trusting, user, client) as reader:
        early = reader.expect("subscribed")
        pair.trusting.append("create", "/a", user_id=user)
        late = position_of(str(reader.expect("event").id))
        eventually(lambda: pair.stored(client).position == late)
    with Reader(pair.slow, user, client, last_event_id=early.id) as reader:
        reader.expect("resumed")
        assert pair.stored(client).position == position_of(str(early.id))
        assert reader.changes(1)[0]["from"] == "/a"


def test_a_reader_that_takes_nothing_is_dropped_and_misses_nothing(
    pair: Pair, user: str, client: str
) -> None:
    """A frame that never got through is not delivered, also where the kernel's word is enough."""
    count, name = 3_000, "n" * 1_000
    with Reader(pair.trusting, user, client) as reader:
        reader.expect("subscribed")
        wait_until_known(pair, client)
        reader.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        engine = sqlalchemy.create_engine(pair.trusting.database_url, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            for number in range(count):
                outbox.append(connection, user, "create", f"f{number}", f"/{name}/{number}")
        eventually(lambda: pair.stored(client).sent_position is not None, what="it is dropped")
    assert pair.stored(client).position < pair.stored(client).sent_position
    with Reader(pair.trusting, user, client) as reader:
        reader.expect("resumed")
        told = [change["file_id"] for change in reader.changes(count)]
    assert told == [f"f{number}" for number in range(count)]

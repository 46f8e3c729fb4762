"""Hundreds of streams come, hear, go and come again: nothing is left of them in the worker.

One worker and one database, because it takes its time: PostgreSQL, with a pool and a connection
that listens. What depends on the speed of the machine is measured by `python -m bench crowd`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import sqlalchemy
from sqlalchemy import select

from events_app.schema import subscription
from tests import conftest, databases
from tests.frames import Reader
from tests.serving import Server, eventually

# A connect costs each side some milliseconds: with so many, three times, and the rounds, the story
# takes half a minute of an idle machine.
STREAMS = 600
# What a default allows: 64 streams of a user.
USERS = 12
ROUNDS = 50
STREAMS_IN_ROUND = 24
# As many as a worker has at the database at once: more would only wait.
CONNECTING_AT_ONCE = 12
DRAIN_SECONDS = 2
SETTLE_SECONDS = 60
# Warm is warm: what the allocator keeps for the next ones came with the first ones.
MEMORY_GROWTH = 1.1


class Client(NamedTuple):
    """Who opens a stream."""

    user: str
    id: str


CLIENTS = [
    Client(f"user-{number % USERS}", str(uuid.UUID(int=number))) for number in range(STREAMS)
]


class Held(NamedTuple):
    """What the worker holds while no stream is open."""

    descriptors: int
    greenlets: int
    objects: int
    kilobytes: int


class End(NamedTuple):
    """The last frame of a stream, and whether its body was complete."""

    name: str
    clean: bool


class Story(NamedTuple):
    """What happened, for tests to judge."""

    before: Held
    after_all: Held
    after_rounds: Held
    ends: list[End]
    exit_code: int
    generations: dict[str, int]
    unended: int


class Crowd:
    """Clients of one worker."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.readers: list[Reader] = []

    def come(self, clients: list[Client]) -> None:
        """Open a stream for each, and wait until it has begun."""
        with ThreadPoolExecutor(CONNECTING_AT_ONCE) as pool:
            self.readers = list(pool.map(self._open, clients))

    def _open(self, client: Client) -> Reader:
        reader = Reader(self.server, client.user, client.id)
        reader.expect("subscribed", "resumed")
        return reader

    def hear(self, path: str) -> None:
        """Tell every user of a change, and wait until every stream was told it.

        What is not known to have arrived before may come once more.
        """
        for number in range(USERS):
            self.server.append("modify", path, user_id=f"user-{number}")
        for reader in self.readers:
            while path not in {change["from"] for change in reader.changes(1)}:
                pass

    def go(self) -> None:
        """Close all, and wait until the worker has stored where they stand."""
        for reader in self.readers:
            reader.connection.close()
        self._wait_until_over()

    def _wait_until_over(self) -> dict[str, int]:
        """Wait for the end of all streams and all work; what the worker holds then.

        The worker's own looks at the database take a connection for moments.
        """

        def over() -> dict[str, int] | None:
            found = self._remains()
            busy = found["streams"], found["cursors"], found["pooled"]
            return None if any(busy) else found

        return eventually(over, SETTLE_SECONDS, "no stream, no cursor to store, nobody at the pool")

    def _remains(self) -> dict[str, int]:
        answer = httpx.get(f"{self.server.url}/remains", timeout=SETTLE_SECONDS)
        return {str(name): int(count) for name, count in answer.json().items()}

    def held(self) -> Held:
        """Look at the worker, which has no stream now."""
        found = self._wait_until_over()
        (worker,) = self.server.worker_pids()
        text = Path(f"/proc/{worker}/smaps_rollup").read_text()
        kilobytes = re.search(r"^Pss: +(\d+) kB$", text, re.MULTILINE)
        assert kilobytes is not None
        counts = found["descriptors"], found["greenlets"], found["objects"]
        return Held(*counts, int(kilobytes[1]))

    def read_to_the_end(self) -> list[End]:
        """Read every stream until it ends."""
        return [_end_of(reader) for reader in self.readers]


def _end_of(reader: Reader) -> End:
    name = "none"
    try:
        while (frame := reader.frame()) is not None:
            name = frame.name
    except (OSError, EOFError):
        return End(name, clean=False)
    reader.connection.close()
    return End(name, clean=True)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Let it all happen once."""
    conftest.need("postgresql")
    folder = tmp_path_factory.mktemp("crowd")
    with databases.migrated("postgresql", folder) as url:
        server = Server(
            url,
            folder / "gunicorn.log",
            {"EVENTS_DRAIN": str(DRAIN_SECONDS), "EVENTS_KEEP_ALIVE": "25"},
            workers=1,
            application="tests.server.harness_remains:app",
        )
        with server.running():
            yield tell(server)


def tell(server: Server) -> Story:
    """Act it out."""
    crowd = Crowd(server)
    crowd.come(CLIENTS)
    crowd.hear("/first")
    crowd.go()
    crowd.come(CLIENTS[:STREAMS_IN_ROUND])  # to resume is another way through the program
    crowd.go()
    before = crowd.held()
    crowd.come(CLIENTS)
    crowd.hear("/second")
    crowd.go()
    after_all = crowd.held()
    for _ in range(ROUNDS):
        crowd.come(CLIENTS[:STREAMS_IN_ROUND])
        crowd.go()
    after_rounds = crowd.held()
    crowd.come(CLIENTS)
    process = server.process
    assert process is not None
    process.terminate()
    ends = crowd.read_to_the_end()
    exit_code = process.wait(SETTLE_SECONDS)
    generations, unended = stored(server)
    return Story(before, after_all, after_rounds, ends, exit_code, generations, unended)


def stored(server: Server) -> tuple[dict[str, int], int]:
    """Return the generation of each client, and how many have no end stored."""
    engine = sqlalchemy.create_engine(server.database_url, poolclass=sqlalchemy.NullPool)
    columns = subscription.c.client_id, subscription.c.generation, subscription.c.sent_position
    with engine.connect() as connection:
        rows = connection.execute(select(*columns)).all()
    return (
        {row.client_id: row.generation for row in rows},
        sum(row.sent_position is None for row in rows),
    )


def test_a_stop_tells_every_stream_and_ends_it_cleanly(story: Story) -> None:
    """Gunicorn would have killed the worker if it had taken much longer than the drain."""
    assert len(story.ends) == STREAMS
    assert set(story.ends) == {End("reconnect-required", clean=True)}
    assert story.exit_code == 0


def test_a_stop_stores_where_every_stream_ended(story: Story) -> None:
    assert story.unended == 0


def test_every_connection_took_one_generation(story: Story) -> None:
    rounds = dict.fromkeys((client.id for client in CLIENTS[:STREAMS_IN_ROUND]), 1 + ROUNDS)
    assert story.generations == {client.id: 3 + rounds.get(client.id, 0) for client in CLIENTS}


@pytest.mark.parametrize("when", ["after_all", "after_rounds"])
def test_no_greenlet_or_descriptor_is_left(story: Story, when: str) -> None:
    """Nor a connection to the database: the story goes on only when all are back in the pool."""
    held: Held = getattr(story, when)
    assert held.descriptors <= story.before.descriptors
    assert held.greenlets <= story.before.greenlets


def test_no_object_of_a_stream_is_left(story: Story) -> None:
    """One for every connection would show; what is compiled and cached meanwhile is less."""
    connects = STREAMS + ROUNDS * STREAMS_IN_ROUND
    assert story.after_rounds.objects - story.before.objects < connects / 2


@pytest.mark.parametrize("when", ["after_all", "after_rounds"])
def test_memory_is_what_it_was(story: Story, when: str) -> None:
    held: Held = getattr(story, when)
    assert held.kilobytes < MEMORY_GROWTH * story.before.kilobytes

"""A database in all kinds of trouble: streams last, nothing is lost, and it is plain what is wrong.

Each engine has a server of its own, which goes through one fault after the other under steady
writes; the tests look at what was seen of each.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import URL, make_url

from tests import conftest, databases
from tests.frames import Frame, Reader
from tests.server import harness, harness_database, harness_stories, harness_trouble
from tests.server.harness_client import Client, JournalRow
from tests.server.harness_database import Administrator, Breakable, make_read_only, text_of
from tests.server.harness_proxy import Proxy
from tests.server.harness_stories import Stories
from tests.server.harness_trouble import App, Episode, Look, Said, Watched
from tests.serving import Server, eventually
from tests.writers import roles
from tests.writers.roles import Roles

USER = harness.USERS[0]
SETTINGS = {"EVENTS_KEEP_ALIVE": "0.5", "EVENTS_CONFIRM_SECONDS": "1"}
# The protocol's second, and one for two shared cores.
FIRST_FRAME_SECONDS = 2.0
ANSWER_SECONDS = 2.0
NEWCOMERS = 4
Fault = Callable[[], contextlib.AbstractContextManager[None]]


class Place:
    """A database server that is broken and mended by its administrator."""

    def __init__(self, own: Breakable, at: Roles) -> None:
        self.own = own
        self.at = at
        self.is_postgresql = at.admin.get_backend_name() == "postgresql"

    @contextlib.contextmanager
    def crashed(self) -> Iterator[None]:
        """Crash, and start again."""
        self.own.crash()
        yield
        self.own.start()

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nobody write but administrators, in sessions that there are too."""
        with Administrator(self.at.admin) as administrator:
            make_read_only(administrator, yes=True)
            yield
            make_read_only(administrator, yes=False)

    @contextlib.contextmanager
    def crowded(self) -> Iterator[None]:
        """Let others have every connection; only the app keeps its own."""
        with Administrator(self.at.admin) as administrator, contextlib.ExitStack() as crowd:
            # They must not be quicker than the crowd.
            self._let_workers_in(administrator, yes=False)
            while sessions := self._sessions(administrator):
                for session in sessions:
                    self._end(administrator, session)
            self._fill(crowd)
            self._let_workers_in(administrator, yes=True)
            yield

    def _let_workers_in(self, administrator: Administrator, *, yes: bool) -> None:
        role = self.at.sidecar.username
        if self.is_postgresql:
            administrator.run(f"ALTER ROLE {role} {'LOGIN' if yes else 'NOLOGIN'}")
        else:
            administrator.run(f"ALTER USER '{role}'@'%%' ACCOUNT {'UNLOCK' if yes else 'LOCK'}")

    def _sessions(self, administrator: Administrator) -> list[int]:
        """List the workers' sessions."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE usename = :user"
            if self.is_postgresql
            else "SELECT id FROM information_schema.processlist WHERE user = :user"
        )
        return administrator.list(query, user=self.at.sidecar.username)

    def _end(self, administrator: Administrator, session: int) -> None:
        if self.is_postgresql:
            administrator.run(f"SELECT pg_terminate_backend({session})")
            return
        with contextlib.suppress(sqlalchemy.exc.OperationalError):  # it has ended by itself
            administrator.run(f"KILL {session}")

    def _fill(self, crowd: contextlib.ExitStack) -> None:
        engine = self.at.engine("migration")
        with contextlib.suppress(sqlalchemy.exc.OperationalError):
            while True:
                crowd.enter_context(engine.connect())

    def renamed(self, table: str) -> Fault:
        """Take a table away, and bring it back."""
        return self._altered(
            f"ALTER TABLE {table} RENAME TO {table}_gone",
            f"ALTER TABLE {table}_gone RENAME TO {table}",
        )

    def without(self, table: str, column: str) -> Fault:
        """Take a column away, and bring it back."""
        return self._altered(
            f"ALTER TABLE {table} RENAME COLUMN {column} TO gone",
            f"ALTER TABLE {table} RENAME COLUMN gone TO {column}",
        )

    def _altered(self, there: str, back: str) -> Fault:
        @contextlib.contextmanager
        def altered() -> Iterator[None]:
            with Administrator(self.at.admin) as administrator:
                administrator.run(there)
                yield
                administrator.run(back)

        return altered


@dataclass
class Story:
    """What happened, to be judged."""

    episodes: dict[str, Episode]
    said: list[Said]
    log: str
    looks: list[Look]
    journal: list[JournalRow]
    app: App
    clients: dict[str, Client]
    workers: list[set[int]]


@dataclass
class Slow:
    """What was seen while every answer took two seconds. Times in seconds."""

    clients: dict[str, Client]
    journal: list[JournalRow]
    app: App
    first_frames: list[Frame | None]
    first_frame_seconds: list[float]
    begun_seconds: float
    looks: list[Look]
    said: list[Said]


@pytest.fixture(scope="module")
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stories[Story | Slow]]:
    """Let each engine go through everything once."""
    tellers: dict[str, Callable[[], Story | Slow]] = {}
    with contextlib.ExitStack() as stack:
        for engine in harness_database.ENGINES:
            folder = tmp_path_factory.mktemp(engine)
            if databases.server_address(engine) is not None:
                # Here, because it cannot be done in two threads.
                url = stack.enter_context(databases.migrated(engine, folder))
                tellers[f"slow-{engine}"] = partial(tell_slowly, make_url(url), folder)
            tellers[engine] = partial(tell, engine, folder)
        yield stack.enter_context(harness_stories.side_by_side(request, tellers))


@pytest.fixture(params=list(harness_database.ENGINES))
def story(request: pytest.FixtureRequest, stories: Stories[Story | Slow]) -> Story:
    """Give what happened to one engine after the other."""
    told = stories[request.param]
    assert isinstance(told, Story)
    return told


@pytest.fixture(params=[f"slow-{engine}" for engine in harness_database.ENGINES])
def slow(request: pytest.FixtureRequest, stories: Stories[Story | Slow]) -> Slow:
    """Give what happened with one slow engine after the other."""
    conftest.need(request.param.removeprefix("slow-"))
    told = stories[request.param]
    assert isinstance(told, Slow)
    return told


def tell(engine: str, folder: Path) -> Story:
    """Make a database server, and let it go through everything."""
    own = harness_database.ENGINES[engine](folder / "database")
    with own.running_here() as admin, roles.prepared(text_of(admin)) as at:
        server = Server(at.address("sidecar"), folder / "gunicorn.log", SETTINGS)
        with server.running():
            return happen(Watched(server), Place(own, at))


def happen(watched: Watched, place: Place) -> Story:
    """Let the faults come one after the other, under steady writes."""
    app = App(place.at.app, USER)
    admin = text_of(place.at.admin)
    clients = clients_of(watched.server)
    faults: dict[str, Fault] = {
        "crash": place.crashed,
        "read-only": place.read_only,
        "crowded": place.crowded,
        "outbox missing": place.renamed("file_event_outbox"),
        "column missing": place.without("file_event_outbox", "meta"),
        "subscriptions missing": place.renamed("file_event_subscription"),
    }
    harness_trouble.begin(list(clients.values()), admin)
    workers = [set(watched.server.worker_pids())]
    app.start()
    with watched.watching():
        episodes = {name: watched.go_through(name, fault, USER) for name, fault in faults.items()}
        eventually(watched.is_quiet, what="all is well again")
    app.stop()
    reading = sqlalchemy.create_engine(admin, poolclass=sqlalchemy.NullPool)
    harness.finish(reading, list(clients.values()))
    return Story(
        episodes=episodes,
        said=watched.log(),
        log=watched.server.log.read_text(),
        looks=watched.watchman.looks,
        journal=harness.journal_of(reading),
        app=app,
        clients=clients,
        workers=[*workers, set(watched.server.worker_pids())],
    )


def clients_of(server: Server) -> dict[str, Client]:
    """Make those that stay, and those that come and go."""
    ids = [str(uuid.uuid4()) for _ in range(2)]
    return {
        "steady": Client([server], USER),
        "steady with an id": Client([server], USER, client_id=ids[0]),
        "by event id": Client([server], USER, stay_seconds=1.0),
        "by client id": Client(
            [server], USER, client_id=ids[1], by_event_id=False, stay_seconds=1.0
        ),
    }


def tell_slowly(near: URL, folder: Path) -> Slow:
    """Put a long way between a server and its database."""
    with Proxy((str(near.host), int(near.port or 0))) as line:
        far = text_of(near.set(host="127.0.0.1", port=line.port))
        server = Server(far, folder / "slow.log", SETTINGS)
        with server.running():
            return be_slow(Watched(server), line, near)


def be_slow(watched: Watched, line: Proxy, near: URL) -> Slow:
    """Let clients come while every answer takes long."""
    app = App(near, USER)
    clients = clients_of(watched.server)
    del clients["by client id"]  # it never stays long enough to begin
    harness_trouble.begin(list(clients.values()), text_of(near))
    app.start()
    with watched.watching(), contextlib.ExitStack() as stack:
        line.delay(ANSWER_SECONDS)
        asked_at = time.monotonic()
        readers, first_frames, first_frame_seconds = [], [], []
        # More than there are idle connections: some have to connect first.
        for _ in range(NEWCOMERS):
            opened_at = time.monotonic()
            reader = Reader(watched.server, USER, str(uuid.uuid4()))
            readers.append(stack.enter_context(reader))
            first_frames.append(reader.frame(harness_trouble.FRAME_SECONDS))
            first_frame_seconds.append(time.monotonic() - opened_at)
        for reader in readers:
            reader.expect("subscribed", seconds=90)
        begun_seconds = time.monotonic() - asked_at
        line.delay(0)
        eventually(watched.server.is_ready, what="ready again")
        app.stop()
        reading = sqlalchemy.create_engine(near, poolclass=sqlalchemy.NullPool)
        harness.finish(reading, list(clients.values()))
    return Slow(
        clients=clients,
        journal=harness.journal_of(reading),
        app=app,
        first_frames=first_frames,
        first_frame_seconds=first_frame_seconds,
        begun_seconds=begun_seconds,
        looks=watched.watchman.looks,
        said=watched.log(),
    )


# -- gone, or refusing -------------------------------------------------------------------------

# What /readyz says, on PostgreSQL and on MariaDB.
REASONS = {
    "crash": "Connection refused",
    "read-only": "read-only",
    "crowded": "connection slots are reserved|Too many connections",
    "outbox missing": "file_event_outbox.*(does not|doesn't) exist",
    "column missing": "file_event_outbox.meta",
    "subscriptions missing": "file_event_subscription.*(does not|doesn't) exist",
}


def test_the_story_was_what_it_claims_to_be(story: Story) -> None:
    """Without writes, refusals and clients that come and go the other tests prove nothing."""
    assert list(story.episodes) == list(REASONS)
    assert len(story.journal) > 100
    words = " ".join(story.app.failures)
    for refusal in ("read-only", "file_event_outbox", "refused|server closed|Lost connection"):
        assert re.search(refusal, words), refusal
    assert story.clients["by event id"].connections > 5
    assert story.clients["by client id"].connections > 5


def test_nothing_is_lost_and_no_stream_ends(story: Story) -> None:
    harness_trouble.judge(story.clients, story.journal, story.app)


def test_a_new_client_is_accepted_and_held_until_it_is_over(story: Story) -> None:
    for name, episode in story.episodes.items():
        assert len(episode.held) > 1, name
        assert {frame and (frame.name, frame.id) for frame in episode.held} == {
            ("keep-alive", None)
        }, name
        assert episode.first_frame_seconds < FIRST_FRAME_SECONDS, name
        assert episode.told, name


def test_readyz_says_what_is_wrong_as_long_as_it_is(story: Story) -> None:
    for name, episode in story.episodes.items():
        assert len(episode.looks) > 3, name
        assert {look.status for look in episode.looks} == {503}, name
        assert any(re.search(REASONS[name], look.reason) for look in episode.looks), name
        assert not any("[SQL" in look.reason for look in episode.looks), name
    assert story.looks[-1].status == 200


def test_healthz_answers_all_the_while(story: Story) -> None:
    assert all(look.alive for look in story.looks)


def test_each_worker_says_each_trouble_once_and_once_that_it_is_over(story: Story) -> None:
    for name, episode in story.episodes.items():
        once = dict.fromkeys(story.workers[0], 1)
        assert [episode.count(words) for words in harness_trouble.FOLLOWING] == [once, once], name
    harness_trouble.judge_pairs(story.said, len(story.episodes))
    assert {said.level for said in story.said} == {"INFO", "WARNING", "ERROR"}
    assert "Traceback" not in story.log


def test_no_worker_had_to_be_replaced(story: Story) -> None:
    before, after = story.workers
    assert before == after


# -- slow --------------------------------------------------------------------------------------


def test_a_slow_database_delays_and_loses_nothing(slow: Slow) -> None:
    """Streams that come are held, and begin; that it takes long is no trouble to the log."""
    assert slow.begun_seconds > 3 * ANSWER_SECONDS
    assert {frame and (frame.name, frame.id) for frame in slow.first_frames} == {
        ("keep-alive", None)
    }
    assert max(slow.first_frame_seconds) < FIRST_FRAME_SECONDS
    harness_trouble.judge(slow.clients, slow.journal, slow.app)
    assert {said.level for said in slow.said} == {"INFO"}
    assert not any("waits for the database" in said.words for said in slow.said)


def test_a_slow_database_leaves_the_pages_quick_and_readyz_honest(slow: Slow) -> None:
    assert all(look.alive for look in slow.looks)
    # A move takes several answers, and the two workers are in each other's way.
    assert {(look.status, look.reason) for look in slow.looks} <= {
        (200, ""),
        (503, "the tailer is stuck in a turn"),
        (503, "rows wait in the outbox and nobody moves them"),
    }

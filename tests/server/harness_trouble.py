"""What is seen of a server while its database is in trouble: its pages, its log, its streams."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import httpx
import sqlalchemy
from sqlalchemy import URL, exc

from events_app import outbox
from tests.frames import Frame, Reader
from tests.server import harness
from tests.server.harness_client import Client, JournalRow
from tests.serving import Server, eventually

# What the log says of an episode in the life of a worker, first and last.
FOLLOWING = ("not following: ", "the journal can be followed again")
CURSORS = ("cursors cannot be stored", "cursors are stored again")
LISTENING = ("LISTEN interrupted", "LISTEN works again")

APP_PAUSE_SECONDS = 0.03
LOOK_EVERY_SECONDS = 0.1
# How many looks at the least make sure that something lasts.
LOOKS = 5
# So long the pages may take on a busy machine; they never ask the database.
PAGE_SECONDS = 2.0
# Four times the pause between two keep-alives, for two shared cores.
FRAME_SECONDS = 3.0
# Longer than connecting takes that has to be given up, and than every pause between two tries.
NOTICE_SECONDS = 25.0

_LINE = re.compile(r"^\S+ \S+ (?P<worker>\d+) (?P<level>[A-Z]+) \S+: (?P<words>.*)$")


class App(threading.Thread):
    """Commits a change of `user` every now and then; whatever fails is not tried again."""

    def __init__(self, url: URL, user: str) -> None:
        super().__init__(daemon=True)
        self.committed: list[str] = []
        self.tried: list[str] = []
        self.failures: list[str] = []
        self._user = user
        self._url = url
        self._engine = _engine(url)
        self._leave = threading.Event()

    def lead_to(self, url: URL) -> None:
        """Commit somewhere else from now on."""
        self._url = url

    def run(self) -> None:
        while not self._leave.wait(APP_PAUSE_SECONDS):
            self.commit(f"w0-{len(self.tried)}")

    def commit(self, file_id: str) -> None:
        """Try to commit one change; the file's path is made of its id."""
        if self._engine.url != self._url:
            self._engine.dispose()
            self._engine = _engine(self._url)
        self.tried.append(file_id)
        try:
            with self._engine.begin() as connection:
                path = f"/a/{file_id}.txt"
                outbox.append(connection, self._user, "create", file_id, path)
        except exc.DBAPIError as error:
            self.failures.append(str(error.orig))
        else:
            self.committed.append(file_id)

    def stop(self) -> None:
        """Commit no more."""
        self._leave.set()
        if self.ident is not None:
            self.join(20)
        self._engine.dispose()


def _engine(url: URL) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(url, pool_size=1)


class Look(NamedTuple):
    """One look at the pages: when, and what /readyz said; `alive` says that /healthz answered."""

    at: float
    status: int
    reason: str
    alive: bool


class Watchman(threading.Thread):
    """Asks for health and readiness all the time, of whichever worker answers."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.looks: list[Look] = []
        self._server = server
        self._leave = threading.Event()

    def run(self) -> None:
        with httpx.Client(timeout=PAGE_SECONDS) as client:
            while not self._leave.wait(LOOK_EVERY_SECONDS):
                self.looks.append(self._look(client))

    def _look(self, client: httpx.Client) -> Look:
        at = time.monotonic()
        try:
            ready = client.get(f"{self._server.url}/readyz")
            alive = client.get(f"{self._server.url}/healthz").status_code == httpx.codes.OK
        except httpx.TransportError as error:
            return Look(at, 0, repr(error), alive=False)
        return Look(at, ready.status_code, ready.json().get("reason", ""), alive)

    def stop(self) -> None:
        """Look no more."""
        self._leave.set()
        self.join(PAGE_SECONDS * 3)


class Said(NamedTuple):
    """A line of the log."""

    worker: int
    level: str
    words: str


@dataclass
class Episode:
    """What was seen of one fault. `looks` are those at which every worker knew of it."""

    name: str
    looks: list[Look] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    held: list[Frame | None] = field(default_factory=list)
    first_frame_seconds: float = 0.0
    begun: Frame | None = None
    told: list[str] = field(default_factory=list)

    def count(self, beginning: str) -> Counter[int]:
        """Count the lines of each worker that begin so."""
        return Counter(said.worker for said in self.said if said.words.startswith(beginning))


class Watched:
    """A server that is looked at all the time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.watchman = Watchman(server)

    def is_quiet(self) -> bool:
        """Tell whether everything that was troubled has said that it is so no more."""
        said = [line.words for line in self.log()]
        return all(
            sum(line.startswith(first) for line in said)
            == sum(line.startswith(last) for line in said)
            for first, last in (FOLLOWING, CURSORS, LISTENING)
        )

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look at it."""
        self.watchman.start()
        try:
            yield
        finally:
            self.watchman.stop()

    def log(self) -> list[Said]:
        """Read the whole log; what has another form is not ours."""
        lines = map(_LINE.match, self.server.log.read_text().splitlines())
        return [Said(int(line[1]), line[2], line[3]) for line in lines if line]

    def _all_said(self, words: str, before: int) -> bool:
        """Tell whether every worker has said so since the log had `before` lines."""
        said = {line.worker for line in self.log()[before:] if line.words.startswith(words)}
        return said.issuperset(self.server.worker_pids())

    def go_through(
        self,
        name: str,
        fault: Callable[[], contextlib.AbstractContextManager[None]],
        user: str,
        seconds: float = 1.0,
    ) -> Episode:
        """Let a fault begin, be noticed by all workers, last so long, and pass.

        A client that `user` has never had comes meanwhile; the app has to write for `user`.
        """
        episode = Episode(name)
        before = len(self.log())
        with contextlib.ExitStack() as stack:
            with fault():
                said = partial(self._all_said, FOLLOWING[0], before)
                eventually(said, NOTICE_SECONDS, f"{name}: it is noticed")
                noticed_at = time.monotonic()
                reader = stack.enter_context(Reader(self.server, user, str(uuid.uuid4())))
                first = reader.frame(FRAME_SECONDS)
                episode.first_frame_seconds = time.monotonic() - noticed_at
                episode.held = [first, *self._listen(reader, noticed_at + seconds)]
                mended_at = time.monotonic()
            said = partial(self._all_said, FOLLOWING[1], before)
            eventually(said, NOTICE_SECONDS, f"{name}: it is over")
            episode.begun = reader.expect("subscribed", seconds=NOTICE_SECONDS)
            episode.told = [change["file_id"] for change in reader.changes(1)]
        eventually(self.server.is_ready, what=f"{name}: ready again")
        episode.said = self.log()[before:]
        episode.looks = [look for look in self.watchman.looks if noticed_at < look.at < mended_at]
        return episode

    def _listen(self, reader: Reader, until: float) -> list[Frame | None]:
        """Hear what a client is told that waits for the database; None would be an end."""
        heard = []
        seen = len(self.watchman.looks)
        while time.monotonic() < until or len(self.watchman.looks) < seen + LOOKS:
            heard.append(reader.frame(FRAME_SECONDS))
        return heard


def begin(clients: Sequence[Client], url: str) -> None:
    """Start clients; wait until all have begun, and those with an id are known at `url`."""
    for client in clients:
        client.patience_seconds = FRAME_SECONDS
        client.start()
    for client in clients:
        assert client.begun.wait(20), "no stream began"
    ids = [client.client_id for client in clients if client.client_id is not None]
    query = "SELECT COUNT(*) FROM file_event_subscription WHERE state = 'live'"
    eventually(lambda: harness.scalar(url, query) == len(ids), what="the clients are known")


def judge(clients: Mapping[str, Client], journal: list[JournalRow], app: App) -> None:
    """Hold that everything committed is in the journal, and that every client was told of it."""
    written = {row.file_id for row in journal}
    assert written.issuperset(app.committed)
    # An answer that was lost leaves open whether its change was committed.
    assert written.issubset(app.tried)
    for name, client in clients.items():
        assert client.faults == [], (name, client.faults)
        assert client.position == len(journal), name
        assert client.wrong_claims(journal) == [], name
        if client.stay_seconds is None:
            assert client.connections == 1, name


def judge_pairs(said: Sequence[Said], most: int) -> None:
    """Hold that trouble and its end are said by turns, at most so many times by each worker."""
    for first, last in (FOLLOWING, CURSORS, LISTENING):
        for worker in {line.worker for line in said}:
            words = [line.words for line in said if line.worker == worker]
            turns = [
                0 if line.startswith(first) else 1
                for line in words
                if line.startswith((first, last))
            ]
            assert turns == [0, 1] * (len(turns) // 2), (worker, words)
            assert len(turns) // 2 <= most, (worker, words)

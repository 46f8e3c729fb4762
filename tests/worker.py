"""One worker's parts on SQLite and on a clock that the test owns: no greenlet, nothing sleeps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, exc, insert, select

from events_app import outbox, poll, schema, scope, sse, subscriptions, tailer, uri
from events_app.database import Database
from events_app.delivery import Ledger
from events_app.herald import Herald
from events_app.peers import Peer
from events_app.poll import Poll
from events_app.stream import Request, Stream
from events_app.surroundings import Pace, Surroundings
from events_app.tally import Tally
from tests import reused
from tests.frames import FRAME, Frame
from tests.manual_clock import ManualClock, at_once

T = TypeVar("T")

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
OTHER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"

PACE = Pace(
    debounce=5,
    debounce_max=30,
    keep_alive=25,
    drain=5,
    lifetime=None,
    limits=subscriptions.Limits(100_000, 256),
)
CONFIRM_SECONDS = 30


class Faulty(Database):
    """A database that is away while the test says so."""

    away = False

    def _run(self, work: Callable[[Connection], T], *, write: bool) -> T:
        if self.away:
            raise exc.OperationalError("SELECT", {}, Exception("the database is away"))
        return super()._run(work, write=write)


class StubbornPeer(Peer):
    """A peer whose kernel takes everything, or nothing; it may have left."""

    def __init__(self, *, takes: bool = True) -> None:
        super().__init__(None)
        self.takes = takes
        self.left = False

    def has_taken_all(self) -> bool:
        return self.takes

    def has_left(self) -> bool:
        return self.left


def watcher(path: str = "/", client_id: str | None = CLIENT, user_id: str = "42") -> scope.Watcher:
    """Make a watcher of `path`."""
    return scope.Watcher.of(user_id, client_id, uri.Folder("my", path))


class Worker:
    """A database, a tailer, a ledger and the streams on them."""

    def __init__(
        self, url: str, clock: ManualClock | None = None, debounce: float = PACE.debounce
    ) -> None:
        self.database = Faulty(url)
        self.clock = clock or ManualClock()
        self.tailer = tailer.Tailer(self.database, self.clock, 0.25)
        self.tally = Tally()
        self.ledger = Ledger(self.database, self.clock, CONFIRM_SECONDS)
        self.herald = Herald(
            self.database,
            self.tailer,
            self.clock,
            self.tally,
            debounce,
            PACE.debounce_max,
        )
        self.turn()

    def turn(self) -> None:
        """Move what waits and read it."""
        while self.tailer.turn():
            pass

    def commit(self, kind: str, path: str, to_path: str | None = None, **columns: Any) -> None:
        """Commit one change of user 42 (or `user_id`) and let the worker hear of it."""
        self.write(kind, path, to_path, **columns)
        self.turn()

    def grant(self, share_id: str = "s1", **columns: Any) -> None:
        """Let user 43 (or `user_id`) watch 42's /docs, or what the columns say."""
        values = {"user_id": "43", "owner_id": "42", "path": "/docs", "is_folder": 1} | columns
        query = insert(schema.grant).values(share_id=share_id, **values)
        self.database.write(lambda db: db.execute(query))

    def write(self, kind: str, path: str, to_path: str | None = None, **columns: Any) -> None:
        """Commit one change; nobody moves it yet."""
        values = {"user_id": "42", "file_id": f"f-{path}"} | columns
        user, file_id = values.pop("user_id"), values.pop("file_id")
        self.database.write(
            lambda db: outbox.append(db, user, kind, file_id, path, to_path, **values)
        )

    def later(self, seconds: float, kind: str, path: str, **columns: Any) -> None:
        """Commit one change so many seconds from now."""
        self.clock.at(self.clock.now + seconds, lambda: self.commit(kind, path, **columns))

    def around(self, **pace: Any) -> Surroundings:
        own = PACE._replace(**pace)
        return Surroundings(
            self.database,
            self.tailer,
            self.ledger,
            self.clock,
            own,
            self.tally,
            at_once,
            lambda arrival, _: subscriptions.connect(self.database, *arrival, own.limits),
            nullcontext(),
            self.herald,
        )

    def stream(
        self,
        who: scope.Watcher | None = None,
        last_event_id: str | None = None,
        *,
        payload: sse.Payload = "array",
        token_seconds: float = 86_400,
        peer: Peer | None = None,
        **pace: Any,
    ) -> Connected:
        """Open a stream; by default of client CLIENT on the whole tree of user 42."""
        request = Request(who or watcher(), last_event_id, payload, token_seconds)
        stream = Stream(self.around(**pace), request, peer or Peer(None))
        return Connected(self, stream)

    def poll(
        self,
        cursor: str | None = None,
        who: scope.Watcher | None = None,
        *,
        rows: int = 1_000,
        wait_seconds: float = 0,
        **pace: Any,
    ) -> Poll:
        """Make a request for a page; by default of client CLIENT on the whole tree of user 42."""
        request = poll.Request(who or watcher(), cursor, rows, wait_seconds)
        return Poll(self.around(**pace), request)

    def subscription(self, client_id: str = CLIENT) -> Any:
        """Read the stored cursor of a client that watches one folder; None: not there."""
        query = select(schema.subscription).where(schema.subscription.c.client_id == client_id)
        return self.database.read(lambda db: db.execute(query).one_or_none())

    def holds_nothing(self) -> bool:
        """Tell whether no stream has left anything behind."""
        return not self.tailer._bells and not self.ledger._deliveries

    def close(self) -> None:
        self.database.away = False
        self.ledger.flush()
        self.database.close()


class Connected:
    """A stream and its frames, read as a client would."""

    def __init__(self, worker: Worker, stream: Stream) -> None:
        self.worker = worker
        self.stream = stream
        self.frames: Generator[bytes] = stream.frames()
        self.opened_at = worker.clock.now

    @property
    def age(self) -> float:
        """Seconds since the stream was opened."""
        return self.worker.clock.now - self.opened_at

    def frame(self) -> Frame:
        """Return the next frame; it is one and nothing else. The clock goes as far as needed."""
        written = next(self.frames)
        found = FRAME.fullmatch(written)
        assert found is not None, written
        name, cursor, data = found.groups()
        return Frame(name.decode(), cursor.decode() if cursor else None, data.decode())

    def expect(self, name: str) -> Frame:
        """Return the next frame, which is of this name."""
        frame = self.frame()
        assert frame.name == name, frame
        return frame

    def told(self) -> list[tuple[str, str, str]]:
        """Return the next frame's changes as (type, from, to)."""
        frame = self.expect("event")
        return [(each["type"], each["from"], each["to"]) for each in frame.changes]

    def rest(self) -> list[Frame]:
        """Return every frame until the end of the body."""
        found = []
        while True:
            try:
                found.append(self.frame())
            except StopIteration:
                return found

    def close(self) -> None:
        """End as the server does when the client is gone; store what is known."""
        self.frames.close()
        self.worker.ledger.flush()


def make(request: pytest.FixtureRequest) -> Worker:
    """Make a worker on an empty journal."""
    return Worker(reused.url(request, "sqlite"))

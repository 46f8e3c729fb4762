"""A worker whose streams are written to real sockets, each told with others and once more alone."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, NamedTuple

import gevent
from gevent import socket
from gunicorn import util

from events_app import sse
from events_app.event import Cursor, Row
from events_app.line import Line
from events_app.peers import Peer
from events_app.scope import Watcher
from events_app.stream import Request, Stream
from tests.frames import FRAME, Frame
from tests.stepped_clock import SteppedClock
from tests.worker import Worker, watcher

# As little as the kernel allows: frames of some kilobytes do not fit.
BUFFER_BYTES = 1
# No keep-alive is due at the moment at which a run is: stories move in quarters of a second.
KEEP_ALIVE_SECONDS = 25.13


class Listener:
    """A stream, the greenlet that serves it as gunicorn does, and its client."""

    def __init__(
        self, stream: Stream, clock: SteppedClock, *, together: bool, chunked: bool
    ) -> None:
        self.stream = stream
        self._clock = clock
        self._chunked = chunked
        self._served, self._client = socket.socketpair()
        self._served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._client.settimeout(0)
        self.response = SimpleNamespace(sent=0)
        if together:
            line = Line(self._served, self.response, is_chunked=chunked)
            self.stream.may_write_past(line)
        self.came = b""
        self.reads = True
        self.greenlet = gevent.spawn(self._serve)

    def _serve(self) -> None:
        frames = self.stream.frames()
        with contextlib.suppress(OSError), self._served:
            for frame in frames:
                util.write(self._served, frame, self._chunked)
                self.response.sent += len(frame)
        frames.close()

    @property
    def is_alone(self) -> bool:
        """Tell whether it is no member of an audience."""
        footing = self.stream._footing
        return footing is None or footing.follower is not None

    @property
    def waits(self) -> bool:
        """Tell whether its greenlet waits for something to do."""
        return self._clock.waits(self.greenlet)

    @property
    def is_still(self) -> bool:
        """Tell whether its greenlet waits, or is over; read what came."""
        self.receive()
        return not self.reads or self.greenlet.dead or self.waits

    def receive(self) -> None:
        """Take what came."""
        with contextlib.suppress(BlockingIOError, OSError):
            while self.reads and (received := self._client.recv(65536)):
                self.came += received

    def make_room(self) -> None:
        """Take a little of what came; nobody who waits for room looks before the loop turns."""
        self.came += self._client.recv(100_000)

    @property
    def body(self) -> bytes:
        """What came, without what HTTP puts around it."""
        if not self._chunked:
            return self.came
        body, rest = b"", self.came
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            assert len(rest) < length + 2 or rest[length : length + 2] == b"\r\n"
            body, rest = body + rest[:length], rest[length + 2 :]
        return body

    @property
    def frames(self) -> list[Frame]:
        """The whole frames that came; nothing came between them."""
        found = list(FRAME.finditer(self.body))
        assert self.body.startswith(b"".join(each[0] for each in found))
        return [
            Frame(name.decode(), cursor.decode() if cursor else None, data.decode())
            for name, cursor, data in (each.groups() for each in found)
        ]

    @property
    def changes(self) -> list[dict[str, str]]:
        """What it was told in whole frames."""
        return [each for frame in self.frames for each in frame.changes]

    @property
    def told(self) -> bytes:
        """All bytes, but for the place in a cursor that never resumes: nobody looks at it."""
        body = self.body
        for each in self.frames:
            cursor = Cursor.parse(each.id or "")
            if each.id is not None and cursor is not None and cursor == cursor.fresh():
                body = body.replace(each.id.encode(), b"fresh")
        return body

    @property
    def delivered(self) -> tuple[Any, ...]:
        """What is noted of what it heard.

        At its end what was dropped counts too; who was told with others may have read more of it.
        """
        delivery = self.stream._delivery
        if delivery is None:
            return ()
        exactly = () if self.greenlet.dead else (delivery.position, *delivery.written)
        return delivery.state, delivery.writing, exactly

    def go(self) -> None:
        """Close the connection, and let the stream hear of that."""
        self.receive()
        self._client.close()
        self.stream.peer_closed()


class Seat(NamedTuple):
    """One client, twice: as it is told with others, and as it is told alone."""

    together: Listener
    alone: Listener

    def compare(self) -> None:
        """Fail unless both have heard the same, byte for byte, and both are known to have."""
        assert self.together.told == self.alone.told
        assert self.together.delivered == self.alone.delivered
        assert self.together.response == self.alone.response


class Hall:
    """A worker on a clock that moves in steps, its herald, and who listens."""

    def __init__(self, url: str, debounce: float) -> None:
        self.clock = SteppedClock(self._is_settled)
        self.listeners: list[Listener] = []
        self._debounce = debounce
        self.worker = Worker(url, self.clock, debounce)
        self._seen_at: dict[int, float] = {}
        # The database has another clock, which does not stand still meanwhile.
        self.worker.tailer.age_seconds = self._age_seconds  # type: ignore[method-assign] # for once
        self._herald = gevent.spawn(self.worker.herald.run)

    def _age_seconds(self, row: Row) -> float:
        return self.clock.now - self._seen_at.setdefault(row.position, self.clock.now)

    def _is_settled(self) -> bool:
        still = [listener.is_still for listener in self.listeners]
        return all(still) and self.clock.waits(self._herald)

    def listen(
        self,
        who: Watcher | None = None,
        last_event_id: str | None = None,
        *,
        payload: sse.Payload = "array",
        together: bool = True,
        chunked: bool = True,
    ) -> Listener:
        """Let somebody come, and begin."""
        request = Request(who or watcher(), last_event_id, payload, 86_400)
        made = self.let_in(request, together=together, chunked=chunked)
        self.clock.settle()
        return made

    def let_in(self, request: Request, *, together: bool = True, chunked: bool = True) -> Listener:
        """Let somebody come, who begins when the loop turns."""
        around = self.worker.around(debounce=self._debounce, keep_alive=KEEP_ALIVE_SECONDS)
        stream = Stream(around, request, Peer(None))
        made = Listener(stream, self.clock, together=together, chunked=chunked)
        self.listeners.append(made)
        return made

    def commit(self, kind: str, path: str, to_path: str | None = None, **columns: Any) -> None:
        """Commit a change, and let everybody hear of it."""
        self.worker.commit(kind, path, to_path, **columns)
        self.clock.settle()

    def close(self) -> None:
        """Let everybody go."""
        for listener in self.listeners:
            listener.go()
        gevent.joinall([listener.greenlet for listener in self.listeners])
        self._herald.kill()
        self.worker.close()

"""A plain reader of a stream: a socket, and exactly the frames that the protocol allows."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import NamedTuple, Protocol, Self
from urllib.parse import quote

from tests.serving import EVENTS_PATH

FRAME = re.compile(
    rb"event: ([a-z-]+)\n(?:id: ([A-Za-z0-9_-]+)\n)?(?:retry: [1-9]\d*\n)?data: ([\x20-\x7e]+)\n\n"
)
NAMES = {"subscribed", "resumed", "event", "keep-alive", "reconnect-required"}


class Frame(NamedTuple):
    """One frame as it came."""

    name: str
    id: str | None
    data: str

    @property
    def changes(self) -> list[dict[str, str]]:
        """Return the changes of an `event` frame in either payload."""
        document = json.loads(self.data)
        return document if isinstance(document, list) else [document]


class Serves(Protocol):
    """What a reader needs of a server."""

    def connect(self) -> socket.socket:
        """Open a connection."""

    def headers(self, user: str, client_id: str | None) -> dict[str, str]:
        """Make the headers of a request."""


class Reader:
    """One connection. Every byte must belong to a frame, or the test fails."""

    def __init__(
        self,
        server: Serves,
        user: str = "42",
        client_id: str | None = None,
        uri: str = "cloudreve://my",
        last_event_id: str | None = None,
        query: str = "",
        token: str | None = None,
    ) -> None:
        self.connection = server.connect()
        headers = {"Host": "x"} | server.headers(user, client_id)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        target = f"{EVENTS_PATH}?uri={quote(uri, safe='')}{query}"
        self.connection.sendall(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode())
        self._raw = b""
        self._body = b""
        self.ended = False
        self.status, self.head = self._read_head()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def _read_head(self) -> tuple[int, str]:
        while b"\r\n\r\n" not in self._raw:
            self._receive(20)
        head, _, self._raw = self._raw.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode()

    def _receive(self, seconds: float) -> None:
        self.connection.settimeout(max(seconds, 0.001))
        received = self.connection.recv(65536)
        if not received:
            raise EOFError("the connection ended without a final chunk")
        self._raw += received

    def _dechunk(self) -> None:
        while not self.ended:
            size, separator, rest = self._raw.partition(b"\r\n")
            if not separator or len(rest) < int(size, 16) + 2:
                return
            length = int(size, 16)
            self._body += rest[:length]
            self._raw = rest[length + 2 :]
            self.ended = length == 0

    def frame(self, seconds: float = 20.0) -> Frame | None:
        """Return the next frame; None at the clean end. TimeoutError when none comes in time."""
        deadline = time.monotonic() + seconds
        while True:
            self._dechunk()
            found = FRAME.match(self._body)
            if found:
                self._body = self._body[found.end() :]
                name, cursor, data = found.groups()
                assert name.decode() in NAMES
                return Frame(name.decode(), cursor.decode() if cursor else None, data.decode())
            if self.ended:
                assert self._body == b""
                return None
            self._receive(deadline - time.monotonic())

    def expect(self, *names: str, seconds: float = 20.0) -> Frame:
        """Return the next frame that is no keep-alive (unless asked for); it has such a name."""
        deadline = time.monotonic() + seconds
        while (frame := self.frame(deadline - time.monotonic())) is not None:
            if frame.name in names:
                return frame
            assert frame.name == "keep-alive", (frame, names)
        raise AssertionError(f"the stream ended; expected {names}")

    def changes(self, count: int, seconds: float = 20.0) -> list[dict[str, str]]:
        """Read `event` frames until so many changes have come; return them all."""
        found: list[dict[str, str]] = []
        deadline = time.monotonic() + seconds
        while len(found) < count:
            found += self.expect("event", seconds=deadline - time.monotonic()).changes
        return found

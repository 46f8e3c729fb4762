"""One GET over a bare socket: nothing but TCP between the server and the reader."""

import socket
from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import urlsplit

# Longer than a test server is silent: beyond it the stream is stuck, and reading raises.
SILENCE_SECONDS = 20


class CutOffError(Exception):
    """The connection ended before the body did."""


class ChunkedBody:
    """HTTP/1.1's chunked transfer coding (RFC 9112, section 7.1), fed in any pieces."""

    def __init__(self) -> None:
        self.chunks: list[bytearray] = []
        """What each chunk held: the last is empty at the end of the body."""
        self.ended = False
        self._line = b""
        self._left = 0

    def feed(self, piece: bytes) -> bytes:
        """Take what came over the connection; return the bytes of the body in it."""
        body = b""
        while piece and not self.ended:
            if self._left:
                taken, piece = piece[: self._left], piece[self._left :]
                self._left -= len(taken)
                self.chunks[-1] += taken
                body += taken
            else:
                line, found, rest = (self._line + piece).partition(b"\n")
                self._line, piece = (b"", rest) if found else (line, b"")
                if found:
                    self._framing(line.removesuffix(b"\r"))
        return body

    def _framing(self, line: bytes) -> None:
        """Take a chunk's size, or the empty line behind a chunk or behind the last one's size."""
        if line:
            self._left = int(line, 16)
            self.chunks.append(bytearray())
        elif not self.chunks[-1]:
            self.ended = True


class Connection:
    """A request that was answered, and its body as it comes.

    `step` is the most bytes that are taken from the socket at a time. Raises OSError where there
    is no connection, and CutOffError where it ends too early.
    """

    def __init__(self, url: str, headers: Mapping[str, str], *, step: int) -> None:
        parts = urlsplit(url)
        self._step = step
        self._socket = socket.create_connection(
            (parts.hostname, parts.port), timeout=SILENCE_SECONDS
        )
        lines = [f"GET {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            self._socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
            self.status, self.headers = self._head()
        except BaseException:
            self._socket.close()
            raise
        self.chunked = ChunkedBody()

    def __enter__(self) -> Self:
        """Be closed at the end of a `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._socket.close()

    def body(self) -> Iterator[bytes]:
        """Pass the body on in the pieces in which it came; raises CutOffError."""
        while not self.chunked.ended:
            if piece := self.chunked.feed(self._receive(self._step)):
                yield piece

    def _head(self) -> tuple[int, list[tuple[str, str]]]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._receive(1)
        status, *fields = head.decode("ascii").split("\r\n")[:-2]
        pairs = [field.split(": ", 1) for field in fields]
        return int(status.split(" ")[1]), [(name.lower(), value) for name, value in pairs]

    def _receive(self, most: int) -> bytes:
        piece = self._socket.recv(most)
        if not piece:
            raise CutOffError
        return piece

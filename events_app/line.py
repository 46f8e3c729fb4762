"""The way to a peer's kernel past the server's own writing.

gunicorn writes what a generator yields, in the greenlet that waits for it. To wake a greenlet for
each of ten thousand frames that are all the same costs twice what the kernel takes for them. Where
the connection is a plain socket, and what the server writes around a frame is known, others may
write a frame for a greenlet that waits.
"""

from __future__ import annotations

from typing import Protocol

from gevent import socket


class Response(Protocol):
    """What gunicorn counts of an answer: bytes of its body."""

    sent: int


class Line:
    """A plain socket on which gunicorn has begun an answer.

    `is_chunked`: each frame is carried as a chunk (RFC 9112, section 7.1), else as it is.
    """

    __slots__ = ("_connection", "_is_chunked", "_response")

    def __init__(self, connection: socket.socket, response: Response, *, is_chunked: bool) -> None:
        """Write to `connection`, and note it in `response`."""
        self._connection = connection
        self._response = response
        self._is_chunked = is_chunked

    def send(self, frame: bytes, chunk: bytes) -> bytes:
        """Write what the kernel takes at once of the frame, or of its chunk; return the rest.

        It takes nothing either when its buffer is full or when the connection is broken: `finish`
        finds out.
        """
        wire = chunk if self._is_chunked else frame
        try:
            taken: int = self._connection.send(wire, 0, 0.0)
        except OSError:
            return wire
        if taken < len(wire):
            return wire[taken:]
        self._response.sent += len(frame)
        return b""

    def finish(self, frame: bytes, rest: bytes) -> None:
        """Write the rest of a frame, waiting where the kernel takes nothing.

        Raises `TimeoutError` when it takes nothing for the connection's timeout, and `OSError` when
        the connection is broken.
        """
        self._connection.sendall(rest)
        self._response.sent += len(frame)

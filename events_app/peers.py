"""What the kernel knows about the other end of a stream's socket.

A write is the only thing that notices a closed client by itself, and the first write after a
close still succeeds. So one epoll per worker waits for nothing but the peer's end of sending
(RDHUP), and the send queue tells what the peer's kernel has taken. Behind a proxy the peer is the
proxy.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable

from gevent import monkey
from gevent.socket import wait_read

from events_app import passes

# Limits what a stalled reader holds of the kernel's memory to tens of kilobytes.
SEND_BUFFER_BYTES = 16 * 1024

# When a network or a proxy goes, thousands go at once, and the end of each takes a third of a
# millisecond.
CLOSED_IN_PASS = 10

_original_epoll = monkey.get_original("select", "epoll")
_original_poll = monkey.get_original("select", "poll")


class Peer:
    """The other end of one stream. Without a socket (not gunicorn) it knows little."""

    __slots__ = ("_connection",)

    def __init__(self, connection: socket.socket | None) -> None:
        """Look at `connection`, which stays its owner's."""
        self._connection = connection

    @property
    def socket(self) -> socket.socket | None:
        """The socket, for the watch."""
        return self._connection

    def has_taken_all(self) -> bool:
        """Tell whether the peer's kernel has acknowledged everything that was written."""
        if self._connection is None:
            return True
        try:
            answer = fcntl.ioctl(self._connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        except (OSError, ValueError):  # the latter: it is closed and has no number any more
            return False
        return bool(struct.unpack("i", answer)[0] == 0)

    def has_left(self) -> bool:
        """Tell whether the peer has closed or broken off; the watch may be about to say so."""
        if self._connection is None:
            return False
        ends = _original_poll()
        try:
            ends.register(self._connection.fileno(), select.POLLRDHUP)
        except ValueError:  # it is closed and has no number any more
            return True
        return bool(ends.poll(0))

    def limit(self, send_timeout_seconds: float, dead_after_seconds: float) -> None:
        """Drop a peer that takes nothing for the first, or answers nothing for the second time."""
        connection = self._connection
        if connection is None:
            return
        connection.settimeout(send_timeout_seconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if connection.family not in {socket.AF_INET, socket.AF_INET6}:
            return
        probes = 3
        interval = max(1, int(dead_after_seconds / (probes + 1)))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, interval),
            (socket.TCP_KEEPINTVL, interval),
            (socket.TCP_KEEPCNT, probes),
            (socket.TCP_USER_TIMEOUT, int(1000 * min(send_timeout_seconds, dead_after_seconds))),
        ):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Watch:
    """Tells streams that their peer has closed, within milliseconds. One per worker."""

    def __init__(self) -> None:
        """Watch nobody yet."""
        self._epoll = _original_epoll()
        self._told: dict[int, Callable[[], object]] = {}

    def add(self, peer: Peer, tell: Callable[[], object]) -> None:
        """Call `tell` once when the peer closes or breaks off."""
        if peer.socket is None:
            return
        number = peer.socket.fileno()
        self._told[number] = tell
        self._epoll.register(number, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def remove(self, peer: Peer) -> None:
        """Watch the peer no more; to be called while its socket is still open."""
        if peer.socket is None or peer.socket.fileno() not in self._told:
            return
        del self._told[peer.socket.fileno()]
        with contextlib.suppress(OSError):
            self._epoll.unregister(peer.socket.fileno())

    def run(self) -> None:
        """Tell for ever; ends when the greenlet is killed."""
        while True:
            wait_read(self._epoll.fileno())
            closed = self._epoll.poll(0, CLOSED_IN_PASS)
            for number, _ in closed:
                if tell := self._told.get(number):
                    tell()
            # Only behind a crowd: who comes back at once is to find the old place free.
            if len(closed) == CLOSED_IN_PASS:
                passes.pause()

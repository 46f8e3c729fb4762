"""What the kernel knows about the other end of a stream's socket.

A write is the only thing that notices a closed client by itself, and the first write after a
close still succeeds. So one epoll per worker waits for nothing but the peer's end of sending
(RDHUP), and the send queue tells what the peer's kernel has taken. Behind a proxy the peer is the
proxy.
An idle peer on another machine is asked by the kernel's keep-alive whether it is there. Streams
that were told together fall silent together: asked all at the same times, they would make a burst
of which the kernel itself drops most, as it queues a thousand packets for a virtual or the loopback
device, and live peers would be taken for dead. So each is asked at times of its own, and a peer on
this machine not at all: its end is always noticed.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import math
import random
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

# Where there is time, a peer is dead that has not answered so many questions, a second apart.
QUESTIONS = 6

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
        dead_after = min(send_timeout_seconds, dead_after_seconds)
        milliseconds = int(1000 * dead_after)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        if not _is_local(connection):
            _ask_when_idle(connection, max(2, math.ceil(dead_after)))


def _is_local(connection: socket.socket) -> bool:
    """Tell whether the other end is on this machine."""
    try:
        here, there = connection.getsockname()[0], connection.getpeername()[0]
    except OSError:  # it is gone already
        return True
    return here == there or ipaddress.ip_address(there).is_loopback


def _ask_when_idle(connection: socket.socket, dead_after_seconds: int) -> None:
    """Let the kernel ask an idle peer, at times that differ from connection to connection."""
    earliest = math.ceil(dead_after_seconds / 3)
    latest = max(earliest, dead_after_seconds - QUESTIONS)
    idle = random.randint(earliest, latest)  # noqa: S311 -- guards nothing
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, idle),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, dead_after_seconds - idle),
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

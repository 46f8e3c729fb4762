"""gunicorn's gevent worker, which leaves nobody behind: not at its master's death, nor at its own.

Theory of operation
    When its master is gone, gunicorn's worker exits where it stands, and every stream breaks off.
    This one takes it for a SIGTERM: streams are told, cursors stored, and the port is free soon.
    When gunicorn's worker stops to listen, whom the kernel has let in and nobody has taken yet
    gets a reset. This one takes everybody first.
    Browsers and balancers connect ahead, and say nothing for minutes. gunicorn's worker waits for
    their requests until it is killed; this one, once it leaves, for a second.
    When gunicorn's worker cannot start, all others end. Of this one they hear nothing: see `start`.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import gevent
import gevent.socket
from gevent import monkey
from gevent.server import StreamServer
from gunicorn.workers import ggevent

from events_app import start

_OriginalSocket: type[socket.socket] = monkey.get_original("socket", "socket")


class Acceptor(StreamServer):  # type: ignore[misc] # gevent has no types
    """Takes connections; the last ones when it closes."""

    def close(self) -> None:
        """Take whoever waits in the kernel's queue, and listen no more."""
        if not self.closed:
            self.stop_accepting()
            for connection, address in self._take_the_last():
                self.do_handle(gevent.socket.socket(fileno=connection.detach()), address)
        super().close()

    def _take_the_last(self) -> list[tuple[socket.socket, Any]]:
        """Close the socket in the moment in which its queue is empty.

        Whoever came in between would get a reset, so there is next to nothing between.
        """
        taken = []
        with (
            _OriginalSocket(fileno=self.socket.detach()) as listening,
            contextlib.suppress(BlockingIOError),
        ):
            listening.settimeout(0)
            while True:
                taken.append(listening.accept())
        return taken


class Name:
    """What gunicorn asks of the listening socket when a request begins: also when it is closed."""

    def __init__(self, listening: Any) -> None:
        """Remember the name of `listening`."""
        self._name = listening.getsockname()

    def getsockname(self) -> Any:
        """Return the name."""
        return self._name


class Silent:
    """The connections on which no request has come yet, each by the greenlet that reads it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._connections: dict[object, Any] = {}
        self._known: frozenset[object] = frozenset()

    def add(self, reader: object, connection: Any) -> None:
        """Wait for its request."""
        self._connections[reader] = connection

    def discard(self, reader: object) -> None:
        """Its request is there, or the connection has ended."""
        self._connections.pop(reader, None)

    def part(self) -> None:
        """End those that were silent at the call before, too: their readers find an end."""
        for reader in self._known & self._connections.keys():
            with contextlib.suppress(OSError):
                self._connections[reader].shutdown(socket.SHUT_RDWR)
        self._known = frozenset(self._connections)


class Worker(ggevent.GeventWorker):  # type: ignore[misc] # gunicorn has no types
    """One process that serves streams."""

    ppid: int
    alive: bool
    booted: bool
    service: start.Service

    def init_process(self) -> None:
        """Start, and serve until the end."""
        self._silent = Silent()
        try:
            super().init_process()
        except (Exception, SystemExit) as fault:
            if self.booted:
                raise
            if self.alive:
                start.give_up(self, fault)

    def run(self) -> None:
        """Serve until the end."""
        # The only way to bring one's own: gunicorn makes it under this name.
        ggevent.StreamServer = Acceptor
        self._names = {listening: Name(listening) for listening in self.sockets}
        self.service.begin()
        super().run()

    def handle(self, listening: Any, client: Any, address: Any) -> None:
        """Serve one connection."""
        reader = gevent.getcurrent()
        self._silent.add(reader, client)
        try:
            super().handle(self._names[listening], client, address)
        finally:
            self._silent.discard(reader)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Answer one request."""
        self._silent.discard(gevent.getcurrent())
        super().handle_request(listener_name, req, sock, addr)

    def notify(self) -> None:
        """Say that this worker lives, once a second; begin to leave when the master does not."""
        parent = os.getppid()
        if parent != self.ppid:
            self.log.error("the master is gone, and so this worker ends")
            self.ppid = parent
            self.alive = False
        if not self.alive:
            self._silent.part()
        super().notify()

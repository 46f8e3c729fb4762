"""A stretch of network that can be cut, frozen and slow, between a server and its database."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

LISTEN_BACKLOG = 64


class Proxy:
    """Forwards a loopback port of its own to another one, while it is let."""

    def __init__(self, target: tuple[str, int]) -> None:
        """Forward to `target`; nothing is listening before `restore`."""
        self._target = target
        self._listener: socket.socket | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flowing = threading.Event()
        self._delay_seconds = 0.0
        self._lock = threading.Lock()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def __enter__(self) -> Self:
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def restore(self) -> None:
        """Listen and forward, again or for the first time; what was frozen flows on."""
        self._flowing.set()
        if self._listener is None:
            self._listener = socket.create_server(
                ("127.0.0.1", self.port), backlog=LISTEN_BACKLOG, reuse_port=True
            )
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Refuse connections, and break those that there are."""
        with self._lock:
            listener, self._listener = self._listener, None
            pairs, self._pairs = self._pairs, []
        if listener is not None:
            # Only a shutdown wakes the thread that waits in accept().
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._flowing.set()

    def lead_to(self, target: tuple[str, int]) -> None:
        """Forward new connections to `target`; those that there are stay where they are."""
        self._target = target

    def delay(self, seconds: float) -> None:
        """Hold up everything that is asked by so much."""
        self._delay_seconds = seconds

    def freeze(self) -> None:
        """Keep every connection, accept more, and let no byte through."""
        self._flowing.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
                was_cut = self._listener is not listener
            for pump, pair in ((self._ask, (near, far)), (self._pump, (far, near))):
                threading.Thread(target=pump, args=pair, daemon=True).start()
            if was_cut:
                self.cut()

    def _ask(self, source: socket.socket, sink: socket.socket) -> None:
        self._pump(source, sink, lambda: time.sleep(self._delay_seconds))

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                before_each()
                self._flowing.wait()
                sink.sendall(received)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

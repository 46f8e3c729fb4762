"""A client that falls silent, leaves and comes back when the test says so."""

from __future__ import annotations

import threading
from typing import Any

from tests.frames import Frame
from tests.server.harness_client import Client
from tests.serving import Server


class Traveller(Client):
    """A watcher with a mind of its own; keep-alives tell it of every wish within a second.

    It gives a connection up that is silent for `patience_seconds`, as real clients do. `away` is
    set while it reads nothing, with or without a connection.
    """

    def __init__(
        self, servers: list[Server], user: str, *, patience_seconds: float = 20.0, **others: Any
    ) -> None:
        super().__init__(servers, user, **others)
        self.patience_seconds = patience_seconds
        self.away = threading.Event()
        self._may_connect = threading.Event()
        self._may_read = threading.Event()
        self._leaves = False
        self.come_back()

    def stay_away(self) -> None:
        """Do not connect again; the connection that it has may last."""
        self._may_connect.clear()

    def leave(self) -> None:
        """Close the connection and stay away."""
        self.stay_away()
        self._leaves = True

    def stop_reading(self) -> None:
        """Keep the connection and take nothing from it."""
        self._may_read.clear()

    def come_back(self) -> None:
        """Connect and read again."""
        self._leaves = False
        self._may_connect.set()
        self._may_read.set()

    def _connect_once(self) -> None:
        self._wait_for(self._may_connect)
        super()._connect_once()

    def _hear(self, frame: Frame) -> None:
        super()._hear(frame)
        self._wait_for(self._may_read)
        if self._leaves:
            raise ConnectionError("it leaves")

    def _wait_for(self, leave: threading.Event) -> None:
        if not leave.is_set():
            self.away.set()
            leave.wait()
            self.away.clear()

    def _hears_nothing(self) -> None:
        """Let the connection go, and try another one."""

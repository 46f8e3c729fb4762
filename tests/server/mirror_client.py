"""A client that follows a stream and keeps a mirror, quickly or slowly."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable

from events_app import event
from tests.frames import Frame, Reader
from tests.server.mirror_copy import Mirror
from tests.serving import Server

LOOK_SECONDS = 0.1
# Shorter than EVENTS_CONFIRM_SECONDS: what lies unread in a socket for longer counts as received.
STAY_SECONDS = 2.0
SLOW_SECONDS = 0.5
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Client(threading.Thread):
    """Keeps a mirror up to date. One that is slow reads with pauses and is cut off again and again.

    A slow one comes back by its last `id`, having dropped what it did not apply, or by nothing but
    its client id.
    """

    def __init__(
        self,
        server: Server,
        token: str,
        mirror: Mirror,
        watched: str,
        client_id: str,
        *,
        slow: bool = False,
        query: str = "",
    ) -> None:
        super().__init__(daemon=True)
        self.mirror = mirror
        self.watched = watched
        self.client_id = client_id
        self.slow = slow
        self.begun = threading.Event()
        # What it was told, with the position that its `id` had then.
        self.heard: list[tuple[int, dict[str, str]]] = []
        self.starts: list[str] = []
        self.between_frames: Callable[[], None] = lambda: None
        self._server = server
        self._token = token
        self._query = query
        self._last_id: str | None = None
        self._by_event_id = True
        self._pending: list[dict[str, str]] = []
        self._target: int | None = None
        self._left = threading.Event()
        self._random = random.Random(client_id)  # noqa: S311 -- guards nothing

    @property
    def faults(self) -> list[str]:
        return self.mirror.faults

    def finish_at(self, position: int) -> None:
        """End as soon as everything up to `position` has been told."""
        self._target = position

    def leave(self) -> None:
        """End now."""
        self._left.set()

    def run(self) -> None:
        try:
            while not self._is_done():
                self._pending = []
                with contextlib.suppress(EOFError, ConnectionError):
                    self._connect_once()
        except Exception:  # noqa: BLE001 -- whatever it is, the test must hear of it
            self.faults.append(traceback.format_exc())

    def _is_done(self) -> bool:
        told = self._target is not None and self.mirror.position >= self._target
        return told or self._left.is_set() or bool(self.faults)

    def _connect_once(self) -> None:
        with Reader(
            self._server,
            client_id=self.client_id,
            uri=f"cloudreve://my{self.watched}",
            last_event_id=self._last_id if self._by_event_id else None,
            query=self._query,
            token=self._token,
        ) as reader:
            self._listen(reader)

    def _listen(self, reader: Reader) -> None:
        stays_until = time.monotonic() + self._random.uniform(0.3, 1) * STAY_SECONDS
        while not self._is_done():
            try:
                frame = reader.frame(LOOK_SECONDS)
            except TimeoutError:
                self.between_frames()
                continue
            if frame is None:
                return
            if self.slow and time.monotonic() > stays_until and self.begun.is_set():
                self._cut(reader, frame)
                return
            self._hear(frame)
            self.between_frames()
            if self.slow:
                self._left.wait(self._random.uniform(0, SLOW_SECONDS))

    def _cut(self, reader: Reader, frame: Frame) -> None:
        """Break the connection off; what was read and not applied is known by the last id only."""
        self._by_event_id = not self._by_event_id
        if not self._by_event_id:
            self._hear(frame)
        else:
            reset = (socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            reader.connection.setsockopt(*reset)

    def _hear(self, frame: Frame) -> None:
        if frame.id is None:
            return  # held: nothing is claimed yet
        cursor = event.Cursor.parse(frame.id)
        assert cursor is not None, frame
        position = cursor.point.position
        if frame.name == "subscribed":
            self.mirror.position = position
            self.mirror.list_afresh()
        elif frame.name == "resumed":
            self._resume(position, partly=cursor.partly)
        else:
            self._take(frame, position)
        if frame.name in {"subscribed", "resumed", "reconnect-required"}:
            self.starts.append(frame.name)
        self._last_id = frame.id
        self.begun.set()

    def _resume(self, position: int, *, partly: bool) -> None:
        if self._by_event_id and position != self.mirror.position:
            self.faults.append(f"resumed at {position} and not at {self.mirror.position}")
        if position > self.mirror.position:
            self.faults.append(f"resumed at {position}, told only up to {self.mirror.position}")
        if partly or not self._by_event_id:
            self.mirror.expect_repetition()
        self.mirror.position = position

    def _take(self, frame: Frame, position: int) -> None:
        changes = frame.changes if frame.name == "event" else []
        self._pending += changes
        self.heard += [(position, change) for change in changes]
        if position > self.mirror.position:
            batch, self._pending = self._pending, []
            self.mirror.apply(batch, position)
        elif position < self.mirror.position:
            self.faults.append(f"the id went back from {self.mirror.position} to {position}")

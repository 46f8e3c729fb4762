"""What the log and the worker's counts are told of one stream."""

from __future__ import annotations

import logging
import uuid

from events_app import logs
from events_app.scope import Watcher
from events_app.tally import Tally

log = logging.getLogger(__name__)

# How a stream ends that was not ended: its peer closed, or took nothing or broke off.
CLIENT_LEFT, DROPPED = "client_left", "dropped"


class Chronicle:
    """The life of one stream, under one correlation id. Times are monotonic seconds."""

    __slots__ = ("_correlation", "_is_waiting", "_opened_at", "_tally", "_watcher")

    def __init__(self, tally: Tally, watcher: Watcher, now: float) -> None:
        """Open it for a stream of `watcher` that begins `now`."""
        self._tally = tally
        self._watcher = watcher
        self._opened_at = now
        self._is_waiting = False
        # A number, because its text takes twice as much memory, and ten thousand idle streams too.
        self._correlation = uuid.uuid4().int

    def waits(self, error: Exception) -> None:
        """Note a try that failed and comes again; said once, not with every try."""
        if not self._is_waiting:
            self._say("a stream waits for the database", error=error)
        self._is_waiting = True

    def goes_on(self) -> None:
        """Note a try that did not fail."""
        self._is_waiting = False

    def begins(self, frame: str, reason: str, position: int) -> None:
        """Note the frame that begins the stream, why it is that one, and where it starts."""
        self._tally.begun[frame, reason] += 1
        self._say("a stream begins", event=frame, reason=reason, position=position)

    def wrote(self, name: str, frame: bytes) -> None:
        """Note a frame that the kernel has taken."""
        self._tally.frames[name] += 1
        self._tally.sent_bytes += len(frame)

    def told(self, rows: int, changes: int) -> None:
        """Note so many changes in frames that were written, folded from so many rows."""
        self._tally.folded_rows += rows
        self._tally.told_changes += changes

    def ends(self, reason: str, now: float) -> None:
        """Note the end."""
        self._tally.ended[reason] += 1
        self._say("a stream ends", reason=reason, seconds=round(now - self._opened_at, 3))

    def _say(self, message: str, **more: object) -> None:
        about = logs.fields(
            correlation_id=uuid.UUID(int=self._correlation),
            user_id=self._watcher.user_id,
            client_id=self._watcher.client_id,
            **more,
        )
        log.info(message, extra=about)

"""The streams that are open in this worker, and whether one more may be."""

from __future__ import annotations

from collections import Counter

from events_app import errors
from events_app.stream import Stream


class Admission:
    """Counts streams against the caps, and tells all of them when the worker stops."""

    def __init__(self, most: int, most_per_user: int) -> None:
        """Admit at most `most` streams, `most_per_user` of one user."""
        self._most = most
        self._most_per_user = most_per_user
        self._streams: set[Stream] = set()
        self._per_user: Counter[str] = Counter()
        self._stopping = False

    def __len__(self) -> int:
        """Count the open streams."""
        return len(self._streams)

    def check(self, user_id: str) -> None:
        """Raise `TooManyStreams` when the user may not open one more."""
        if self._per_user[user_id] >= self._most_per_user:
            raise errors.TooManyStreams
        if len(self) >= self._most:
            raise errors.TooManyStreams("This server has no room for another stream now.")

    def enter(self, stream: Stream) -> None:
        """Count `stream` in; while the worker stops it ends soon."""
        self._streams.add(stream)
        self._per_user[stream.user_id] += 1
        if self._stopping:
            stream.stop(late=True)

    def leave(self, stream: Stream) -> None:
        """Count `stream` out."""
        if stream not in self._streams:
            return
        self._streams.remove(stream)
        self._per_user[stream.user_id] -= 1
        if not self._per_user[stream.user_id]:
            del self._per_user[stream.user_id]

    def stop(self) -> None:
        """Tell every stream, also those to come, that the worker stops."""
        self._stopping = True
        for stream in list(self._streams):
            stream.stop()

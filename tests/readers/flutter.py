"""A model of a Flutter client of Cloudreve, as it reads the stream.

Theory of operation
    Each network chunk is decoded for itself, and what is no UTF-8 in it becomes U+FFFD. Lines end
    at LF. An `event` whose data begins with `[` is parsed as a list of changes; if one element
    lacks `type`, `file_id` or `from`, or holds anything but texts, the whole list is dropped
    without a word. Names it doesn't know are ignored. `reconnect-required` and the end of the body
    make it come back.
    It joins a path to its folder's URI as it is, so a path begins with one slash.
    It sends its client id and keeps no frame ids.

Rules for the wire that follow
    ASCII only; every change has its four keys, and each value is a text, also the `to` of what is
    no rename.
"""

import json
from collections.abc import Iterator

from tests.readers.heard import Change, Heard

REQUIRED = ("type", "file_id", "from")


class Flutter:
    """One connection of the client."""

    def __init__(self) -> None:
        self._text = ""
        self._name = ""
        self._data = ""
        self.dropped: list[str] = []
        """The `data` of events that went by unheard; the client itself never learns of them."""

    def feed(self, chunk: bytes) -> Iterator[Heard]:
        """Take a chunk and tell the application."""
        first, *more = chunk.decode("utf-8", "replace").split("\n")
        self._text += first
        for rest in more:
            line, self._text = self._text, rest
            if (heard := self._line(line)) is not None:
                yield heard

    def end(self) -> Iterator[Heard]:
        """Take the end of the body: a frame without its empty line is lost."""
        yield from ()

    def _line(self, text: str) -> Heard | None:
        line = text.removesuffix("\r")
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data += value + "\n"
        return None

    def _dispatch(self) -> Heard | None:
        name, data = self._name, self._data.strip()
        self._name = self._data = ""
        if not data or name != "event":
            return Heard(name) if data else None
        changes = _changes(data)
        if changes is None:
            self.dropped.append(data)
            return None
        return Heard(name, changes)


def _changes(data: str) -> tuple[Change, ...] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    elements = value if isinstance(value, list) else [value]
    return tuple(elements) if all(map(_is_change, elements)) else None


def _is_change(value: object) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in REQUIRED)
        and isinstance(value.get("to", ""), str)
    )

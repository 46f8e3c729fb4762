"""A model of Cloudreve's desktop client, as it reads the stream.

Theory of operation
    Each network chunk is decoded for itself, and what is no UTF-8 in it becomes U+FFFD: a
    character that two chunks share is two replacement characters. The text is searched for an
    empty line. The block before it counts by its last `event:` and its last `data:` line. A block
    that says nothing to the client (a comment, a name it doesn't know, no name, an empty array)
    makes it ask the network for more before it looks at what it already holds.
    Anything in an `event` that is no JSON, or not a list of whole changes, ends the connection as
    a fault; after the sixth fault the client is silent for an hour.
    It sends its client id and keeps no frame ids; `reconnect-required` or the end of the body make
    it come back at once.

Rules for the wire that follow
    ASCII only; one write a frame; the five names and no others; no comments, no block without
    `data`, no second `data` line, no empty `event`.
"""

import json
from collections.abc import Iterator

from tests.readers.heard import Heard, is_change

SEPARATORS = ("\n\n", "\r\n\r\n")
PLAIN = ("subscribed", "resumed", "keep-alive", "reconnect-required")


class ClientFaultError(Exception):
    """The client gives the connection up and counts a fault."""


class Desktop:
    """One connection of the client."""

    def __init__(self) -> None:
        self._text = ""
        self._searched = 0

    def feed(self, chunk: bytes) -> Iterator[Heard]:
        """Take a chunk and tell the application; raises ClientFaultError."""
        self._text += chunk.decode("utf-8", "replace")
        while (heard := self._next()) is not None:
            yield heard

    def end(self) -> Iterator[Heard]:
        """Take the end of the body: the client looks past one more block than it would have."""
        while (heard := self._next() or self._next()) is not None:
            yield heard

    def _next(self) -> Heard | None:
        """Take a block; None if none is whole, but also if it said nothing."""
        for separator in SEPARATORS:
            end = self._text.find(separator, self._searched)
            if end >= 0:
                block, self._text = self._text[:end], self._text[end + len(separator) :]
                self._searched = 0
                return _understood(block)
        self._searched = max(0, len(self._text) - len(SEPARATORS[-1]))
        return None


def _understood(block: str) -> Heard | None:
    name = data = None
    for line in block.split("\n"):
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data = line.removeprefix("data:").strip()
    if name in PLAIN:
        return Heard(name)
    if name == "event" and data not in {None, "", "<nil>"}:
        return _changes(data or "")
    return None


def _changes(data: str) -> Heard | None:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ClientFaultError(data) from error
    changes = value if isinstance(value, list) else [value]
    if not all(map(is_change, changes)):
        raise ClientFaultError(data)
    return Heard("event", tuple(changes)) if changes else None

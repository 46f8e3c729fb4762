"""A model of Cloudreve's TypeScript SDK, as it reads the stream.

Theory of operation
    A strict UTF-8 decoder over the whole body, lines ended by LF, CR or both, fields as in the
    HTML standard. An `event` must hold one JSON object, never an array. It knows the names
    `event`, `subscribed`, `resumed` and `keep-alive`; any other, `reconnect-required` too, is
    thrown at the caller and ends the iteration, as does a body that ends within a frame.
    It sends its client id and keeps no frame ids; the caller iterates anew.

Rules for the wire that follow
    Object mode exists; there are no names but the five; nothing comes after
    `reconnect-required`; every end is at a frame's end.
"""

import codecs
import json
import re
from collections.abc import Iterator

from tests.readers.heard import Heard

PLAIN = ("subscribed", "resumed", "keep-alive")
LINE_END = re.compile(r"\r\n|\r|\n")


class ThrownError(Exception):
    """What the SDK throws at its caller; `name` is the frame's, where it threw over one."""

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(reason)
        self.name = name


class Sdk:
    """One iteration over the stream."""

    def __init__(self) -> None:
        # The platform's decoder drops a byte order mark and refuses bytes that are no UTF-8.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("strict")
        self._text = ""
        self._searched = 0
        self._name = "message"
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Heard]:
        """Take a chunk and tell the caller; raises ThrownError."""
        try:
            self._text += self._decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise ThrownError("invalid UTF-8") from error
        while (line := self._line()) is not None:
            if line:
                self._field(line)
            elif (heard := self._dispatch()) is not None:
                yield heard

    def end(self) -> Iterator[Heard]:
        """Take the end of the body; raises ThrownError if that was within a frame."""
        if self._data or self._text:
            raise ThrownError("incomplete frame")
        yield from ()

    def _line(self) -> str | None:
        found = LINE_END.search(self._text, self._searched)
        if found is None or (found[0] == "\r" and found.end() == len(self._text)):
            self._searched = len(self._text) if found is None else found.start()
            return None
        line, self._text = self._text[: found.start()], self._text[found.end() :]
        self._searched = 0
        return line

    def _field(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)

    def _dispatch(self) -> Heard | None:
        name, data = self._name, self._data
        self._name, self._data = "message", []
        return _understood(name, "\n".join(data)) if data else None


def _understood(name: str, data: str) -> Heard:
    if name in PLAIN:
        return Heard(name)
    if name != "event":
        raise ThrownError(f"unexpected event {name!r}", name)
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ThrownError("invalid JSON", name) from error
    if not isinstance(value, dict):
        raise ThrownError("not an object", name)
    return Heard(name, (value,))

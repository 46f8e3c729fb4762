"""The changes of a posted body, one after the other, as pieces of its text.

Theory of operation
    A body is a JSON array or has a change in each line. It is walked from one object to the next,
    so that nothing is read before it is asked for: bodies are large, and what comes first may be
    wrong.

Rules
    Nothing is guessed: a key that comes twice and a number that JSON does not have are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, NoReturn

from events_app import errors

# A change with two paths of 4,096 bytes, every byte of them escaped, takes half of this.
MAX_CHANGE_CHARACTERS = 128 * 1024
# Most changes are shorter: of those, no more text than this is copied to read one.
_USUAL_CHARACTERS = 2 * 1024

TOO_DEEP = "it is nested too deeply"
_TOO_LONG = f"it is longer than {MAX_CHANGE_CHARACTERS} characters"

_SPACE = re.compile(r"[ \t\r\n]*")


class Unfit(ValueError):
    """The reason why a change is refused."""


class Piece(NamedTuple):
    """The text of one change, and the JSON in it: numbers as text, no key twice."""

    text: str
    parsed: dict[str, Any]


def of_lines(body: bytes) -> Iterator[Piece]:
    """Yield what is in each line that is not blank.

    Raises `BadParameter` for a body that is none, and `Unfit` for the change that would be next.
    """
    text = _decoded(body)
    start = _after_space(text, 0)
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if end - start > MAX_CHANGE_CHARACTERS:
            raise Unfit(_TOO_LONG)
        line = text[start:end].rstrip(" \t\r")
        piece = _piece(line)
        if len(piece.text) < len(line):
            raise Unfit("something follows it in its line")
        yield piece
        start = _after_space(text, end)


def of_array(body: bytes) -> Iterator[Piece]:
    """Yield the elements of a JSON array; raises as `of_lines` does."""
    text = _decoded(body)
    start = _after_space(text, 0)
    if text[start : start + 1] != "[":
        found = "an object" if text[start : start + 1] == "{" else "something else"
        raise errors.BadParameter(f"body: a JSON array of changes is expected, it is {found}")
    end = _after_space(text, start + 1)
    if text[end : end + 1] != "]":
        end = yield from _elements(text, end)
    end = _after_space(text, end + 1)
    if end < len(text):
        raise errors.BadParameter(f"body: something follows the array, at character {end}")


def _decoded(body: bytes) -> str:
    # RFC 8259, section 8.1: UTF-8, and no byte order mark is added.
    if body.startswith(b"\xef\xbb\xbf"):
        raise errors.BadParameter("body: it begins with a byte order mark")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise errors.BadParameter(f"body: byte {error.start} is not valid UTF-8") from error


def _elements(text: str, start: int) -> Generator[Piece, None, int]:
    """Yield the elements from `start` on; return where the closing bracket is."""
    while True:
        piece = _piece_at(text, start)
        yield piece
        end = _after_space(text, start + len(piece.text))
        if text[end : end + 1] == "]":
            return end
        if text[end : end + 1] != ",":
            raise errors.BadParameter(
                f"body: neither a comma nor a closing bracket, at character {end}"
            )
        start = _after_space(text, end + 1)


def _piece_at(text: str, start: int) -> Piece:
    """Read the object that begins at `start`."""
    try:
        return _piece(text[start : start + _USUAL_CHARACTERS])
    except Unfit:
        window = text[start : start + MAX_CHANGE_CHARACTERS]
    try:
        return _piece(window)
    except Unfit as error:
        is_cut = start + len(window) < len(text) and isinstance(error.__cause__, ValueError)
        raise (Unfit(_TOO_LONG) if is_cut else error) from error


def _piece(text: str) -> Piece:
    """Read the object that `text` begins with."""
    if not text.startswith("{"):
        raise Unfit("an object is expected")
    try:
        parsed, end = _STRICT.raw_decode(text)
    except RecursionError as error:
        raise Unfit(TOO_DEEP) from error
    except json.JSONDecodeError as error:
        raise Unfit(f"it is not JSON: {error.msg} at its character {error.pos}") from error
    return Piece(text[:end], parsed)


def _after_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what readers of JSON disagree about (RFC 8259, section 4)."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Unfit(f"the key {name[:64]!r} comes twice")
        found[name] = value
    return found


def _no_number(text: str) -> NoReturn:
    raise Unfit(f"it is not JSON: {text} is no number")


# Numbers stay text: nobody reads them, and Python refuses those of thousands of digits.
_STRICT = json.JSONDecoder(
    object_pairs_hook=_without_repetition,
    parse_constant=_no_number,
    parse_int=str,
    parse_float=str,
)

"""What a writer posts: a body of changes, read and checked one by one.

Theory of operation
    `changes` yields a row for the outbox from each change of a body, and raises for the first that
    is wrong. A body is a JSON array or has a change in each line; either way it is walked from one
    change to the next, so that whoever iterates may pause between any two and knows the index of
    what is wrong. `Item` says once what a change may hold: msgspec makes the check of types and
    lengths out of it, and the JSON Schema. What is left after that is the mover's to say, and it
    says it here: `intake.offered` refuses what would be journalled as rejected.

Rules
    Pure: bytes in, values out. A reason names the key as it stands in the body. Nothing is guessed:
    a key that is none, a key that comes twice and a number that JSON does not have are refused.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Generator, Iterator
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from events_app import errors, intake, uri

Form = Literal["array", "lines"]
Values = dict[str, Any]

# A change with two paths of 4,096 bytes, every byte of them escaped, takes half of this.
MAX_CHANGE_CHARACTERS = 128 * 1024
# Most changes are shorter: of those, no more text than this is copied to read one.
_USUAL_CHARACTERS = 2 * 1024
# MariaDB's JSON_VALID, which is a CHECK there, ends at 31.
MAX_META_DEPTH = 30
_LONGEST_REASON = 200

_TOO_LONG = f"it is longer than {MAX_CHANGE_CHARACTERS} characters"
_TOO_DEEP = "it is nested too deeply"

_SPACE = re.compile(r"[ \t\r\n]*")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_COLUMN = re.compile(r"\b(from|to)_path\b")

# What only the document says: it is left to `intake`, whose words are plainer.
_TEXT = {"pattern": intake.TEXT_PATTERN}
_FileSystem = Annotated[
    str, Meta(min_length=1, max_length=intake.LENGTHS["fs"], extra_json_schema=_TEXT)
]
_Text64 = Annotated[str, Meta(min_length=1, max_length=64, extra_json_schema=_TEXT)]
_Text128 = Annotated[str, Meta(min_length=1, max_length=128, extra_json_schema=_TEXT)]
_Path = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=uri.MAX_PATH_BYTES,
        extra_json_schema={"pattern": intake.PATH_PATTERN},
    ),
]
_NewPath = Annotated[
    str,
    Meta(
        max_length=uri.MAX_PATH_BYTES,
        extra_json_schema={"pattern": f"^$|{intake.PATH_PATTERN}"},
    ),
]
BY_TYPE = {
    "if": {"properties": {"type": {"const": "rename"}}},
    "then": {"required": ["to"], "properties": {"to": {"type": "string", "minLength": 1}}},
    "else": {"properties": {"to": {"enum": [None, ""]}}},
}


class Item(Struct, forbid_unknown_fields=True, frozen=True, gc=False, kw_only=True):
    """A change as it is posted."""

    type: Literal["create", "modify", "rename", "delete"]
    file_id: Annotated[_Text128, Meta(description="The app's stable id of the file or folder.")]
    from_path: Annotated[
        _Path, Meta(description="The absolute path, decoded; of a rename the old one.")
    ] = msgspec.field(name="from")
    to: Annotated[
        _NewPath | None, Meta(description='The new path, of a rename only; `""` counts as null.')
    ] = None
    user_id: Annotated[
        _Text64 | None,
        Meta(
            description="Whose tree changed; a service always says it. With a user's token it is"
            " that user, and another one is refused."
        ),
    ] = None
    fs: Annotated[_FileSystem, Meta(description="The file system.")] = uri.FILE_SYSTEM
    is_folder: Annotated[
        # To JSON, 1.0 is the same number as 1.
        bool | Annotated[float, Meta(ge=0, le=1, multiple_of=1)],
        Meta(description="Whether it is a folder; 1 and 0 mean true and false."),
    ] = False
    client_id: Annotated[
        Annotated[str, Meta(max_length=64)] | None,
        Meta(description="The client that did it; what is no UUID counts as null."),
    ] = None
    actor_id: Annotated[
        _Text64 | None,
        Meta(
            description="Who did it, if not the owner. With a user's token it is always that user."
        ),
    ] = None
    event_key: Annotated[_Text128 | None, Meta(description="Makes a repetition harmless.")] = None
    meta: Annotated[
        Raw | UnsetType,
        Meta(
            description=f"For auditors: any JSON, nested at most {MAX_META_DEPTH} deep, kept as it"
            " was written."
        ),
    ] = UNSET


KEYS = [key.encode_name for key in msgspec.structs.fields(Item)]
_ITEM = msgspec.json.Decoder(Item)


class Author(NamedTuple):
    """Who posts: the user, None for a service; and the client id of the request."""

    user_id: str | None
    client_id: str | None


class _Unfit(ValueError):
    """The reason why a change is refused."""


class _Piece(NamedTuple):
    """The text of one change, and the JSON in it: numbers as text, no key twice."""

    text: str
    parsed: dict[str, Any]


def changes(body: bytes, form: Form, author: Author, most: int) -> Iterator[Values]:
    """Yield the values of the outbox's columns for each change in `body`.

    Raises `BadParameter`, with the index of a change that is wrong, `ForeignUser` with its index,
    and `TooLarge` for more than `most`.
    """
    text = _decoded(body)
    pieces = _of_lines(text) if form == "lines" else _of_array(text)
    for number in range(most + 1):
        try:
            piece = next(pieces, None)
            values = _values(_item(piece), author) if piece and number < most else None
        except _Unfit as error:
            raise errors.BadParameter(_cut(str(error))).at(number) from error
        except errors.ForeignUser as error:
            raise error.at(number) from error
        if values is not None:
            yield values
        elif piece is not None:
            raise errors.TooLarge(f"more than {most} changes in one request")
        elif number == 0:
            raise errors.BadParameter("body: it holds no change")
        else:
            return


def _cut(reason: str) -> str:
    """Limit what a reason may quote of a body."""
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "…"


# -- a body into pieces --------------------------------------------------------------------------


def _decoded(body: bytes) -> str:
    # RFC 8259, section 8.1: UTF-8, and no byte order mark is added.
    if body.startswith(b"\xef\xbb\xbf"):
        raise errors.BadParameter("body: it begins with a byte order mark")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise errors.BadParameter(f"body: byte {error.start} is not valid UTF-8") from error


def _of_lines(text: str) -> Iterator[_Piece]:
    """Yield what is in each line that is not blank."""
    start = _after_space(text, 0)
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if end - start > MAX_CHANGE_CHARACTERS:
            raise _Unfit(_TOO_LONG)
        line = text[start:end].rstrip(" \t\r")
        piece = _piece(line)
        if len(piece.text) < len(line):
            raise _Unfit("something follows it in its line")
        yield piece
        start = _after_space(text, end)


def _of_array(text: str) -> Iterator[_Piece]:
    """Yield the elements of a JSON array."""
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


def _elements(text: str, start: int) -> Generator[_Piece, None, int]:
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


def _piece_at(text: str, start: int) -> _Piece:
    """Read the object that begins at `start`."""
    try:
        return _piece(text[start : start + _USUAL_CHARACTERS])
    except _Unfit:
        window = text[start : start + MAX_CHANGE_CHARACTERS]
    try:
        return _piece(window)
    except _Unfit as error:
        is_cut = start + len(window) < len(text) and isinstance(error.__cause__, ValueError)
        raise (_Unfit(_TOO_LONG) if is_cut else error) from error


def _piece(text: str) -> _Piece:
    """Read the object that `text` begins with."""
    if not text.startswith("{"):
        raise _Unfit("an object is expected")
    try:
        parsed, end = _STRICT.raw_decode(text)
    except RecursionError as error:
        raise _Unfit(_TOO_DEEP) from error
    except json.JSONDecodeError as error:
        raise _Unfit(f"it is not JSON: {error.msg} at its character {error.pos}") from error
    return _Piece(text[:end], parsed)


def _after_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what readers of JSON disagree about (RFC 8259, section 4)."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Unfit(f"the key {name[:64]!r} comes twice")
        found[name] = value
    return found


def _no_number(text: str) -> NoReturn:
    raise _Unfit(f"it is not JSON: {text} is no number")


# Numbers stay text: nobody reads them, and Python refuses those of thousands of digits.
_STRICT = json.JSONDecoder(
    object_pairs_hook=_without_repetition,
    parse_constant=_no_number,
    parse_int=str,
    parse_float=str,
)


# -- a piece into values -------------------------------------------------------------------------


def _item(piece: _Piece) -> Item:
    try:
        item = _ITEM.decode(piece.text)
    except msgspec.ValidationError as error:
        raise _Unfit(_in_our_words(str(error))) from error
    except RecursionError as error:
        raise _Unfit(_TOO_DEEP) from error
    except msgspec.DecodeError as error:
        # Python's reader takes half of a surrogate pair, msgspec does not.
        raise _Unfit("it is not JSON: half of a surrogate pair is no character") from error
    if item.meta is not UNSET and _is_deep(piece.parsed["meta"]):
        raise _Unfit(f"meta is nested more than {MAX_META_DEPTH} deep")
    return item


def _in_our_words(complaint: str) -> str:
    """Return msgspec's complaint; of an unknown key say which one was meant."""
    unknown = _UNKNOWN_KEY.match(complaint)
    if unknown is None:
        return complaint
    (nearest,) = difflib.get_close_matches(unknown[1][:64], KEYS, n=1, cutoff=0.0)
    return f"there is no key {unknown[1][:64]!r}; the nearest is {nearest!r}"


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_META_DEPTH):
        lists = [each for each in level if isinstance(each, list)]
        objects = [each.values() for each in level if isinstance(each, dict)]
        level = [each for inner in (*lists, *objects) for each in inner]
    return any(isinstance(each, list | dict) for each in level)


def _values(item: Item, author: Author) -> Values:
    """Return the columns; raise `_Unfit`, or `ForeignUser`."""
    if author.user_id is not None and item.user_id not in {None, author.user_id}:
        raise errors.ForeignUser("user_id names somebody else: that takes a service token")
    if author.user_id is None and item.user_id is None:
        raise _Unfit("a service names the user_id of each change")
    raw = {
        "user_id": item.user_id or author.user_id,
        "type": item.type,
        "file_id": item.file_id,
        "fs": item.fs,
        "from_path": item.from_path,
        "to_path": item.to,
        "is_folder": item.is_folder,
        "client_id": item.client_id or author.client_id,
        "actor_id": item.actor_id,
        "event_key": item.event_key,
        "meta": _document(item.meta),
    }
    try:
        values = intake.offered(raw)
    except intake.Unacceptable as error:
        raise _Unfit(_COLUMN.sub(r"\1", str(error))) from error
    # Nobody acts in another's name: who did it decides who is not told of it.
    return values if author.user_id is None else values | {"actor_id": author.user_id}


def _document(meta: Raw | UnsetType) -> str | None:
    """Return the text as it was written, which is what auditors get."""
    if meta is UNSET:
        return None
    text = bytes(meta).decode()
    return None if text == "null" else text

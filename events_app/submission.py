"""What a writer posts: a body of changes, read and checked one by one.

Theory of operation
    `changes` yields a row for the outbox from each change of a body, and raises for the first that
    is wrong. The body is walked from one change to the next (`pieces`), so that whoever iterates
    may pause between any two and knows the index of what is wrong. `Item` says once what a change
    may hold: msgspec makes the check of types and lengths out of it, and the JSON Schema. What is
    left after that is the mover's to say, and it says it here: `intake.offered` refuses what would
    be journalled as rejected.

Rules
    Pure: bytes in, values out. A reason names the key as it stands in the body. Nothing is guessed:
    a key that is none is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from events_app import errors, intake, pieces, uri
from events_app.pieces import Piece, Unfit

Form = Literal["array", "lines"]
Values = dict[str, Any]

# MariaDB's JSON_VALID, which is a CHECK there, ends at 31.
MAX_META_DEPTH = 30
_LONGEST_REASON = 200

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


def changes(body: bytes, form: Form, author: Author, most: int) -> Iterator[Values]:
    """Yield the values of the outbox's columns for each change in `body`.

    Raises `BadParameter`, with the index of a change that is wrong, `ForeignUser` with its index,
    and `TooLarge` for more than `most`.
    """
    found = pieces.of_lines(body) if form == "lines" else pieces.of_array(body)
    for number in range(most + 1):
        try:
            piece = next(found, None)
            values = _values(_item(piece), author) if piece and number < most else None
        except Unfit as error:
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


def _item(piece: Piece) -> Item:
    try:
        item = _ITEM.decode(piece.text)
    except msgspec.ValidationError as error:
        raise Unfit(_in_our_words(str(error))) from error
    except RecursionError as error:
        raise Unfit(pieces.TOO_DEEP) from error
    except msgspec.DecodeError as error:
        # Python's reader takes half of a surrogate pair, msgspec does not.
        raise Unfit("it is not JSON: half of a surrogate pair is no character") from error
    if item.meta is not UNSET and _is_deep(piece.parsed["meta"]):
        raise Unfit(f"meta is nested more than {MAX_META_DEPTH} deep")
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
    """Return the columns; raise `Unfit`, or `ForeignUser`."""
    if author.user_id is not None and item.user_id not in {None, author.user_id}:
        raise errors.ForeignUser("user_id names somebody else: that takes a service token")
    if author.user_id is None and item.user_id is None:
        raise Unfit("a service names the user_id of each change")
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
        raise Unfit(_COLUMN.sub(r"\1", str(error))) from error
    # Nobody acts in another's name: who did it decides who is not told of it.
    return values if author.user_id is None else values | {"actor_id": author.user_id}


def _document(meta: Raw | UnsetType) -> str | None:
    """Return the text as it was written, which is what auditors get."""
    if meta is UNSET:
        return None
    text = bytes(meta).decode()
    return None if text == "null" else text

"""The frozen values that travel through the code: Row, Change, Cursor."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
import uuid
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, Self

from events_app.uri import Folder

TYPES = ("create", "modify", "rename", "delete")

# The reason of a row that a retry wrote a second time: nothing is missing without it.
DUPLICATE = "duplicate"


class Row(NamedTuple):
    """A row of the journal, as streams need it."""

    position: int
    tag: int
    user_id: str
    fs: str
    type: str
    file_id: str
    from_path: str
    to_path: str | None
    client_id: str | None
    actor_id: str | None
    recorded_at: datetime
    rejected: str | None


class Change(NamedTuple):
    """A change as one watcher is told it: paths relative to the watched folder.

    `own` marks what the watcher itself did: it is never sent, but it moved the tree that the
    changes before it are told in.
    """

    type: str
    file_id: str
    from_path: str
    to_path: str = ""
    own: bool = False


class Point(NamedTuple):
    """A place in a history: a position and the tag of the row that holds it (0 at the start)."""

    position: int
    tag: int


# Python's own `uuid.UUID` takes hyphens anywhere, spaces, underscores and `0x` as well.
_HEX = "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}"
# In words that every dialect of patterns has.
CLIENT_ID_PATTERN = rf"^(([uU][rR][nN]:[uU][uU][iI][dD]:)?{_HEX}|\{{{_HEX}\}})$"
_UUID = re.compile(CLIENT_ID_PATTERN)


def canonical_client_id(text: str) -> str | None:
    """Write a UUID hyphenated and in lower case; None for a text that is none."""
    if not _UUID.fullmatch(text):
        return None
    digits = text.lower().removeprefix("urn:uuid:").strip("{}")
    return str(uuid.UUID(digits))


@lru_cache(maxsize=4_096)  # asked for with every cursor
def folder_hash(user_id: str, folder: Folder) -> bytes:
    """SHA-256 over user and watched folder; NUL is in no user, file system or path."""
    parts = [user_id, folder.fs, folder.path, *filter(None, [folder.owner_id])]
    return hashlib.sha256("\0".join(parts).encode()).digest()


# Kind, epoch, position, tag, watcher.
_CURSOR_LAYOUT = struct.Struct(">BQQI8s")
# The second kind stands before what its bearer may have heard in part.
_WHOLE, _PARTLY = 1, 2
# No journal has this epoch: a cursor that carries it never resumes.
_NO_EPOCH = 0


class Cursor(NamedTuple):
    """Where one watcher stands, as opaque text on the wire.

    It says the epoch, the position with the tag of its row, and for whom and where it counts, so
    that a cursor of another history, user or folder is never mistaken for a usable one. `partly`
    says that something after it may have been heard already, so that what follows is a second
    delivery.
    """

    epoch: int
    point: Point
    watcher: bytes
    partly: bool = False

    @classmethod
    def at(cls, epoch: int, point: Point, user_id: str, folder: Folder) -> Self:
        """Make the cursor of a watcher that has everything up to `point`."""
        return cls(epoch, point, folder_hash(user_id, folder)[:8])

    def fresh(self) -> Self:
        """Make the cursor that never resumes: its bearer starts afresh."""
        return self._replace(epoch=_NO_EPOCH)

    def text(self) -> str:
        """Write it for the wire: URL-safe, without padding."""
        return _written(self)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read it back; None for any text that is no cursor of ours."""
        try:
            packed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            kind, epoch, position, tag, watcher = _CURSOR_LAYOUT.unpack(packed)
        except (binascii.Error, struct.error, ValueError):
            return None
        if kind not in {_WHOLE, _PARTLY}:
            return None
        return cls(epoch, Point(position, tag), watcher, kind == _PARTLY)


@lru_cache(maxsize=1_024)
def _written(cursor: Cursor) -> str:
    """All who watch the same folder get the same text at the same point."""
    kind = _PARTLY if cursor.partly else _WHOLE
    packed = _CURSOR_LAYOUT.pack(kind, cursor.epoch, *cursor.point, cursor.watcher)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

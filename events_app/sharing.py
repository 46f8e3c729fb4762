"""Which folders of other users somebody may watch: the app's grants, as they are just now.

`file_event_grant` is a table that the app keeps up to date, or a view of the same shape over the
app's own shares. Nothing is taken on trust: what a view compares more loosely than we do, or says
that cannot be read, permits nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, select, tuple_

from events_app import uri
from events_app.columns import parts, readable_time, utc_now
from events_app.schema import grant
from events_app.scope import Watcher

# Keys of one statement.
KEYS_AT_ONCE = 200

_KEY = tuple_(grant.c.share_id, grant.c.user_id)
_GRANTS = select(
    grant.c.share_id,
    grant.c.user_id,
    grant.c.owner_id,
    grant.c.fs,
    grant.c.path,
    grant.c.is_folder,
    grant.c.expires_at.is_(None).label("is_endless"),
    readable_time(grant.c.expires_at).label("expires_at"),
    utc_now().label("now"),
).order_by(grant.c.owner_id, grant.c.fs, grant.c.path)


class Key(NamedTuple):
    """One share as one user may see it."""

    share_id: str
    user_id: str


class _Grant(NamedTuple):
    share_id: str
    user_id: str
    owner_id: str
    fs: str
    path: str
    is_folder: int
    is_endless: int
    expires_at: datetime | None
    now: datetime

    def is_valid(self) -> bool:
        """Tell whether it permits anything: a file alone would show its siblings' names."""
        if self.is_folder != 1 or not all(map(_is_text, (self.owner_id, self.fs, self.path))):
            return False
        if not self.path.startswith("/") or ".." in self.path.split("/"):
            return False
        return bool(self.is_endless) or (self.expires_at is not None and self.expires_at > self.now)


def _is_text(value: object) -> bool:
    """Refuse a view's NULLs and numbers; SQLite's text may be any bytes, read as surrogates."""
    if not isinstance(value, str) or "\0" in value:
        return False
    return bool(value) and value == value.encode(errors="replace").decode()


def resolve(connection: Connection, watcher: Watcher) -> Watcher | None:
    """Return who `watcher` is with its share mounted; None where that is not granted."""
    return resolve_all(connection, [watcher])[watcher]


def resolve_all(
    connection: Connection, watchers: Sequence[Watcher]
) -> dict[Watcher, Watcher | None]:
    """Do the same for many, each of which watches through a share."""
    keys = {_key_of(each) for each in watchers}
    granted = _granted(connection, sorted(keys))
    return {each: _mounted(each, granted.get(_key_of(each))) for each in watchers}


def _key_of(watcher: Watcher) -> Key:
    if watcher.share is None:
        message = "this watcher watches its own folder"
        raise ValueError(message)
    return Key(watcher.share.share_id, watcher.user_id)


def _granted(connection: Connection, keys: Sequence[Key]) -> dict[Key, _Grant]:
    """Read the valid grants; of several for one key, which only a view has, the first one."""
    found: dict[Key, _Grant] = {}
    for some in parts(keys, KEYS_AT_ONCE):
        query = _GRANTS.where(_KEY.in_(some))
        for each in _read(connection.execute(query).all()):
            found.setdefault(Key(each.share_id, each.user_id), each)
    return found


def _read(rows: Iterable[Sequence[object]]) -> Iterable[_Grant]:
    return filter(_Grant.is_valid, map(_Grant._make, rows))


def _mounted(watcher: Watcher, granted: _Grant | None) -> Watcher | None:
    if granted is None or watcher.share is None:
        return None
    root, below = uri.clean_path(granted.path), watcher.share.path
    path = below if root == "/" else root + below.removesuffix("/")
    folder = uri.Folder(granted.fs, path, granted.owner_id)
    return Watcher.of(watcher.user_id, watcher.client_id, folder, watcher.share)

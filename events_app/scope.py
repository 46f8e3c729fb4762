"""One journal row as one watcher may see it.

A watcher of `/docs` is told paths relative to it; what crosses its border becomes a `create` or a
`delete`; and when the folder itself goes, nothing is told but the end: a client that deletes by
path would take a `delete` of `/` for the order to wipe its local root.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Self
from weakref import WeakValueDictionary

from events_app import event, uri


class End(enum.Enum):
    """Why a watcher cannot be told any more and must start afresh."""

    OTHER_HISTORY = "the journal no longer has what comes next"
    ROOT_GONE = "the watched folder was deleted, renamed or replaced"
    ROW_REJECTED = "a change of this user could not be read"


class Watcher(NamedTuple):
    """Who watches what. `root` is the watched folder with every folder above it.

    `share` is how the watcher names it where it is somebody else's. Until its grant was looked up
    `folder` says the same, and nothing can be watched yet.
    """

    user_id: str
    client_id: str | None
    folder: uri.Folder
    root: frozenset[str]
    share: uri.Share | None = None

    @classmethod
    def of(
        cls,
        user_id: str,
        client_id: str | None,
        folder: uri.Folder,
        share: uri.Share | None = None,
    ) -> Self:
        """Make the watcher of `folder`."""
        return cls(user_id, client_id, folder, _root(folder.path), share)

    @classmethod
    def through(cls, user_id: str, client_id: str | None, share: uri.Share) -> Self:
        """Make the watcher of a share whose grant was not looked up yet."""
        named = uri.Folder(uri.SHARES, f"/{share.share_id}{share.path.removesuffix('/')}")
        return cls.of(user_id, client_id, named, share)

    @property
    def is_resolved(self) -> bool:
        """Tell whether it is known what is watched."""
        return self.share is None or bool(self.folder.owner_id)

    @property
    def owner_id(self) -> str:
        """Whose changes it is about."""
        return self.folder.owner_id or self.user_id

    @property
    def named(self) -> uri.Folder:
        """The watched folder as the watcher names it: a share by its id."""
        if self.share is None:
            return self.folder
        return type(self).through(self.user_id, None, self.share).folder


# Kept no longer than somebody watches: the folders above a deep one take half a megabyte, and
# anybody can ask for any number of them.
_roots: WeakValueDictionary[str, frozenset[str]] = WeakValueDictionary()


def _root(path: str) -> frozenset[str]:
    """Made once for all who watch the same folder."""
    found = _roots.get(path)
    if found is None:
        found = _roots[path] = frozenset(uri.ancestors(path))
    return found


def view(row: event.Row, watcher: Watcher) -> event.Change | End | None:
    """Tell what `watcher` is told of `row`: a change, the end, or nothing."""
    if row.rejected is not None:
        return None if row.rejected == event.DUPLICATE else End.ROW_REJECTED
    if row.fs != watcher.folder.fs or row.from_path == row.to_path:
        return None
    if _replaces_root(row, watcher.root):
        return End.ROOT_GONE
    return _relative(row, watcher.folder.path, own=_is_own(row, watcher))


def _replaces_root(row: event.Row, root: frozenset[str]) -> bool:
    return (row.type != "modify" and row.from_path in root) or row.to_path in root


def _is_own(row: event.Row, watcher: Watcher) -> bool:
    """Nobody can hide a change from another's client by stamping its id: the actor must fit."""
    return (
        row.client_id is not None
        and row.client_id == watcher.client_id
        and (row.actor_id or row.user_id) == watcher.user_id
    )


def _relative(row: event.Row, folder_path: str, *, own: bool) -> event.Change | None:
    came_from = _inside(row.from_path, folder_path)
    if row.type != "rename":
        return event.Change(row.type, row.file_id, came_from, own=own) if came_from else None
    went_to = _inside(row.to_path or "", folder_path)
    if came_from and went_to:
        return event.Change("rename", row.file_id, came_from, went_to, own=own)
    if came_from:
        return event.Change("delete", row.file_id, came_from, own=own)
    return event.Change("create", row.file_id, went_to, own=own) if went_to else None


def _inside(path: str, folder_path: str) -> str:
    """Return the path relative to the folder, or nothing when it is not below it."""
    if path == folder_path or not uri.at_or_below(path, folder_path):
        return ""
    return uri.relative(path, folder_path)

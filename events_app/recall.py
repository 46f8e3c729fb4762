"""The door to a user's own past: what happened below a folder, unfolded, newest first, in pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from flask import Blueprint, Response, current_app
from sqlalchemy import Connection

from events_app import answers, api, asking, errors, event, history, moment, scope, sidecar
from events_app.sidecar import Sidecar

HISTORY_PATH = f"{api.EVENTS_PATH}/history"
DEFAULT_ITEMS = 100
MOST_ITEMS = 1_000

doors = Blueprint("history", __name__)


class Asked(NamedTuple):
    """What a request asks for; `kind` is the type as the watcher is told it."""

    watcher: scope.Watcher
    question: history.Question
    kind: str | None
    before: int
    items: int


@doors.get(HISTORY_PATH)
def tell() -> Response:
    """Answer one page. The checks run in the protocol's order."""
    parts = sidecar.of(current_app)
    asked = _read(parts)
    page = parts.look_up(lambda db: _page(db, asked))
    following = None if page.next is None else str(page.next)
    return answers.success({"events": list(_items(page, asked)), "next": following})


def _page(connection: Connection, asked: Asked) -> history.Page:
    """Read a page. What another folder was at the place of a share before was never shared."""
    watcher, after = asked.watcher, 0
    if watcher.share is not None:
        root = watcher.folder.path.removesuffix(watcher.share.path.removesuffix("/")) or "/"
        after = history.begun(connection, watcher.owner_id, watcher.folder.fs, root)
    question = asked.question._replace(after=after)
    page = history.page(connection, question, asked.before, asked.items)
    is_all = page.next is None or page.next <= after + 1
    return page._replace(next=None if is_all else page.next)


def _read(parts: Sidecar) -> Asked:
    identity = asking.reader(parts.settings)
    since, until, kind = _moment("since"), _moment("until"), _kind()
    before = asking.number("before", history.END, 1, history.END)
    items = asking.number("limit", DEFAULT_ITEMS, 1, MOST_ITEMS)
    watcher = parts.mounted(asking.watcher(parts.settings, identity))
    question = history.Question(
        user_id=watcher.owner_id,
        fs=watcher.folder.fs,
        path=watcher.folder.path,
        types=_written_as(kind),
        since=since,
        until=until,
        told=True,
    )
    return Asked(watcher, question, kind, before, items)


def _moment(name: str) -> datetime | None:
    text = asking.parameter(name)
    try:
        return moment.parse(text) if text else None
    except ValueError as error:
        raise errors.BadParameter(f"{name}: {error}") from error


def _kind() -> str | None:
    text = asking.parameter("type")
    if text and text not in event.TYPES:
        raise errors.BadParameter(f"type: it is one of {', '.join(event.TYPES)}")
    return text or None


def _written_as(kind: str | None) -> tuple[str, ...] | None:
    """Look at renames too: over the border they are told as a `create` or a `delete`."""
    if kind is None:
        return None
    return (kind, "rename") if kind in {"create", "delete"} else (kind,)


def _items(page: history.Page, asked: Asked) -> Iterator[dict[str, Any]]:
    for entry in page.entries:
        change = scope.view(_row(entry), asked.watcher)
        if isinstance(change, event.Change) and asked.kind in {None, change.type}:
            yield _item(entry, change, asked.watcher)


def _row(entry: history.Entry) -> event.Row:
    """Make what the rules of scope look at; they do not ask for the tag."""
    known = entry._asdict() | {"tag": 0}
    return event.Row(**{name: known[name] for name in event.Row._fields})


def _item(entry: history.Entry, change: event.Change, watcher: scope.Watcher) -> dict[str, Any]:
    own = {"client_id": entry.client_id} if watcher.share is None else {}
    return {
        "type": change.type,
        "file_id": change.file_id,
        "from": change.from_path,
        "to": change.to_path,
        "position": entry.position,
        "created_at": moment.written(entry.created_at) if entry.created_at else None,
        "recorded_at": moment.written(entry.recorded_at),
        "actor_id": entry.actor_id,
        **own,
    }

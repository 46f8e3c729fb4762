"""The door to a user's own past: what happened below a folder, unfolded, newest first, in pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from flask import Blueprint, Response, current_app
from sqlalchemy import Connection

from events_app import answers, api, asking, event, history, parameter, scope, shapes, sidecar
from events_app.sidecar import Sidecar

HISTORY_PATH = f"{api.EVENTS_PATH}/history"

SINCE = parameter.time(
    "since",
    "Recorded then or later: RFC 3339 with its offset (in a query, `+` is written `%2B`) or seconds"
    " since 1970.",
)
UNTIL = parameter.time("until", "Recorded before then.")
TYPE = parameter.word("type", event.TYPES, None, "Only these, as they are told here.")
BEFORE = parameter.whole_number(
    "before",
    1,
    history.END,
    None,
    "Only what stands before this position: the `next` of the page before.",
)
LIMIT = parameter.whole_number("limit", 1, 1_000, 100, "At most so many items.")

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
    return answers.success(shapes.Past(events=list(_items(page, asked)), next=following))


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
    since, until, kind = SINCE.asked(), UNTIL.asked(), TYPE.asked()
    before, items = BEFORE.asked() or history.END, LIMIT.asked()
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


def _written_as(kind: str | None) -> tuple[str, ...] | None:
    """Look at renames too: over the border they are told as a `create` or a `delete`."""
    if kind is None:
        return None
    return (kind, "rename") if kind in {"create", "delete"} else (kind,)


def _items(page: history.Page, asked: Asked) -> Iterator[shapes.PastChange]:
    for entry in page.entries:
        change = scope.view(_row(entry), asked.watcher)
        if isinstance(change, event.Change) and asked.kind in {None, change.type}:
            yield shapes.past_change(entry, change, own=asked.watcher.share is None)


def _row(entry: history.Entry) -> event.Row:
    """Make what the rules of scope look at; they do not ask for the tag."""
    known = entry._asdict() | {"tag": 0}
    return event.Row(**{name: known[name] for name in event.Row._fields})

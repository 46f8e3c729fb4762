"""Whether a connection resumes, and where it starts."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from events_app import event, journal
from events_app.expiry import Forgotten
from events_app.schema import LIVE, NEW
from events_app.scope import Watcher

# The largest that a column holds: a forged one beyond it must not reach a statement.
LARGEST_POSITION = 2**63 - 1


class Start(NamedTuple):
    """Where a connection starts.

    Rows above `point` follow; those up to `repeated_upto` may reach the client a second time.
    `reason` says why it does not resume, for logs and metrics. `generation` is None when nothing
    is remembered, because the client gave no id. `displaced` had to make room.
    """

    resumed: bool
    epoch: int
    point: event.Point
    reason: str = ""
    repeated_upto: int = 0
    generation: int | None = None
    displaced: Forgotten = Forgotten(0, 0)


def decide(
    connection: Connection,
    watcher: Watcher,
    last_event_id: str | None,
    stored: Row[Any] | None,
    replay_rows: int,
) -> Start:
    """Return where the watcher's next connection starts; `stored` is the row of its subscription.

    `last_event_id` wins over it. More than `replay_rows` rows of the user are not replayed.
    """
    if last_event_id is not None:
        cursor = event.Cursor.parse(last_event_id)
    else:
        cursor = _stored_cursor(watcher, stored)
    claimed = cursor.point.position if cursor else 0
    head = journal.head(connection, seen=min(claimed, LARGEST_POSITION))
    if cursor is not None and last_event_id is None:
        # The subscription keeps no tag: it is in the same database as the row that is there.
        cursor = cursor._replace(point=cursor.point._replace(tag=head.seen_tag or 0))
    if cursor is None:
        reason = _why_none(watcher, last_event_id, stored)
    else:
        reason = _why_not(connection, watcher, cursor, head, replay_rows)
    if cursor is None or reason:
        return Start(resumed=False, reason=reason, epoch=head.epoch, point=head.end)
    return Start(
        resumed=True,
        epoch=head.epoch,
        point=cursor.point,
        repeated_upto=_repeated_upto(cursor, stored if last_event_id is None else None, head),
    )


def _stored_cursor(watcher: Watcher, stored: Row[Any] | None) -> event.Cursor | None:
    if stored is None or stored.state != LIVE:
        return None
    point = event.Point(stored.position, 0)
    return event.Cursor.at(stored.epoch, point, watcher.user_id, watcher.folder)


def _repeated_upto(cursor: event.Cursor, stored: Row[Any] | None, head: journal.Head) -> int:
    """Tell up to where the client may have heard; `stored` where it did not say it itself."""
    if stored is None:
        return head.last_position if cursor.partly else 0
    return head.last_position if stored.sent_position is None else int(stored.sent_position)


def _why_none(watcher: Watcher, last_event_id: str | None, stored: Row[Any] | None) -> str:
    """Say why there is no cursor to resume from."""
    if last_event_id is not None:
        return "no cursor of ours"
    if watcher.client_id is None:
        return "no client id"
    if stored is None:
        return "first connection"
    return "first frame never arrived" if stored.state == NEW else "could not be replayed"


def _why_not(
    connection: Connection,
    watcher: Watcher,
    cursor: event.Cursor,
    head: journal.Head,
    replay_rows: int,
) -> str:
    """Say why `cursor` cannot be resumed from; nothing when it can."""
    if cursor.watcher != event.Cursor.at(0, cursor.point, watcher.user_id, watcher.folder).watcher:
        return "cursor of another user or folder"
    if cursor.epoch != head.epoch:
        return "another epoch"
    position = cursor.point.position
    if not head.floor_position <= position <= head.last_position:
        return "pruned" if position < head.floor_position else "beyond the end"
    # At the floor itself the row is gone; the epoch must do.
    tag = head.seen_tag
    if tag != cursor.point.tag and not (tag is None and position == head.floor_position):
        return "another history"
    past = journal.past_of_user(
        connection,
        watcher.owner_id,
        watcher.folder.fs,
        position,
        watcher.root,
        replay_rows,
    )
    if past.rows > replay_rows:
        return "too far behind"
    if past.root_ended:
        return "the watched folder was removed"
    return "a rejected row" if past.rejected else ""

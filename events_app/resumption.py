"""Whether connections resume, and where they start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from events_app import event, journal
from events_app.expiry import Forgotten
from events_app.schema import LIVE, NEW
from events_app.scope import Watcher


class Claim(NamedTuple):
    """What a connection that begins may resume from.

    `stored` is the row of its subscription. What the client says itself wins over it.
    """

    watcher: Watcher
    last_event_id: str | None
    stored: Row[Any] | None = None

    def cursor(self) -> event.Cursor | None:
        """Return where it stands, if that is known; a stored cursor has no tag."""
        if self.last_event_id is not None:
            return event.Cursor.parse(self.last_event_id)
        if self.stored is None or self.stored.state != LIVE:
            return None
        point = event.Point(self.stored.position, 0)
        return event.Cursor.at(self.stored.epoch, point, self.watcher.user_id, self.watcher.folder)


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
    connection: Connection, watcher: Watcher, last_event_id: str | None, replay_rows: int
) -> Start:
    """Return where the watcher would start by what it says itself."""
    return decide_all(connection, [Claim(watcher, last_event_id)], replay_rows)[0]


def decide_all(connection: Connection, claims: Sequence[Claim], replay_rows: int) -> list[Start]:
    """Return where each of the connections starts, by few statements for all of them.

    More than `replay_rows` rows of a user are not replayed.
    """
    cursors = [claim.cursor() for claim in claims]
    seen = {min(each.point.position, journal.LARGEST_POSITION) for each in cursors if each}
    ends = journal.ends(connection, seen)
    starts = [_by_ends(*each, ends) for each in zip(claims, cursors, strict=True)]
    # Nothing is behind the end, and most who come back in a storm have missed nothing.
    behind = [
        number
        for number, start in enumerate(starts)
        if start.resumed and start.point.position < ends.last_position
    ]
    replays = [_replay(claims[number].watcher, starts[number]) for number in behind]
    pasts = journal.pasts(connection, replays, replay_rows)
    for number, past in zip(behind, pasts, strict=True):
        if reason := _why_not_replayed(past, replay_rows):
            starts[number] = _afresh(ends, reason)
    return starts


def _by_ends(claim: Claim, cursor: event.Cursor | None, ends: journal.Ends) -> Start:
    """Say where the connection starts, as far as the ends of the journal and its tags tell."""
    if cursor is None:
        return _afresh(ends, _why_none(claim))
    if claim.last_event_id is None:
        # The subscription keeps no tag: it is in the same database as the row that is there.
        tag = ends.tags.get(cursor.point.position, 0)
        cursor = cursor._replace(point=cursor.point._replace(tag=tag))
    if reason := _why_not(claim.watcher, cursor, ends):
        return _afresh(ends, reason)
    return Start(
        resumed=True,
        epoch=ends.epoch,
        point=cursor.point,
        repeated_upto=_repeated_upto(claim, cursor, ends),
    )


def _afresh(ends: journal.Ends, reason: str) -> Start:
    return Start(resumed=False, reason=reason, epoch=ends.epoch, point=ends.end)


def _repeated_upto(claim: Claim, cursor: event.Cursor, ends: journal.Ends) -> int:
    """Tell up to where the client may have heard."""
    if claim.last_event_id is not None or claim.stored is None:
        return ends.last_position if cursor.partly else 0
    sent = claim.stored.sent_position
    return ends.last_position if sent is None else int(sent)


def _why_none(claim: Claim) -> str:
    """Say why there is no cursor to resume from."""
    if claim.last_event_id is not None:
        return "no cursor of ours"
    if claim.watcher.client_id is None:
        return "no client id"
    if claim.stored is None:
        return "first connection"
    return "first frame never arrived" if claim.stored.state == NEW else "could not be replayed"


def _why_not(watcher: Watcher, cursor: event.Cursor, ends: journal.Ends) -> str:
    """Say why `cursor` is none of this watcher in this history; nothing when it is."""
    if cursor.watcher != event.Cursor.at(0, cursor.point, watcher.user_id, watcher.folder).watcher:
        return "cursor of another user or folder"
    if cursor.epoch != ends.epoch:
        return "another epoch"
    position = cursor.point.position
    if not ends.floor_position <= position <= ends.last_position:
        return "pruned" if position < ends.floor_position else "beyond the end"
    # At the floor itself the row is gone; the epoch must do.
    tag = ends.tags.get(position)
    if tag != cursor.point.tag and not (tag is None and position == ends.floor_position):
        return "another history"
    return ""


def _replay(watcher: Watcher, start: Start) -> journal.Replay:
    fs, position = watcher.folder.fs, start.point.position
    return journal.Replay(watcher.owner_id, fs, position, watcher.root)


def _why_not_replayed(past: journal.Past, replay_rows: int) -> str:
    if past.rows > replay_rows:
        return "too far behind"
    if past.root_ended:
        return "the watched folder was removed"
    return "a rejected row" if past.rejected else ""

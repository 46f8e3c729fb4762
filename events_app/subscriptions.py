"""The durable cursors: one row for each (user, client id, watched folder).

Theory of operation
    Each connection takes the next *generation* of its row and sets the cursor to where it starts,
    also backwards. Only the newest generation may move it after that, forward only, so an older
    connection that is still alive, or dies late, never disturbs the newer one. A restored backup
    gives out its generations once more, but in a later epoch: a move counts in its own epoch only.
    `position` is what was shown to be delivered. `sent_position` is what was sent beyond it, known
    only after an end that was noticed; without it everything up to the journal's end at the next
    connect may be a second delivery.
    A row is *new* until its `subscribed` is known to have arrived, then *live*; *fresh* when the
    past cannot be replayed. Only a live row resumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    exc,
    func,
    insert,
    not_,
    or_,
    select,
    tuple_,
    update,
)

from events_app import event, journal, schema
from events_app.columns import utc_now
from events_app.database import Database
from events_app.schema import subscription
from events_app.scope import Watcher

NEW, LIVE, FRESH = "new", "live", "fresh"

EXPIRE_ROWS = 500
# The largest that a column holds: a forged one beyond it must not reach a statement.
LARGEST_POSITION = 2**63 - 1

_KEY = (subscription.c.user_id, subscription.c.client_id, subscription.c.folder_hash)

_MOVE = (
    update(subscription)
    .where(
        subscription.c.user_id == bindparam("of_user"),
        subscription.c.client_id == bindparam("of_client"),
        subscription.c.folder_hash == bindparam("of_folder"),
        subscription.c.epoch == bindparam("of_epoch"),
        subscription.c.generation == bindparam("of_generation"),
        subscription.c.position <= bindparam("to_position"),
    )
    .values(
        position=bindparam("to_position"),
        sent_position=bindparam("sent"),
        state=bindparam("to_state"),
        seen_at=utc_now(),
    )
)

# Positions of another epoch, pruned ones and those beyond the end say nothing about a distance.
_BEHIND = case(
    (
        and_(
            subscription.c.epoch == schema.state.c.epoch,
            subscription.c.position.between(
                schema.state.c.floor_position, schema.state.c.last_position
            ),
        ),
        schema.state.c.last_position - subscription.c.position,
    )
)
_FIRST_MISSING = (
    select(schema.journal.c.recorded_at)
    .where(schema.journal.c.position == subscription.c.position + 1)
    .scalar_subquery()
)
_STANDINGS = (
    select(
        subscription.c.user_id,
        subscription.c.client_id,
        subscription.c.fs,
        subscription.c.path,
        case((_BEHIND.is_(None), FRESH), else_=subscription.c.state).label("state"),
        _BEHIND.label("behind"),
        case((_BEHIND > 0, _FIRST_MISSING)).label("since"),
        subscription.c.seen_at,
    )
    .join(schema.state, schema.state.c.id == 1)
    .order_by(
        _BEHIND.is_not(None),
        _BEHIND.desc(),
        subscription.c.user_id,
        subscription.c.path,
        subscription.c.client_id,
    )
)


class Key(NamedTuple):
    """Which subscription: the primary key of its row."""

    user_id: str
    client_id: str
    folder_hash: str


class Forgotten(NamedTuple):
    """How many subscriptions went: those that were never resumed, and the others."""

    never_resumed: int
    resumed: int


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


class Mark(NamedTuple):
    """A new standing of a subscription, as the connection of `generation` in `epoch` knows it."""

    key: Key
    epoch: int
    generation: int
    position: int
    sent_position: int | None
    state: str


class Standing(NamedTuple):
    """How far one client is, as it is stored.

    `behind` counts positions of the journal, whoever's rows are there; None: its past cannot be
    replayed, and `state` says so. `since` is when the first row that it lacks was recorded. The
    position of a connected client that is told nothing is stored only every few minutes.
    """

    user_id: str
    client_id: str
    fs: str
    path: str
    state: str
    behind: int | None
    since: datetime | None
    seen_at: datetime


class Limits(NamedTuple):
    """What a connect is bound by: see `EVENTS_REPLAY_MAX`, `EVENTS_MAX_SUBSCRIPTIONS_PER_USER`."""

    replay_rows: int
    subscriptions_per_user: int


def key_of(watcher: Watcher) -> Key | None:
    """Return the key of the watcher's subscription; None for a client without an id."""
    if watcher.client_id is None:
        return None
    digest = event.folder_hash(watcher.user_id, watcher.folder).hex()
    return Key(watcher.user_id, watcher.client_id, digest)


def connect(
    database: Database, watcher: Watcher, last_event_id: str | None, limits: Limits
) -> Start:
    """Begin a connection: decide where it starts and take the subscription's next generation.

    `last_event_id` wins over the stored cursor. Raises what the database raises.
    """
    for _ in range(2):
        try:
            return database.write(lambda db: _connect(db, watcher, last_event_id, limits))
        except exc.IntegrityError:
            continue  # another connection inserted the row first: now there is one to lock
    return database.write(lambda db: _connect(db, watcher, last_event_id, limits))


def _connect(
    connection: Connection, watcher: Watcher, last_event_id: str | None, limits: Limits
) -> Start:
    key = key_of(watcher)
    stored = _lock(connection, key)
    start = _start(connection, watcher, last_event_id, stored, limits)
    if key is None:
        return start
    generation = 1 if stored is None else stored.generation + 1
    _take(connection, key, watcher, start, generation)
    start = start._replace(generation=generation)
    if stored is not None:
        return start
    return start._replace(displaced=_make_room(connection, key, limits.subscriptions_per_user))


def _lock(connection: Connection, key: Key | None) -> Row[Any] | None:
    if key is None:
        return None
    query = select(subscription).where(_is(key)).with_for_update()
    return connection.execute(query).one_or_none()


def _is(key: Key) -> Any:
    return and_(*(column == value for column, value in zip(_KEY, key, strict=True)))


def _start(
    connection: Connection,
    watcher: Watcher,
    last_event_id: str | None,
    stored: Row[Any] | None,
    limits: Limits,
) -> Start:
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
        reason = _why_not(connection, watcher, cursor, head, limits)
    if cursor is None or reason:
        tag = journal.tag_at(connection, head.last_position) or 0
        end = event.Point(head.last_position, tag)
        return Start(resumed=False, reason=reason, epoch=head.epoch, point=end)
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
    limits: Limits,
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
        watcher.user_id,
        watcher.folder.fs,
        position,
        watcher.root,
        limits.replay_rows,
    )
    if past.rows > limits.replay_rows:
        return "too far behind"
    if past.root_ended:
        return "the watched folder was removed"
    return "a rejected row" if past.rejected else ""


def _take(
    connection: Connection, key: Key, watcher: Watcher, start: Start, generation: int
) -> None:
    standing = {
        "epoch": start.epoch,
        "position": start.point.position,
        "sent_position": None,
        "generation": generation,
        "state": LIVE if start.resumed else NEW,
        "seen_at": utc_now(),
    }
    if generation > 1:
        connection.execute(update(subscription).where(_is(key)).values(standing))
        return
    folder = {"fs": watcher.folder.fs, "path": watcher.folder.path}
    values = {**key._asdict(), **folder, **standing, "created_at": utc_now()}
    connection.execute(insert(subscription).values(values))


def _make_room(connection: Connection, newest: Key, most: int) -> Forgotten:
    """Forget the user's surplus subscriptions: never resumed ones first, then the longest unseen.

    A client that brings a new id with every connection must not push sleeping laptops out: its
    ids push each other. `newest` itself stays.
    """
    mine = subscription.c.user_id == newest.user_id
    count = connection.scalar(select(func.count()).select_from(subscription).where(mine)) or 0
    if count <= most:
        return Forgotten(0, 0)
    surplus = (
        select(*_KEY, subscription.c.generation)
        .where(mine, not_(_is(newest)))
        .order_by(subscription.c.generation > 1, subscription.c.seen_at)
        .limit(count - most)
    )
    return _forget(connection, connection.execute(surplus).all())


def _forget(connection: Connection, rows: Iterable[Any], *still: ColumnElement[bool]) -> Forgotten:
    """Delete rows that were listed as key and generation, where `still` holds."""
    keys: dict[bool, list[tuple[Any, ...]]] = {True: [], False: []}
    for *key, generation in rows:
        keys[generation == 1].append(tuple(key))
    never = _delete(connection, keys[True], subscription.c.generation == 1, *still)
    return Forgotten(never, _delete(connection, keys[False], *still))


def _delete(connection: Connection, keys: Sequence[Any], *still: ColumnElement[bool]) -> int:
    if not keys:
        return 0
    gone = delete(subscription).where(tuple_(*_KEY).in_(keys), *still)
    return connection.execute(gone).rowcount


def move(connection: Connection, marks: Iterable[Mark]) -> None:
    """Store new standings: forward only, and only those of the newest generation and its epoch.

    A row that an expiry removed is not put back. In the order of the key, so that two workers
    that flush at once never wait for each other crosswise.
    """
    values = [
        {
            "of_user": mark.key.user_id,
            "of_client": mark.key.client_id,
            "of_folder": mark.key.folder_hash,
            "of_epoch": mark.epoch,
            "of_generation": mark.generation,
            "to_position": mark.position,
            "sent": mark.sent_position,
            "to_state": mark.state,
        }
        for mark in sorted(marks)
    ]
    if values:
        connection.execute(_MOVE, values)


def expire(connection: Connection, age_seconds: float) -> Forgotten:
    """Forget a batch of subscriptions without a connection for `age_seconds`; return how many."""
    now = connection.scalar(select(utc_now()))
    if now is None:
        return Forgotten(0, 0)
    unseen = subscription.c.seen_at < now - timedelta(seconds=age_seconds)
    oldest = (
        select(*_KEY, subscription.c.generation)
        .where(unseen)
        .order_by(subscription.c.seen_at)
        .limit(EXPIRE_ROWS)
    )
    # One may have connected since it was listed.
    return _forget(connection, connection.execute(oldest).all(), unseen)


def standings(
    connection: Connection, user_id: str | None = None, behind: int = 0
) -> list[Standing]:
    """List subscriptions at least `behind` positions behind, the furthest first; of all users.

    Those whose past cannot be replayed are behind any number.
    """
    query = _STANDINGS.where(or_(_BEHIND.is_(None), behind <= _BEHIND))
    if user_id is not None:
        query = query.where(subscription.c.user_id == user_id)
    return [Standing._make(row) for row in connection.execute(query).all()]

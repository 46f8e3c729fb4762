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

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, exc, insert, select, update

from events_app import event, expiry, fitness, resumption
from events_app.columns import utc_now
from events_app.database import Database
from events_app.resumption import Start
from events_app.schema import LIVE, NEW, subscription
from events_app.scope import Watcher

# Statements are made once: making one takes as long as running it.
_KEYED = (
    subscription.c.user_id == bindparam("of_user"),
    subscription.c.client_id == bindparam("of_client"),
    subscription.c.folder_hash == bindparam("of_folder"),
)
_STANDING = ("epoch", "position", "sent_position", "generation", "state")
_LOCK = select(*(subscription.c[name] for name in _STANDING)).where(*_KEYED).with_for_update()
_INSERT = insert(subscription).values(created_at=utc_now(), seen_at=utc_now())
_RETAKE = (
    update(subscription)
    .where(*_KEYED)
    .values(
        epoch=bindparam("to_epoch"),
        position=bindparam("to_position"),
        sent_position=None,
        generation=bindparam("to_generation"),
        state=bindparam("to_state"),
        seen_at=utc_now(),
    )
)
_MOVE = (
    update(subscription)
    .where(
        *_KEYED,
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


class Key(NamedTuple):
    """Which subscription: the primary key of its row."""

    user_id: str
    client_id: str
    folder_hash: str


class Mark(NamedTuple):
    """A new standing of a subscription, as the connection of `generation` in `epoch` knows it."""

    key: Key
    epoch: int
    generation: int
    position: int
    sent_position: int | None
    state: str


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
    start = resumption.decide(connection, watcher, last_event_id, stored, limits.replay_rows)
    if key is None:
        if last_event_id is not None and not start.resumed:
            # Perhaps an old primary, which does not have what the client has heard of. With a
            # client id this shows when the row is written.
            fitness.refuse_read_only(connection)
        return start
    generation = 1 if stored is None else stored.generation + 1
    _take(connection, key, watcher, start, generation)
    start = start._replace(generation=generation)
    if stored is not None:
        return start
    most = limits.subscriptions_per_user
    return start._replace(displaced=expiry.make_room(connection, key, most))


def _lock(connection: Connection, key: Key | None) -> Row[Any] | None:
    if key is None:
        return None
    return connection.execute(_LOCK, _keyed(key)).one_or_none()


def _keyed(key: Key) -> dict[str, Any]:
    return {"of_user": key.user_id, "of_client": key.client_id, "of_folder": key.folder_hash}


def _take(
    connection: Connection, key: Key, watcher: Watcher, start: Start, generation: int
) -> None:
    standing = {
        "epoch": start.epoch,
        "position": start.point.position,
        "generation": generation,
        "state": LIVE if start.resumed else NEW,
    }
    if generation > 1:
        to = {f"to_{name}": value for name, value in standing.items()}
        connection.execute(_RETAKE, _keyed(key) | to)
        return
    folder = {"fs": watcher.named.fs, "path": watcher.named.path, "sent_position": None}
    connection.execute(_INSERT, key._asdict() | folder | standing)


def move(connection: Connection, marks: Iterable[Mark]) -> None:
    """Store new standings: forward only, and only those of the newest generation and its epoch.

    A row that an expiry removed is not put back. In the order of the key, so that two workers
    that flush at once never wait for each other crosswise.
    """
    values = [
        _keyed(mark.key)
        | {
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

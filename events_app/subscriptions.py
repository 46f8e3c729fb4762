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

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Update,
    bindparam,
    exc,
    insert,
    select,
    update,
)

from events_app import event, expiry, fitness, resumption
from events_app.columns import filled, is_one_of, listed, parts, utc_now
from events_app.database import Database
from events_app.resumption import Claim, Start
from events_app.schema import LIVE, NEW, SUBSCRIPTION_KEY, subscription
from events_app.scope import Watcher

# Of one statement. Each statement is made once: making one takes as long as running it.
KEYS_AT_ONCE = 16
_STANDING = ("epoch", "position", "sent_position", "generation", "state")
_INSERT = insert(subscription).values(created_at=utc_now(), seen_at=utc_now())


@cache
def _locked(count: int, *, patient: bool) -> Select[Any]:
    standing = (subscription.c[name] for name in _STANDING)
    rows = (
        select(*SUBSCRIPTION_KEY, *standing)
        .where(is_one_of(SUBSCRIPTION_KEY, count))
        .order_by(*SUBSCRIPTION_KEY)
    )
    return rows.with_for_update(skip_locked=not patient)


@cache
def _existing(count: int) -> Select[Any]:
    return select(*SUBSCRIPTION_KEY).where(is_one_of(SUBSCRIPTION_KEY, count))


@cache
def _retaken(count: int) -> Update:
    return (
        update(subscription)
        .where(is_one_of(SUBSCRIPTION_KEY, count))
        .values(
            epoch=bindparam("to_epoch"),
            position=bindparam("to_position"),
            sent_position=None,
            generation=subscription.c.generation + 1,
            state=bindparam("to_state"),
            seen_at=utc_now(),
        )
    )


@cache
def _moved(count: int) -> Update:
    return (
        update(subscription)
        .where(
            is_one_of(SUBSCRIPTION_KEY, count),
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


_Stored = Mapping[Key | None, Row[Any]]


class Arrival(NamedTuple):
    """A connection that begins: who watches what, and the cursor that the client brings, if any."""

    watcher: Watcher
    last_event_id: str | None


def connect(
    database: Database, watcher: Watcher, last_event_id: str | None, limits: Limits
) -> Start:
    """Begin a connection: decide where it starts and take the subscription's next generation.

    `last_event_id` wins over the stored cursor. Raises what the database raises.
    """
    alone = Arrival(watcher, last_event_id)
    for _ in range(2):
        try:
            return database.write(lambda db: _connect(db, alone, limits))
        except exc.IntegrityError:
            continue  # another connection inserted the row first: now there is one to lock
    return database.write(lambda db: _connect(db, alone, limits))


def _connect(connection: Connection, alone: Arrival, limits: Limits) -> Start:
    stored = _lock(connection, filter(None, [key_of(alone.watcher)]), patient=True)
    (start,) = _begin(connection, [alone], stored, limits)
    return start


def connect_all(
    connection: Connection, arrivals: Sequence[Arrival], limits: Limits
) -> list[Start | None]:
    """Begin several connections, each of another subscription, by few statements for all of them.

    None stands for one whose row somebody has locked: it was not begun. Raises what the database
    raises; then nothing was done for anybody.
    """
    keys = {key for each in arrivals if (key := key_of(each.watcher)) is not None}
    stored = _lock(connection, keys, patient=False)
    busy = _there(connection, keys - stored.keys())
    free = [each for each in arrivals if key_of(each.watcher) not in busy]
    starts = iter(_begin(connection, free, stored, limits))
    return [None if key_of(each.watcher) in busy else next(starts) for each in arrivals]


def _lock(connection: Connection, keys: Iterable[Key], *, patient: bool) -> _Stored:
    """Lock the rows and read them; without those that are not there, or that somebody has locked.

    Who is `patient` waits for the latter.
    """
    if not (values := listed(SUBSCRIPTION_KEY, filled(keys, KEYS_AT_ONCE))):
        return {}
    found = connection.execute(
        _locked(len(values) // len(SUBSCRIPTION_KEY), patient=patient), values
    ).all()
    return {Key(*row[: len(SUBSCRIPTION_KEY)]): row for row in found}


def _there(connection: Connection, keys: Iterable[Key]) -> set[Key]:
    """Tell which of the rows are there, locked or not."""
    if not (values := listed(SUBSCRIPTION_KEY, filled(keys, KEYS_AT_ONCE))):
        return set()
    found = connection.execute(_existing(len(values) // len(SUBSCRIPTION_KEY)), values).all()
    return {Key(*row) for row in found}


def _begin(
    connection: Connection, arrivals: Sequence[Arrival], stored: _Stored, limits: Limits
) -> list[Start]:
    """Decide where they start and take the next generations; `stored` are their rows, locked."""
    claims = [Claim(*each, stored.get(key_of(each.watcher))) for each in arrivals]
    starts = resumption.decide_all(connection, claims, limits.replay_rows)
    if any(map(_knows_more, claims, starts)):
        fitness.refuse_read_only(connection)
    starts = list(map(_in_generation, claims, starts))
    pairs = list(zip(claims, starts, strict=True))
    _retake(connection, [pair for pair in pairs if pair[0].stored is not None])
    new = [pair for pair in pairs if pair[1].generation == 1]
    _insert(connection, new)
    newest = [key for claim, _ in new if (key := key_of(claim.watcher)) is not None]
    gone = expiry.make_room(connection, newest, limits.subscriptions_per_user)
    return [
        start._replace(displaced=gone[key]) if (key := key_of(claim.watcher)) in gone else start
        for claim, start in pairs
    ]


def _knows_more(claim: Claim, start: Start) -> bool:
    """Tell of one who has heard of what is not here: perhaps this is an old primary.

    With a client id that shows when the row is written.
    """
    writes_nothing = claim.watcher.client_id is None
    return writes_nothing and claim.last_event_id is not None and not start.resumed


def _in_generation(claim: Claim, start: Start) -> Start:
    if claim.watcher.client_id is None:
        return start
    return start._replace(generation=1 if claim.stored is None else claim.stored.generation + 1)


def _retake(connection: Connection, begun: Iterable[tuple[Claim, Start]]) -> None:
    """Begin the next generations, by one statement for all who start at the same place."""
    alike: dict[tuple[int, int, str], list[Key]] = defaultdict(list)
    for claim, start in begun:
        if key := key_of(claim.watcher):
            alike[start.epoch, start.point.position, _state_of(start)].append(key)
    for (epoch, position, state), keys in alike.items():
        to = {"to_epoch": epoch, "to_position": position, "to_state": state}
        some = filled(keys, KEYS_AT_ONCE)
        connection.execute(_retaken(len(some)), to | listed(SUBSCRIPTION_KEY, some))


def _insert(connection: Connection, begun: Iterable[tuple[Claim, Start]]) -> None:
    """Begin the first generations, in the order of the key: two groups may insert the same ones."""
    rows = [
        key._asdict()
        | {
            "fs": claim.watcher.named.fs,
            "path": claim.watcher.named.path,
            "epoch": start.epoch,
            "position": start.point.position,
            "sent_position": None,
            "generation": start.generation,
            "state": _state_of(start),
        }
        for claim, start in begun
        if (key := key_of(claim.watcher))
    ]
    if rows:
        connection.execute(_INSERT, sorted(rows, key=itemgetter(*Key._fields)))


def _state_of(start: Start) -> str:
    return LIVE if start.resumed else NEW


def move(connection: Connection, marks: Iterable[Mark]) -> None:
    """Store new standings: forward only, and only those of the newest generation and its epoch.

    A row that an expiry removed is not put back. All are locked in the order of the key, so that
    two workers that flush at once never wait for each other crosswise.
    """
    alike: dict[tuple[Any, ...], list[Key]] = defaultdict(list)
    for mark in sorted(marks):
        alike[mark[1:]].append(mark.key)
    alone = [(standing, keys[0]) for standing, keys in alike.items() if len(keys) == 1]
    if len(alone) < len(alike):
        _lock_in_order(connection, sorted(key for keys in alike.values() for key in keys))
    for standing, keys in alike.items():
        for some in parts(keys if len(keys) > 1 else [], KEYS_AT_ONCE):
            full = filled(some, KEYS_AT_ONCE)
            connection.execute(
                _moved(len(full)), _standing(standing) | listed(SUBSCRIPTION_KEY, full)
            )
    if alone:
        one_by_one = sorted(alone, key=itemgetter(1))
        values = [
            _standing(standing) | listed(SUBSCRIPTION_KEY, [key]) for standing, key in one_by_one
        ]
        connection.execute(_moved(1), values)


def _standing(standing: tuple[Any, ...]) -> dict[str, Any]:
    """Return the values of a mark without its key, for `_moved`."""
    names = ("of_epoch", "of_generation", "to_position", "sent", "to_state")
    return dict(zip(names, standing, strict=True))


def _lock_in_order(connection: Connection, keys: Sequence[Key]) -> None:
    for some in parts(keys, KEYS_AT_ONCE):
        _lock(connection, some, patient=True)

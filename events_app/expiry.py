"""Which subscriptions go: those in surplus, and those that nobody came back for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    bindparam,
    delete,
    func,
    select,
    tuple_,
)

from events_app.columns import filled, is_one_of, listed, parts, utc_now
from events_app.schema import LIVE, SUBSCRIPTION_KEY, subscription

EXPIRE_ROWS = 500
# Of one statement.
ROWS_AT_ONCE = 16

# User, client id and hash of the folder.
Key = tuple[str, str, str]
# Whoever has connected since has another generation.
_LISTED = (*SUBSCRIPTION_KEY, subscription.c.generation)
_USERS: BindParameter[Any] = bindparam("users", expanding=True)
_COUNTS = (
    select(subscription.c.user_id, func.count())
    .where(subscription.c.user_id.in_(_USERS))
    .group_by(subscription.c.user_id)
)


class Forgotten(NamedTuple):
    """How many subscriptions went: those that were never resumed, and the others."""

    never_resumed: int
    resumed: int


def make_room(connection: Connection, newest: Sequence[Key], most: int) -> dict[Key, Forgotten]:
    """Forget surplus subscriptions of the users of `newest`, keys in the order in which they came.

    Of each user's the last one stays. Never resumed ones go first, of these the ones whose first
    frame is not known to have arrived, then the longest unseen: a client that brings a new id with
    every connection must push neither sleeping laptops out nor those that are in their first
    connection. Its ids push each other. What went is told under the key that stays.
    """
    if not newest:
        return {}
    last = {key[0]: key for key in newest}
    counts = connection.execute(_COUNTS, {"users": sorted(last)}).all()
    return {
        last[user_id]: _forget(connection, _surplus(connection, last[user_id], count - most))
        for user_id, count in counts
        if count > most
    }


def _surplus(connection: Connection, newest: Key, count: int) -> Sequence[Any]:
    query = (
        select(*_LISTED)
        .where(subscription.c.user_id == newest[0], tuple_(*SUBSCRIPTION_KEY) != newest)
        .order_by(
            subscription.c.generation > 1, subscription.c.state == LIVE, subscription.c.seen_at
        )
        .limit(count)
    )
    return connection.execute(query).all()


def _forget(connection: Connection, rows: Sequence[Any], *still: ColumnElement[bool]) -> Forgotten:
    """Delete rows that were listed, where `still` holds; who has come back since stays."""
    never = [row for row in rows if row.generation == 1]
    others = [row for row in rows if row.generation != 1]
    return Forgotten(_delete(connection, never, *still), _delete(connection, others, *still))


def _delete(connection: Connection, rows: Sequence[Any], *still: ColumnElement[bool]) -> int:
    return sum(_delete_few(connection, some, *still) for some in parts(rows, ROWS_AT_ONCE))


def _delete_few(connection: Connection, rows: Sequence[Any], *still: ColumnElement[bool]) -> int:
    """Wait for nobody's lock: who has one of the rows comes back with it, or removes it too."""
    few = filled(rows, ROWS_AT_ONCE)
    free = select(*_LISTED).where(is_one_of(_LISTED, len(few)), *still)
    found = connection.execute(free.with_for_update(skip_locked=True), listed(_LISTED, few)).all()
    if not found:
        return 0
    few = filled(found, ROWS_AT_ONCE)
    gone = delete(subscription).where(is_one_of(_LISTED, len(few)))
    return connection.execute(gone, listed(_LISTED, few)).rowcount


def expire(connection: Connection, age_seconds: float) -> Forgotten:
    """Forget a batch of subscriptions without a connection for `age_seconds`; return how many."""
    now = connection.scalar(select(utc_now()))
    if now is None:
        return Forgotten(0, 0)
    unseen = subscription.c.seen_at < now - timedelta(seconds=age_seconds)
    oldest = select(*_LISTED).where(unseen).order_by(subscription.c.seen_at).limit(EXPIRE_ROWS)
    # One that is connected may have been seen again since it was listed.
    return _forget(connection, connection.execute(oldest).all(), unseen)

"""Who is behind, by how much and since when: the subscriptions as an operator asks for them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, and_, case, or_, select

from events_app import schema
from events_app.schema import subscription

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
_QUERY = (
    select(
        subscription.c.user_id,
        subscription.c.client_id,
        subscription.c.fs,
        subscription.c.path,
        case((_BEHIND.is_(None), schema.FRESH), else_=subscription.c.state).label("state"),
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


def read(connection: Connection, user_id: str | None = None, behind: int = 0) -> list[Standing]:
    """List subscriptions at least `behind` positions behind, the furthest first; of all users.

    Those whose past cannot be replayed are behind any number.
    """
    query = _QUERY.where(or_(_BEHIND.is_(None), behind <= _BEHIND))
    if user_id is not None:
        query = query.where(subscription.c.user_id == user_id)
    return [Standing._make(row) for row in connection.execute(query).all()]

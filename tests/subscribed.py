"""Subscriptions as a test wants to find them: clients that connected, and where they stand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select, tuple_, update

from events_app import event, journal, schema, scope, subscriptions, uri
from events_app.database import Database
from events_app.resumption import Start
from events_app.schema import LIVE, SUBSCRIPTION_KEY, state, subscription
from events_app.subscriptions import Limits, Mark
from tests import reused

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
OTHER = "1b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
LIMITS = Limits(replay_rows=100, subscriptions_per_user=10)


def watcher(path: str = "/", client: str | None = CLIENT, user: str = "42") -> scope.Watcher:
    return scope.Watcher.of(user, client, uri.Folder("my", path))


def key(who: scope.Watcher) -> subscriptions.Key:
    found = subscriptions.key_of(who)
    assert found is not None
    return found


def is_of(who: scope.Watcher) -> ColumnElement[bool]:
    """Make the condition that holds for the watcher's subscription."""
    return tuple_(*SUBSCRIPTION_KEY) == key(who)


def connect(
    database: Database,
    who: scope.Watcher | None = None,
    last_event_id: str | None = None,
    limits: Limits = LIMITS,
) -> Start:
    return subscriptions.connect(database, who or watcher(), last_event_id, limits)


def mark(
    start: Start,
    position: int,
    *,
    sent: int | None = None,
    standing: str = LIVE,
    who: scope.Watcher | None = None,
) -> Mark:
    assert start.generation is not None
    return Mark(key(who or watcher()), start.epoch, start.generation, position, sent, standing)


def move(database: Database, *marks: Mark) -> None:
    database.write(lambda db: subscriptions.move(db, marks))


def stored(database: Database, who: scope.Watcher | None = None) -> Row[Any]:
    query = select(subscription).where(is_of(who or watcher()))
    return database.read(lambda db: db.execute(query).one())


def count(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(subscription)) or 0


def live_at(database: Database, position: int, who: scope.Watcher | None = None) -> Start:
    """Connect, and have everything up to `position` shown to be delivered."""
    start = connect(database, who)
    move(database, mark(start, position, who=who))
    return start


def cursor(database: Database, position: int, who: scope.Watcher | None = None) -> event.Cursor:
    """Make the cursor that a client which has seen `position` brings back."""
    who = who or watcher()
    head = database.read(journal.head)
    tag = database.read(lambda db: journal.tag_at(db, position)) or 0
    return event.Cursor.at(head.epoch, event.Point(position, tag), who.user_id, who.folder)


def seen(database: Database, ago_seconds: float, who: scope.Watcher) -> None:
    now = database.read(journal.head).now
    change = update(subscription).where(is_of(who))
    past = now - timedelta(seconds=ago_seconds)
    database.write(lambda db: db.execute(change.values(seen_at=past)))


def prune_upto_6(database: Database) -> event.Cursor:
    found = cursor(database, 5)
    gone = schema.journal.delete().where(schema.journal.c.position <= 6)
    database.write(lambda db: db.execute(gone))
    database.write(lambda db: db.execute(update(state).values(floor_position=6)))
    return found


def raise_epoch(database: Database) -> event.Cursor:
    found = cursor(database, 5)
    database.write(lambda db: journal.raise_epoch(db, reused.EPOCH))
    return found

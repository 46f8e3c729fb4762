"""Asking whether a database takes what we write, on every engine."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event, exc, text

from events_app import failures, fitness, probe, schema, subscriptions
from events_app.database import Database
from events_app.event import Cursor, Point
from events_app.probe import Probe
from tests import reused, statements, subscribed
from tests.manual_clock import ManualClock

# Makes every transaction of a session refuse to write.
READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET default_transaction_read_only = on",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}

url = reused.on_each_engine


def make_read_only(database: Database, engine: str) -> None:
    """Let sessions that begin from now on be read-only; those that there are end."""

    def restrict(connection: Any, record: object) -> None:
        del record
        cursor = connection.cursor()
        cursor.execute(READ_ONLY[engine])
        cursor.close()
        connection.commit()

    database.engine.dispose()
    event.listen(database.engine, "connect", restrict)


def asked(database: Database) -> tuple[Probe, ManualClock, list[str]]:
    """Make a probe, and the list of what it asks."""
    database.read(lambda db: db.execute(text("SELECT 1")))
    clock = ManualClock()
    seen = statements.watch(database.engine)
    return Probe(database, clock), clock, seen


def test_it_asks_now_and_then_and_writes_nothing(database: Database) -> None:
    asking, clock, seen = asked(database)
    clock.now += probe.EVERY_SECONDS - 0.1
    asking.ask_if_due()
    assert seen == []
    clock.now += 0.1
    asking.ask_if_due()
    (update,) = (statement for statement in seen if statement.startswith("UPDATE"))
    assert re.search(r"WHERE file_event_state\.id < \S+$", update)
    seen.clear()
    asking.ask_if_due()
    assert seen == []


def test_a_read_only_database_is_noticed_though_nothing_waits(
    database: Database, engine: str
) -> None:
    """And asked again and again, until it takes writes."""
    make_read_only(database, engine)
    asking, clock, _ = asked(database)
    clock.now += probe.EVERY_SECONDS
    for _ in range(2):
        with pytest.raises(exc.DBAPIError, match=r"(?i)read.?only"):
            asking.ask_if_due()


def test_after_a_write_that_failed_it_asks_for_everything_at_once(database: Database) -> None:
    asking, _, seen = asked(database)
    before = database.read(last_written)
    with pytest.raises(exc.DBAPIError):
        database.write(lambda db: db.execute(text("INSERT INTO nowhere VALUES (1)")))
    seen.clear()
    asking.ask_if_due()
    for table in ("outbox", "journal", "state", "subscription"):
        assert any(f"FROM file_event_{table}" in statement for statement in seen)
    assert any("UPDATE file_event_state" in statement for statement in seen)
    # Something has to change, or SQLite writes nothing and a full disk stays unnoticed.
    assert database.read(last_written) > before
    seen.clear()
    asking.ask_if_due()
    assert seen == []


def last_written(connection: sqlalchemy.Connection) -> datetime:
    """Read when the state row was written last."""
    found: datetime = connection.scalars(sqlalchemy.select(schema.state.c.updated_at)).one()
    return found


def test_a_table_that_is_gone_is_noticed_by_whoever_needed_it(empty_url: str) -> None:
    broken = Database(empty_url)
    asking = Probe(broken, ManualClock())
    with pytest.raises(exc.DBAPIError):
        broken.write(lambda db: subscriptions.move(db, [reused_mark()]))
    with pytest.raises(exc.DBAPIError, match="file_event_outbox"):
        asking.ask_if_due()
    broken.close()


def reused_mark() -> subscriptions.Mark:
    """Make any standing."""
    key = subscriptions.Key("42", "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f", "0" * 64)
    return subscriptions.Mark(key, 1, 1, 1, None, schema.LIVE)


def test_values_that_are_refused_say_nothing_about_the_database(database: Database) -> None:
    def twice(connection: sqlalchemy.Connection) -> None:
        connection.execute(text("INSERT INTO file_event_state SELECT * FROM file_event_state"))

    with pytest.raises(exc.IntegrityError):
        database.write(twice)
    assert not database.is_doubtful


def test_an_app_that_holds_sqlites_lock_is_no_trouble(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    app = sqlalchemy.create_engine(sqlite_url, poolclass=sqlalchemy.NullPool)
    clock = ManualClock()
    asking = Probe(database, clock)
    clock.now += probe.EVERY_SECONDS
    with app.connect() as writing:
        writing.exec_driver_sql("BEGIN IMMEDIATE")
        asking.ask_if_due()
    assert not database.is_doubtful
    database.close()


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_a_session_that_refuses_to_write_is_not_kept(database: Database, engine: str) -> None:
    """Behind the same address there may be another server by now, which writes."""
    sessions: list[object] = []
    event.listen(database.engine, "connect", lambda session, _: sessions.append(session))
    make_read_only(database, engine)
    for _ in range(2):
        with pytest.raises(exc.DBAPIError) as caught:
            database.write(fitness.refuse_read_only)
        assert failures.is_read_only(caught.value.orig)
    assert len(sessions) == 2


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_what_an_old_primary_does_not_have_starts_nobody_afresh(
    database: Database, engine: str
) -> None:
    """Without a client id nothing else is written that would show that it is one."""
    nameless = subscribed.watcher(client=None)
    cursor = subscribed.connect(database, nameless)
    point = Point(cursor.point.position + 5, 1)
    ahead = Cursor.at(cursor.epoch, point, nameless.user_id, nameless.folder).text()
    assert subscribed.connect(database, nameless, ahead).reason == "beyond the end"
    make_read_only(database, engine)
    with pytest.raises(exc.DBAPIError) as caught:
        subscribed.connect(database, nameless, ahead)
    assert failures.is_read_only(caught.value.orig)
    assert subscribed.connect(database, nameless).reason == "no client id"

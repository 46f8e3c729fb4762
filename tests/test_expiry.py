"""Which subscriptions go; on every engine."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from events_app import expiry
from events_app.columns import utc_now
from events_app.database import Database
from events_app.expiry import Forgotten
from events_app.schema import subscription
from tests import kept, reused
from tests.subscribed import (
    LIMITS,
    connect,
    count,
    live_at,
    mark,
    move,
    seen,
    watcher,
)

url = reused.on_each_engine


def paths(database: Database) -> list[str]:
    query = select(subscription.c.path).order_by(subscription.c.path)
    return database.read(lambda db: list(db.scalars(query)))


def test_those_unseen_for_too_long_expire_in_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "EXPIRE_ROWS", 2)
    for number in range(5):
        who = watcher(f"/{number}")
        connect(database, who)
        seen(database, 100 - number * 30, who)  # 100, 70, 40, 10, -20
    expired = [database.write(lambda db: expiry.expire(db, 30)) for _ in range(3)]
    assert [sum(each) for each in expired] == [2, 1, 0]
    assert paths(database) == ["/3", "/4"]


def test_an_expired_one_is_not_put_back_by_its_last_connection(database: Database) -> None:
    kept.keep_run(database, 1, 3)
    start = live_at(database, 3)
    seen(database, 100, watcher())
    database.write(lambda db: expiry.expire(db, 50))
    move(database, mark(start, 3))
    assert database.read(count) == 0
    again = connect(database)
    assert (again.resumed, again.generation) == (False, 1)


def test_a_stored_mark_counts_as_seen(database: Database) -> None:
    start = connect(database)
    seen(database, 100, watcher())
    move(database, mark(start, 0))
    assert sum(database.write(lambda db: expiry.expire(db, 50))) == 0


def test_one_that_connects_while_it_expires_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the delete. SQLite's one writer leaves no such moment: made by hand."""
    live_at(database, 0)
    seen(database, 100, watcher())
    forget = expiry._forget

    def connect_first(connection: Connection, keys: Any, *rest: Any) -> Any:
        change = update(subscription).values(seen_at=utc_now(), generation=7)
        if database.is_sqlite:
            connection.execute(change)
        else:
            with database.engine.begin() as another:
                another.execute(change)
        return forget(connection, keys, *rest)

    monkeypatch.setattr(expiry, "_forget", connect_first)
    database.write(lambda db: expiry.expire(db, 50))
    assert database.read(count) == 1


def test_room_is_made_by_those_never_resumed_then_by_those_unseen_longest(
    database: Database,
) -> None:
    limits = LIMITS._replace(subscriptions_per_user=4)
    for number, ago in enumerate((90, 80, 70, 60)):
        who = watcher(f"/{number}")
        connect(database, who, limits=limits)
        if number in {0, 2}:
            connect(database, who, limits=limits)
        seen(database, ago, who)
    other = watcher("/somebody else's", user="43")
    connect(database, other, limits=limits)
    seen(database, 1_000, other)
    gone = []
    for number in range(4, 7):
        before = set(paths(database))
        connect(database, watcher(f"/{number}"), limits=limits)
        gone.append(sorted(before - set(paths(database))))
    # 1 and 3 never resumed; 0 and 2 did, so what comes next pushes out its own predecessor.
    assert gone == [["/1"], ["/3"], ["/4"]]
    assert database.read(count) == 5


def test_new_ids_push_each_other_out_and_nobody_who_is_in_a_first_connection(
    database: Database,
) -> None:
    limits = LIMITS._replace(subscriptions_per_user=2)
    live_at(database, 0, watcher("/connected"))
    seen(database, 100, watcher("/connected"))
    for number in range(3):
        connect(database, watcher(f"/{number}"), limits=limits)
    assert paths(database) == ["/2", "/connected"]


def test_a_new_client_is_remembered_although_all_others_resumed(database: Database) -> None:
    """It takes the place of the one that was longest unseen, never makes its own in vain."""
    limits = LIMITS._replace(subscriptions_per_user=2)
    for path, ago in (("/0", 50), ("/1", 90)):
        who = watcher(path)
        connect(database, who)
        connect(database, who)
        seen(database, ago, who)
    connect(database, watcher("/2"), limits=limits)
    assert paths(database) == ["/0", "/2"]


def test_a_client_that_is_known_needs_no_room(database: Database) -> None:
    limits = LIMITS._replace(subscriptions_per_user=2)
    for path in ("/0", "/1"):
        connect(database, watcher(path))
    connect(database, watcher("/2"))
    connect(database, watcher("/0"), limits=limits)
    assert database.read(count) == 3


def test_those_that_go_are_counted_by_whether_they_were_ever_resumed(database: Database) -> None:
    for number in range(3):
        connect(database, watcher(f"/{number}"))
    for number in range(2):
        connect(database, watcher(f"/{number}"))
    newest = connect(database, watcher("/new"), limits=LIMITS._replace(subscriptions_per_user=2))
    assert newest.displaced == Forgotten(never_resumed=1, resumed=1)
    seen(database, 100, watcher("/new"))
    gone = database.write(lambda db: expiry.expire(db, 50))
    assert gone == Forgotten(never_resumed=1, resumed=0)


def test_one_that_is_resumed_while_room_is_made_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the delete. SQLite's one writer leaves no such moment: made by hand."""
    connect(database, watcher("/0"))
    delete_rows = expiry._delete

    def resume_first(connection: Connection, *rest: Any) -> Any:
        monkeypatch.undo()
        change = update(subscription).where(subscription.c.path == "/0").values(generation=2)
        if database.is_sqlite:
            connection.execute(change)
        else:
            with database.engine.begin() as another:
                another.execute(change)
        return delete_rows(connection, *rest)

    monkeypatch.setattr(expiry, "_delete", resume_first)
    connect(database, watcher("/1"), limits=LIMITS._replace(subscriptions_per_user=1))
    assert paths(database) == ["/0", "/1"]


def test_one_that_comes_back_while_room_is_made_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest unseen one is that no longer. SQLite leaves no such moment: made by hand."""
    for _ in range(2):
        live_at(database, 0, watcher("/0"))
    seen(database, 100, watcher("/0"))
    look = expiry._surplus

    def come_back_then(connection: Connection, *rest: Any) -> Any:
        monkeypatch.undo()
        found = look(connection, *rest)
        if database.is_sqlite:
            connection.execute(update(subscription).values(generation=3))
        else:
            assert connect(database, watcher("/0")).generation == 3
        return found

    monkeypatch.setattr(expiry, "_surplus", come_back_then)
    connect(database, watcher("/1"), limits=LIMITS._replace(subscriptions_per_user=1))
    assert paths(database) == ["/0", "/1"]


def test_more_than_one_statement_takes_are_all_forgotten(database: Database) -> None:
    limits = LIMITS._replace(subscriptions_per_user=100)
    for number in range(40):
        for _ in range(1 + number % 2):
            connect(database, watcher(f"/{number}"), limits=limits)
    newest = connect(database, watcher("/new"), limits=LIMITS._replace(subscriptions_per_user=3))
    assert newest.displaced == Forgotten(never_resumed=20, resumed=18)
    assert database.read(count) == 3


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_room_is_made_without_waiting_for_who_has_a_row(database: Database) -> None:
    """Else two that make room, each with a row of the other's, would wait for each other."""
    limits = LIMITS._replace(subscriptions_per_user=1)
    live_at(database, 0, watcher("/0"))
    with database.engine.begin() as another:
        another.execute(select(subscription).with_for_update())
        connect(database, watcher("/1"), limits=limits)
        assert paths(database) == ["/0", "/1"]
    connect(database, watcher("/2"), limits=limits)
    assert paths(database) == ["/2"]

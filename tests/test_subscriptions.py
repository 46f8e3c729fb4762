"""Durable cursors: who takes them, and who may move them; on every engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import select

from events_app import event, journal, subscriptions
from events_app.database import Database
from events_app.resumption import Start
from events_app.schema import FRESH, LIVE, NEW, subscription
from events_app.scope import Watcher
from events_app.subscriptions import Arrival
from tests import kept, plans, reused, rows, statements
from tests.subscribed import (
    LIMITS,
    OTHER,
    connect,
    count,
    cursor,
    is_of,
    key,
    live_at,
    mark,
    move,
    stored,
    watcher,
)

url = reused.on_each_engine


DEADLINE_SECONDS = 20
ROOMY = LIMITS._replace(subscriptions_per_user=10_000)


def come(database: Database, watchers: Iterable[Watcher]) -> list[Start | None]:
    """Let all of them connect together."""
    group = [Arrival(who, None) for who in watchers]
    return database.write(lambda db: subscriptions.connect_all(db, group, ROOMY))


def fill(database: Database, count: int) -> list[Watcher]:
    """Remember so many clients; return who watches."""
    watchers = [watcher(client=str(uuid.UUID(int=n)), user=str(n % 50)) for n in range(count)]
    for start in range(0, count, 100):
        come(database, watchers[start : start + 100])
    return watchers


# The first connection.


def test_a_client_without_an_id_is_not_remembered(database: Database) -> None:
    start = connect(database, watcher(client=None))
    assert (start.resumed, start.generation, start.reason) == (False, None, "no client id")
    assert database.read(count) == 0


def test_an_unknown_client_starts_at_the_end_and_is_remembered_as_new(database: Database) -> None:
    kept.keep_run(database, 1, 3)
    start = connect(database, watcher("/ä b"))
    assert start == Start(
        resumed=False,
        epoch=reused.EPOCH,
        point=event.Point(3, kept.tag_of(3)),
        reason="first connection",
        generation=1,
    )
    row = stored(database, watcher("/ä b"))
    assert (row.fs, row.path, row.epoch, row.position) == ("my", "/ä b", reused.EPOCH, 3)
    assert (row.sent_position, row.generation, row.state) == (None, 1, NEW)
    # PostgreSQL reads its clock for each column.
    assert abs(row.seen_at - row.created_at) < timedelta(seconds=1)


def test_each_user_client_and_folder_is_a_subscription_of_its_own(database: Database) -> None:
    """Byte by byte: `/a` is not `/A`, and user `42` is not user `42 `."""
    folders = [watcher(path) for path in ("/", "/a", "/A", "/a ", "/" + "ä" * 2000)]
    others = [watcher(client=OTHER), watcher(user="42 "), watcher(user="u"), watcher(user="U")]
    for who in [*folders, *others]:
        assert connect(database, who).generation == 1
    assert database.read(count) == 9


# Generations.


def test_each_connect_takes_the_next_generation(database: Database) -> None:
    assert [connect(database).generation for _ in range(3)] == [1, 2, 3]
    assert database.read(count) == 1


def test_an_older_generation_moves_nothing(database: Database) -> None:
    """A connection that is replaced and dies late does not disturb its successor."""
    kept.keep_run(database, 1, 5)
    older = connect(database)
    newer = connect(database)
    move(database, mark(older, 5, sent=5))
    assert stored(database).state == NEW
    move(database, mark(newer, 5))
    move(database, mark(older, 5, sent=5, standing=FRESH))
    row = stored(database)
    assert (row.position, row.sent_position, row.state) == (5, None, LIVE)


def test_a_generation_that_a_restored_backup_gave_out_again_is_not_the_same_one(
    database: Database,
) -> None:
    """The connection from before the restore ends late, and its generation is somebody else's."""
    kept.keep_run(database, 1, 5)
    before = connect(database)
    database.write(lambda db: db.execute(subscription.delete()))
    database.write(lambda db: journal.raise_epoch(db, before.epoch))
    after = connect(database)
    assert after.generation == before.generation
    move(database, mark(before, 9, sent=9, standing=LIVE))
    row = stored(database)
    assert (row.position, row.sent_position, row.state) == (5, None, NEW)
    move(database, mark(after, 6))
    assert (stored(database).position, stored(database).state) == (6, LIVE)


def test_a_connection_whose_epoch_is_over_still_says_how_it_ended(database: Database) -> None:
    """Until the client is back, the row is of the old epoch as well."""
    start = live_at(database, 0)
    database.write(lambda db: journal.raise_epoch(db, start.epoch))
    move(database, mark(start, 0, sent=0, standing=FRESH))
    assert stored(database).state == FRESH


def test_within_a_generation_a_cursor_only_goes_forward(database: Database) -> None:
    kept.keep_run(database, 1, 5)
    start = connect(database)
    move(database, mark(start, 7))
    move(database, mark(start, 6, sent=6, standing=FRESH))
    row = stored(database)
    assert (row.position, row.sent_position, row.state) == (7, None, LIVE)
    move(database, mark(start, 7, sent=9))
    assert stored(database).sent_position == 9


def test_a_new_connect_may_set_the_cursor_back(database: Database) -> None:
    """The client says itself what it has seen."""
    kept.keep_run(database, 1, 5)
    live_at(database, 5)
    start = connect(database, last_event_id=cursor(database, 2).text())
    assert (start.resumed, start.point.position) == (True, 2)
    assert stored(database).position == 2


def test_many_marks_are_stored_at_once_and_bad_ones_harm_no_other(database: Database) -> None:
    kept.keep_run(database, 1, 3)
    watchers = [watcher(f"/{number}") for number in range(5)]
    starts = [connect(database, who) for who in watchers]
    marks = [mark(start, 9, who=who) for start, who in zip(starts, watchers, strict=True)]
    marks[2] = marks[2]._replace(generation=0)
    marks[3] = marks[3]._replace(position=1)
    move(database, *marks)
    assert [stored(database, who).position for who in watchers] == [9, 9, 3, 3, 9]
    move(database)


@pytest.mark.parametrize("alike", [True, False])
def test_marks_lock_their_rows_in_the_order_of_their_keys(
    database: Database, *, alike: bool
) -> None:
    """Else two workers that store at once could each wait for the other."""
    watchers = [watcher(f"/{number}") for number in range(40)]
    marks = [
        mark(start, 0 if alike or number % 2 else number, who=who)
        for number, who in enumerate(watchers)
        if (start := connect(database, who, limits=ROOMY))
    ]
    locked: list[str] = []
    hashes = {key(who).folder_hash for who in watchers}

    def note(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        del cursor, context
        if statement.startswith("SELECT"):
            assert "ORDER BY" in statement
            values = parameters.values() if isinstance(parameters, dict) else parameters
            locked.extend(each for each in values if each in hashes)

    sqlalchemy.event.listen(database.engine, "do_execute", note)
    move(database, *reversed(marks))
    sqlalchemy.event.remove(database.engine, "do_execute", note)
    assert list(dict.fromkeys(locked)) == sorted(hashes)
    positions = [stored(database, who).position for who in watchers]
    assert positions == [each.position for each in marks]
    assert {stored(database, who).state for who in watchers} == {LIVE}


def test_marks_that_say_the_same_are_stored_by_few_statements(database: Database) -> None:
    watchers = fill(database, 32)
    starts = come(database, watchers)
    marks = [mark(start, 0, who=who) for start, who in zip(starts, watchers, strict=True) if start]
    run = statements.watch(database.engine)
    move(database, *marks)
    assert len([each for each in run if "file_event_subscription" in each]) == 4
    assert {stored(database, who).state for who in watchers} == {LIVE}


# Two at once.


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_two_first_connects_at_once_are_two_generations(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one's INSERT fails for the first one's row; then there is a row to take.

    SQLite has one writer at a time: the second one sees the first one's row to begin with.
    """
    look = subscriptions._lock
    first: list[Start] = []

    def be_overtaken(*arguments: Any, **more: Any) -> Any:
        found = look(*arguments, **more)
        monkeypatch.undo()
        first.append(connect(database))
        return found

    monkeypatch.setattr(subscriptions, "_lock", be_overtaken)
    second = connect(database)
    assert [first[0].generation, second.generation] == [1, 2]
    assert stored(database).generation == 2


def test_connects_of_many_clients_at_once_all_get_their_generation(url: str) -> None:
    clients = [str(uuid.uuid4()) for _ in range(4)]
    database = Database(url)
    if database.is_sqlite:
        generations = [connect(database, watcher(client=c)).generation for c in clients * 3]
    else:
        with ThreadPoolExecutor(6) as pool:
            tasks = [pool.submit(connect, database, watcher(client=c)) for c in clients * 3]
            generations = [task.result(DEADLINE_SECONDS).generation for task in tasks]
    assert sorted(map(int, filter(None, generations))) == [1] * 4 + [2] * 4 + [3] * 4
    assert database.read(rows.last_position) == 0
    database.close()


# Many at once.


WHOLE = {
    "sqlite": "SCAN file_event_subscription",
    "postgresql": "Seq Scan on file_event_subscription",
    "mysql": "file_event_subscription ALL",
}


@pytest.mark.parametrize("together", [1, 2, 16])
def test_the_rows_of_those_who_come_together_are_found_by_their_keys(
    database: Database, together: int
) -> None:
    """Each plan is asked for with the tables as large as they are, and none reads all of them."""
    group = [Arrival(who, None) for who in fill(database, 2_000)[::100]][:together]
    plan = plans.of(
        database,
        lambda db: subscriptions.connect_all(db, group, ROOMY),
        "file_event_subscription",
    )
    assert len(plan.splitlines()) >= 2
    assert WHOLE[database.engine.dialect.name] not in plan


def test_one_more_who_comes_together_costs_no_statement(database: Database) -> None:
    watchers = fill(database, 16)
    seen = statements.watch(database.engine)
    counts = []
    for together in (2, 16):
        come(database, watchers[:together])
        counts.append(len(seen))
        seen.clear()
    assert counts[0] == counts[1] <= 5


# InnoDB's optimizer reads small tables from end to end, past rows that others have locked.
@pytest.mark.parametrize("known", [3, 5, 10, 40])
@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_who_comes_together_waits_for_nobodys_lock(database: Database, known: int) -> None:
    """Else a worker that froze would hold up all of them, not only the client it knew."""
    watchers = fill(database, known)
    locked, others = watchers[1], [watchers[0], *watchers[2:16]]
    with database.engine.begin() as elsewhere:
        elsewhere.execute(select(subscription).where(is_of(locked)).with_for_update())
        starts = come(database, [others[0], locked, *others[1:]])
        assert starts.pop(1) is None
        marks = [mark(each, 0, who=who) for each, who in zip(starts, others, strict=True) if each]
        move(database, *marks)
    assert {each.generation for each in starts if each} == {2}
    assert {(stored(database, who).generation, stored(database, who).state) for who in others} == {
        (2, LIVE)
    }
    assert (stored(database, locked).generation, stored(database, locked).state) == (1, NEW)

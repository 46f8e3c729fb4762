"""Durable cursors: who may move them, who resumes from them, which of them go; on every engine."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Row, func, select, update

from events_app import event, journal, schema, scope, subscriptions, uri
from events_app.columns import utc_now
from events_app.database import Database
from events_app.schema import state, subscription
from events_app.subscriptions import FRESH, LIVE, NEW, Limits, Mark, Start
from tests import kept, reused, rows

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
OTHER = "1b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
LIMITS = Limits(replay_rows=100, subscriptions_per_user=10)
DEADLINE_SECONDS = 20


@pytest.fixture
def url(request: pytest.FixtureRequest, engine: str) -> str:
    """Give the emptied database of each engine."""
    return reused.url(request, engine)


def watcher(path: str = "/", client: str | None = CLIENT, user: str = "42") -> scope.Watcher:
    return scope.Watcher.of(user, client, uri.Folder("my", path))


def key(who: scope.Watcher) -> subscriptions.Key:
    found = subscriptions.key_of(who)
    assert found is not None
    return found


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
    query = select(subscription).where(subscriptions._is(key(who or watcher())))
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
    assert row.created_at == row.seen_at


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


def test_marks_are_stored_in_the_order_of_their_keys(database: Database) -> None:
    """Else two workers that store at once could each wait for the other."""
    watchers = [watcher(f"/{number}") for number in range(9)]
    marks = [mark(connect(database, who), 0, who=who) for who in watchers]
    told: list[Any] = []

    class Listening:
        def execute(self, _: object, values: list[dict[str, Any]]) -> None:
            told.extend((v["of_user"], v["of_client"], v["of_folder"]) for v in values)

    subscriptions.move(Listening(), reversed(marks))  # type: ignore[arg-type] # it only listens
    assert told == sorted(told)
    assert len(told) == 9


# Resuming.


def test_a_live_subscription_resumes_where_it_stood(database: Database) -> None:
    kept.keep_run(database, 1, 5)
    live_at(database, 5)
    kept.keep_run(database, 6, 9)
    start = connect(database)
    assert (start.resumed, start.reason) == (True, "")
    assert start.point == event.Point(5, kept.tag_of(5))
    assert stored(database).state == LIVE


def test_a_subscription_whose_first_frame_never_arrived_starts_afresh(database: Database) -> None:
    connect(database)
    assert stored(database).state == NEW
    start = connect(database)
    assert (start.resumed, start.reason) == (False, "first frame never arrived")
    assert start.generation == 2


def test_a_subscription_that_cannot_replay_starts_afresh_once(database: Database) -> None:
    kept.keep_run(database, 1, 3)
    start = live_at(database, 3)
    move(database, mark(start, 3, standing=FRESH))
    again = connect(database)
    assert (again.resumed, again.reason) == (False, "could not be replayed")
    assert stored(database).state == NEW


def test_after_a_noticed_end_only_what_was_sent_may_come_twice(database: Database) -> None:
    kept.keep_run(database, 1, 5)
    start = live_at(database, 5)
    kept.keep_run(database, 6, 9)
    move(database, mark(start, 5, sent=7))
    again = connect(database)
    assert (again.resumed, again.point.position, again.repeated_upto) == (True, 5, 7)
    assert stored(database).sent_position is None


def test_after_a_crash_everything_up_to_the_end_may_come_twice(database: Database) -> None:
    kept.keep_run(database, 1, 5)
    live_at(database, 5)
    kept.keep_run(database, 6, 9)
    assert connect(database).repeated_upto == 9


def test_what_a_client_brings_back_comes_once(database: Database) -> None:
    kept.keep_run(database, 1, 5)
    start = connect(database, last_event_id=cursor(database, 3).text())
    assert (start.resumed, start.point.position, start.repeated_upto) == (True, 3, 0)


def test_what_a_client_brings_back_wins_over_what_is_stored(database: Database) -> None:
    """Also when it is of no use: the client may have thrown its state away."""
    kept.keep_run(database, 1, 5)
    live_at(database, 5)
    assert connect(database, last_event_id="garbage").reason == "no cursor of ours"
    live_at(database, 5)
    assert not connect(database, last_event_id="").resumed


def test_what_a_client_brings_back_is_enough_without_an_id(database: Database) -> None:
    kept.keep_run(database, 1, 5)
    nobody = watcher(client=None)
    start = connect(database, nobody, cursor(database, 3, nobody).text())
    assert (start.resumed, start.point.position, start.generation) == (True, 3, None)


def test_before_the_first_change_there_is_a_point_to_resume_from(database: Database) -> None:
    start = live_at(database, 0)
    assert start.point == event.Point(0, 0)
    kept.keep_run(database, 1, 2)
    again = connect(database)
    assert (again.resumed, again.point.position) == (True, 0)


def of_a_replaced_history(database: Database) -> event.Cursor:
    found = cursor(database, 5)
    return found._replace(point=event.Point(5, found.point.tag + 1))


def raise_epoch(database: Database) -> event.Cursor:
    found = cursor(database, 5)
    database.write(lambda db: journal.raise_epoch(db, reused.EPOCH))
    return found


def prune_upto_6(database: Database) -> event.Cursor:
    found = cursor(database, 5)
    gone = schema.journal.delete().where(schema.journal.c.position <= 6)
    database.write(lambda db: db.execute(gone))
    database.write(lambda db: db.execute(update(state).values(floor_position=6)))
    return found


def reject_a_row(database: Database) -> event.Cursor:
    kept.keep(database, [kept.row(10, rejected="from_path is empty")])
    return cursor(database, 5)


def remove_the_folder(database: Database) -> event.Cursor:
    who = watcher("/docs")
    kept.keep(database, [kept.row(10, type="delete", from_path="/docs")])
    return cursor(database, 5, who)


WHY_NOT: list[tuple[str, Callable[[Database], event.Cursor | None], str]] = [
    ("first connection", lambda _: None, "/"),
    (
        "cursor of another user or folder",
        lambda db: cursor(db, 5, watcher(user="43")),
        "/",
    ),
    ("cursor of another user or folder", lambda db: cursor(db, 5, watcher("/docs")), "/"),
    ("another epoch", raise_epoch, "/"),
    ("another epoch", lambda db: cursor(db, 5).fresh(), "/"),
    ("pruned", prune_upto_6, "/"),
    (
        "beyond the end",
        lambda db: cursor(db, 5)._replace(point=event.Point(10, 0)),
        "/",
    ),
    ("another history", of_a_replaced_history, "/"),
    ("too far behind", lambda db: cursor(db, 2), "/"),
    ("the watched folder was removed", remove_the_folder, "/docs"),
    ("a rejected row", reject_a_row, "/"),
]


@pytest.mark.parametrize(("reason", "make", "path"), WHY_NOT, ids=[each[0] for each in WHY_NOT])
def test_a_cursor_that_does_not_fit_starts_afresh_and_says_why(
    database: Database,
    reason: str,
    make: Callable[[Database], event.Cursor | None],
    path: str,
) -> None:
    kept.keep_run(database, 1, 9)
    made = make(database)
    limits = LIMITS._replace(replay_rows=6)
    start = connect(database, watcher(path), made.text() if made else None, limits)
    assert (start.resumed, start.reason) == (False, reason)
    end = database.read(journal.head).last_position
    assert start.point == event.Point(end, kept.tag_of(end))
    assert start.epoch == database.read(journal.head).epoch
    assert stored(database, watcher(path)).state == NEW


def test_a_stored_cursor_is_checked_just_the_same(database: Database) -> None:
    """A restored backup filled its position with another row... which its epoch tells."""
    kept.keep_run(database, 1, 5)
    live_at(database, 5)
    database.write(lambda db: journal.raise_epoch(db, reused.EPOCH))
    start = connect(database)
    assert (start.resumed, start.reason) == (False, "another epoch")


def test_exactly_as_many_rows_as_may_be_replayed_are(database: Database) -> None:
    kept.keep_run(database, 1, 9)
    found = cursor(database, 3).text()
    assert connect(database, None, found, LIMITS._replace(replay_rows=6)).resumed
    assert not connect(database, None, found, LIMITS._replace(replay_rows=5)).resumed


def test_at_the_floor_the_epoch_must_do(database: Database) -> None:
    """The row is pruned, and with it its tag; everything after it is still there."""
    kept.keep_run(database, 1, 9)
    found = cursor(database, 6)
    prune_upto_6(database)
    start = connect(database, last_event_id=found.text())
    assert (start.resumed, start.point) == (True, found.point)


def test_duplicates_and_other_peoples_rejected_rows_do_not_hinder(database: Database) -> None:
    kept.keep_run(database, 1, 5)
    found = cursor(database, 5).text()
    kept.keep(
        database,
        [
            kept.row(6, rejected=event.DUPLICATE),
            kept.row(7, rejected="why", user_id="43"),
            kept.row(8, type="delete", from_path="/", user_id="43"),
        ],
    )
    assert connect(database, last_event_id=found).resumed


# What goes.


def seen(database: Database, ago_seconds: float, who: scope.Watcher) -> None:
    now = database.read(journal.head).now
    change = update(subscription).where(subscriptions._is(key(who)))
    past = now - timedelta(seconds=ago_seconds)
    database.write(lambda db: db.execute(change.values(seen_at=past)))


def paths(database: Database) -> list[str]:
    query = select(subscription.c.path).order_by(subscription.c.path)
    return database.read(lambda db: list(db.scalars(query)))


def test_those_unseen_for_too_long_expire_in_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "EXPIRE_ROWS", 2)
    for number in range(5):
        who = watcher(f"/{number}")
        connect(database, who)
        seen(database, 100 - number * 30, who)  # 100, 70, 40, 10, -20
    expired = [database.write(lambda db: subscriptions.expire(db, 30)) for _ in range(3)]
    assert [sum(each) for each in expired] == [2, 1, 0]
    assert paths(database) == ["/3", "/4"]


def test_an_expired_one_is_not_put_back_by_its_last_connection(database: Database) -> None:
    kept.keep_run(database, 1, 3)
    start = live_at(database, 3)
    seen(database, 100, watcher())
    database.write(lambda db: subscriptions.expire(db, 50))
    move(database, mark(start, 3))
    assert database.read(count) == 0
    again = connect(database)
    assert (again.resumed, again.generation) == (False, 1)


def test_a_stored_mark_counts_as_seen(database: Database) -> None:
    start = connect(database)
    seen(database, 100, watcher())
    move(database, mark(start, 0))
    assert sum(database.write(lambda db: subscriptions.expire(db, 50))) == 0


def test_one_that_connects_while_it_expires_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the delete. SQLite's one writer leaves no such moment: made by hand."""
    live_at(database, 0)
    seen(database, 100, watcher())
    forget = subscriptions._forget

    def connect_first(connection: Connection, keys: Any, *rest: Any) -> Any:
        change = update(subscription).values(seen_at=utc_now(), generation=7)
        if database.is_sqlite:
            connection.execute(change)
        else:
            with database.engine.begin() as another:
                another.execute(change)
        return forget(connection, keys, *rest)

    monkeypatch.setattr(subscriptions, "_forget", connect_first)
    database.write(lambda db: subscriptions.expire(db, 50))
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


# Who is behind.


def standing(database: Database, path: str = "/") -> subscriptions.Standing:
    found = database.read(subscriptions.standings)
    return next(each for each in found if each.path == path)


def standing_at(database: Database, position: int, who: scope.Watcher) -> None:
    """Have the client's stored cursor at `position`, wherever that is."""
    live_at(database, database.read(journal.head).last_position, who)
    change = update(subscription).where(subscriptions._is(key(who)))
    database.write(lambda db: db.execute(change.values(position=position)))


def recorded_at(database: Database, position: int) -> datetime:
    return database.read(lambda db: journal.after(db, position - 1, position))[0].recorded_at


def test_the_furthest_behind_come_first_with_the_time_of_what_they_lack(
    database: Database,
) -> None:
    kept.keep_run(database, 1, 3)
    kept.keep_run(database, 4, 9)
    for position, path in ((7, "/near"), (3, "/far"), (9, "/there")):
        standing_at(database, position, watcher(path))
    connect(database, watcher("/just came", user="43"))
    found = database.read(subscriptions.standings)
    assert [(each.path, each.behind, each.state) for each in found] == [
        ("/far", 6, LIVE),
        ("/near", 2, LIVE),
        ("/there", 0, LIVE),
        ("/just came", 0, NEW),
    ]
    assert [each.since for each in found] == [
        recorded_at(database, 4),
        recorded_at(database, 8),
        None,
        None,
    ]
    row = stored(database, watcher("/far"))
    assert found[0] == subscriptions.Standing(
        "42", CLIENT, "my", "/far", LIVE, 6, recorded_at(database, 4), row.seen_at
    )


def test_only_one_users_and_only_those_so_far_behind(database: Database) -> None:
    kept.keep_run(database, 1, 9)
    for position, user in enumerate(("42", "42", "43"), start=5):
        standing_at(database, position, watcher(f"/{position}", user=user))

    def listed(user: str | None, behind: int) -> list[str]:
        found = database.read(lambda db: subscriptions.standings(db, user, behind))
        return [each.path for each in found]

    assert listed(None, 0) == ["/5", "/6", "/7"]
    assert listed("42", 0) == ["/5", "/6"]
    assert listed(None, 3) == ["/5", "/6"]
    assert listed("43", 3) == []
    assert listed("4", 0) == []


@pytest.mark.parametrize("position", [2, 12], ids=["pruned", "beyond the end"])
def test_whose_past_is_gone_is_first_and_will_start_afresh(
    database: Database, position: int
) -> None:
    kept.keep_run(database, 1, 9)
    live_at(database, 9, watcher("/there"))
    prune_upto_6(database)
    standing_at(database, position, watcher("/gone"))
    found = database.read(lambda db: subscriptions.standings(db, None, 1_000))
    assert [(each.path, each.state, each.behind, each.since) for each in found] == [
        ("/gone", FRESH, None, None)
    ]


def test_in_another_epoch_everybody_will_start_afresh(database: Database) -> None:
    kept.keep_run(database, 1, 9)
    standing_at(database, 5, watcher())
    raise_epoch(database)
    assert (standing(database).state, standing(database).behind) == (FRESH, None)


def test_those_that_go_are_counted_by_whether_they_were_ever_resumed(database: Database) -> None:
    for number in range(3):
        connect(database, watcher(f"/{number}"))
    for number in range(2):
        connect(database, watcher(f"/{number}"))
    newest = connect(database, watcher("/new"), limits=LIMITS._replace(subscriptions_per_user=2))
    assert newest.displaced == subscriptions.Forgotten(never_resumed=1, resumed=1)
    seen(database, 100, watcher("/new"))
    gone = database.write(lambda db: subscriptions.expire(db, 50))
    assert gone == subscriptions.Forgotten(never_resumed=1, resumed=0)


def test_one_that_is_resumed_while_room_is_made_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the delete. SQLite's one writer leaves no such moment: made by hand."""
    connect(database, watcher("/0"))
    delete_rows = subscriptions._delete

    def resume_first(connection: Connection, *rest: Any) -> Any:
        monkeypatch.undo()
        change = update(subscription).where(subscription.c.path == "/0").values(generation=2)
        if database.is_sqlite:
            connection.execute(change)
        else:
            with database.engine.begin() as another:
                another.execute(change)
        return delete_rows(connection, *rest)

    monkeypatch.setattr(subscriptions, "_delete", resume_first)
    connect(database, watcher("/1"), limits=LIMITS._replace(subscriptions_per_user=1))
    assert paths(database) == ["/0", "/1"]


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

    def be_overtaken(*arguments: Any) -> Any:
        found = look(*arguments)
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

"""Who resumes and from where, and why not; on every engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from events_app import event, journal
from events_app.database import Database
from events_app.schema import FRESH, LIVE, NEW
from tests import kept, reused
from tests.subscribed import (
    LIMITS,
    connect,
    cursor,
    live_at,
    mark,
    move,
    prune_upto_6,
    raise_epoch,
    stored,
    watcher,
)

url = reused.on_each_engine


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

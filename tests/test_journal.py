"""Every statement that reads or prunes the journal, on every engine, with its plan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, select, text, update

from events_app import errors, event, journal, schema, uri
from events_app.columns import utc_now
from events_app.database import Database
from tests import kept, plans, reused, rows, statements

url = reused.on_each_engine


def head(database: Database, seen: int = 0) -> journal.Head:
    return database.read(lambda db: journal.head(db, seen))


def test_the_head_of_an_empty_journal(database: Database) -> None:
    found = head(database)
    assert found[:3] == (0, 0, reused.EPOCH)
    assert (found.waiting_since, found.seen_tag) == (None, None)


def test_the_head_knows_what_waits_and_what_was_seen(database: Database, url: str) -> None:
    kept.keep_run(database, 1, 3)
    rows.commit(url, "/old", created_at="2020-01-02 03:04:05")
    rows.commit(url, "/new")
    found = head(database, 2)
    assert found.last_position == 3
    assert found.seen_tag == kept.tag_of(2)
    assert found.waiting_since is not None
    assert found.waiting_since.isoformat() == "2020-01-02T03:04:05+00:00"
    assert head(database, 4).seen_tag is None


def test_the_head_is_read_in_one_statement(database: Database) -> None:
    """A second one would see another moment: a tail that fell and rose in between."""
    seen = statements.watch(database.engine)
    head(database)
    seen.clear()
    head(database)
    assert len([one for one in seen if one.startswith("SELECT")]) == 1


def test_the_heads_time_is_the_databases_in_utc(database: Database) -> None:
    query = {
        "sqlite": "SELECT strftime('%s', 'now')",
        "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
        "mysql": "SELECT UNIX_TIMESTAMP(SYSDATE(6))",
    }[database.engine.dialect.name]
    epoch = float(database.read(lambda db: db.scalar(text(query))) or 0)
    assert abs(head(database).now.timestamp() - epoch) < 2
    assert head(database).now.utcoffset() == timedelta(0)


def test_a_lost_state_row_says_so(database: Database) -> None:
    with pytest.raises(errors.SchemaError, match="restore it from a backup"):
        database.read(_head_without_state)


def _head_without_state(connection: Connection) -> None:
    connection.execute(delete(schema.state))
    try:
        journal.head(connection)
    finally:
        connection.rollback()


def test_rows_are_read_in_order_after_a_position_and_up_to_one(database: Database) -> None:
    kept.keep(database, [kept.row(position) for position in (3, 1, 5, 2, 4)], last=5)
    found = database.read(lambda db: journal.after(db, 1, 4))
    assert [row.position for row in found] == [2, 3, 4]
    assert [row.tag for row in found] == [21, 31, 41]


def test_a_row_holds_everything_a_stream_needs(database: Database) -> None:
    values = kept.row(
        1,
        type="rename",
        file_id="f",
        from_path="/ä",
        to_path="/ö\u2028😀",
        client_id="c",
        actor_id="a",
        rejected="why",
        tag=2**32 - 1,
    )
    kept.keep(database, [values])
    (found,) = database.read(lambda db: journal.after(db, 0, 1))
    assert {name: getattr(found, name) for name in values if name in found._fields} == {
        name: value for name, value in values.items() if name in found._fields
    }
    assert found.recorded_at.utcoffset() == timedelta(0)


def test_a_page_ends_after_so_many_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PAGE_ROWS", 3)
    kept.keep_run(database, 1, 5)
    assert len(database.read(lambda db: journal.after(db, 0, 5))) == 3
    assert len(database.read(lambda db: journal.after(db, 3, 5))) == 2


def test_a_page_of_a_user_holds_nobody_elses_rows(database: Database) -> None:
    users = ["42", "43", "42", "4", "42 ", "42"]
    kept.keep(
        database, [kept.row(number, user_id=user) for number, user in enumerate(users, start=1)]
    )
    upto = event.Point(5, kept.tag_of(5))
    page = database.read(lambda db: journal.page_of_user(db, "42", 0, upto))
    assert [row.position for row in page.rows] == [1, 3]
    assert page.upto == upto
    assert page.head.last_position == 6


def test_a_full_page_of_a_user_is_complete_up_to_its_last_row(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PAGE_ROWS", 2)
    kept.keep_run(database, 1, 5)
    upto = event.Point(5, kept.tag_of(5))
    page = database.read(lambda db: journal.page_of_user(db, "42", 0, upto))
    assert page.upto == event.Point(2, kept.tag_of(2))


def test_the_tag_at_a_position(database: Database) -> None:
    kept.keep_run(database, 1, 2)
    assert database.read(lambda db: journal.tag_at(db, 2)) == kept.tag_of(2)
    assert database.read(lambda db: journal.tag_at(db, 3)) is None


def past(database: Database, path: str, position: int = 0, most: int = 100) -> journal.Past:
    root = frozenset(uri.ancestors(path))
    replay = journal.Replay("42", "my", position, root)
    return database.read(lambda db: journal.pasts(db, [replay], most))[0]


def test_the_past_of_a_user_is_counted_up_to_one_too_many(database: Database) -> None:
    kept.keep_run(database, 1, 3, user_id="43")
    kept.keep_run(database, 4, 9)
    assert past(database, "/") == journal.Past(6, 0, 0)
    assert past(database, "/", 6) == journal.Past(3, 0, 0)
    assert past(database, "/", most=2) == journal.Past(3, 0, 0)
    assert past(database, "/", 9) == journal.Past(0, 0, 0)


@pytest.mark.parametrize(
    ("columns", "ended"),
    [
        ({"type": "delete", "from_path": "/a/b"}, 1),
        ({"type": "delete", "from_path": "/a"}, 1),
        ({"type": "rename", "from_path": "/a", "to_path": "/z"}, 1),
        ({"type": "rename", "from_path": "/z", "to_path": "/a/b"}, 1),
        ({"type": "rename", "from_path": "/a", "to_path": "/a"}, 0),
        ({"type": "rename", "from_path": "/a", "to_path": "/A"}, 1),
        ({"type": "create", "from_path": "/a/b"}, 1),
        ({"type": "modify", "from_path": "/a/b"}, 0),
        ({"type": "delete", "from_path": "/a/b/c"}, 0),
        ({"type": "delete", "from_path": "/A/b"}, 0),
        ({"type": "delete", "from_path": "/a/b "}, 0),
        ({"type": "delete", "from_path": "/a/b", "fs": "share"}, 0),
        ({"type": "delete", "from_path": "/a/b", "rejected": "duplicate"}, 0),
        ({"type": "delete", "from_path": "/a/b", "rejected": "for a reason"}, 0),
    ],
)
def test_the_past_knows_of_the_watched_folders_end(
    database: Database, columns: dict[str, Any], ended: int
) -> None:
    kept.keep(database, [kept.row(1), kept.row(2, **columns)])
    assert past(database, "/a/b").root_ended == ended


def test_the_past_knows_of_rejected_rows_but_not_of_duplicates(database: Database) -> None:
    reasons = [None, "duplicate", "from_path is empty", "duplicate ", None]
    kept.keep(
        database, [kept.row(number, rejected=why) for number, why in enumerate(reasons, start=1)]
    )
    assert past(database, "/") == journal.Past(5, 2, 0)


def test_each_of_several_replays_is_gone_through_once(sqlite_url: str) -> None:
    """However few there are of a statement's: counted in steps of SQLite's machine."""
    database = Database(sqlite_url)
    kept.keep_run(database, 1, 1_000)
    steps = [0, 0, 0]

    def look_over(db: Connection, number: int) -> None:
        def count() -> None:
            steps[number] += 1

        driver: Any = db.connection.driver_connection
        driver.set_progress_handler(count, 100)
        journal.pasts(db, [journal.Replay("42", "my", 0, frozenset({"/"}))] * number, 2_000)
        driver.set_progress_handler(None, 0)

    for number in (1, 2):
        database.read(partial(look_over, number=number))
    database.close()
    assert 1.8 * steps[1] < steps[2] < 2.2 * steps[1]


def test_the_outbox_is_counted_no_further_than_asked(database: Database, url: str) -> None:
    rows.commit(url, "/a", "/b", "/c")
    assert database.read(lambda db: journal.outbox_depth(db, 10)) == 3
    assert database.read(lambda db: journal.outbox_depth(db, 2)) == 2
    assert database.read(lambda db: journal.outbox_holds(db, 3))
    assert not database.read(lambda db: journal.outbox_holds(db, 4))


# Epochs.


def test_an_epoch_is_raised_once_to_the_time(database: Database) -> None:
    assert database.write(lambda db: journal.raise_epoch(db, reused.EPOCH))
    raised = head(database)
    assert abs(raised.epoch - raised.now.timestamp()) < 3
    assert not database.write(lambda db: journal.raise_epoch(db, reused.EPOCH))
    assert head(database).epoch == raised.epoch


def test_an_epoch_from_the_future_rises_all_the_same(database: Database) -> None:
    """A clock that was wrong once: epochs never fall and never repeat."""
    future = 4_000_000_000
    database.write(lambda db: db.execute(update(schema.state).values(epoch=future)))
    assert database.write(lambda db: journal.raise_epoch(db, future))
    assert head(database).epoch == future + 1


# Pruning.


def age(database: Database, seconds: float, *positions: int) -> None:
    """Let rows have been recorded `seconds` ago."""
    when = head(database).now - timedelta(seconds=seconds)
    change = update(schema.journal).where(schema.journal.c.position.in_(positions))
    database.write(lambda db: db.execute(change.values(recorded_at=when)))


def prune(database: Database, seconds: float) -> int:
    return database.write(lambda db: journal.prune(db, seconds))


def test_pruning_takes_the_old_prefix_and_raises_the_floor(database: Database) -> None:
    kept.keep_run(database, 1, 6)
    age(database, 100, 1, 2, 3)
    assert prune(database, 50) == 3
    assert database.read(rows.positions) == [4, 5, 6]
    assert head(database)[:2] == (6, 3)
    assert prune(database, 50) == 0
    assert head(database).floor_position == 3


def test_pruning_never_leaves_a_hole(database: Database) -> None:
    """An old row behind a younger one stays: a clock that was set back makes such."""
    kept.keep_run(database, 1, 4)
    age(database, 100, 1, 3)
    assert prune(database, 50) == 1
    assert database.read(rows.positions) == [2, 3, 4]


def test_pruning_everything_leaves_the_last_position(database: Database) -> None:
    kept.keep_run(database, 1, 3)
    age(database, 100, 1, 2, 3)
    assert prune(database, 50) == 3
    assert head(database)[:2] == (3, 3)


def test_pruning_goes_by_the_databases_time_of_the_move_not_by_the_apps(
    database: Database,
) -> None:
    kept.keep_run(database, 1, 1)
    long_ago = head(database).now - timedelta(days=9)
    database.write(lambda db: db.execute(update(schema.journal).values(created_at=long_ago)))
    assert prune(database, 50) == 0


def test_pruning_takes_a_batch_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PRUNE_ROWS", 2)
    kept.keep_run(database, 1, 5)
    age(database, 100, 1, 2, 3, 4, 5)
    assert [prune(database, 50) for _ in range(4)] == [2, 2, 1, 0]
    assert head(database).floor_position == 5


def test_a_prune_that_fails_removes_nothing(database: Database) -> None:
    kept.keep_run(database, 1, 2)
    age(database, 100, 1, 2)

    def fail(statement: str) -> None:
        if statement.startswith("UPDATE file_event_state"):
            raise RuntimeError

    statements.before_each(database.engine, fail)
    with pytest.raises(RuntimeError):
        prune(database, 50)
    assert database.read(rows.positions) == [1, 2]
    assert head(database).floor_position == 0


# Plans.

MANY = 5_000


@pytest.fixture
def full(database: Database) -> Database:
    """Give a journal in which one user in fifty is the one we look for."""
    kept.keep(database, (kept.row(n, user_id=str(n % 50)) for n in range(1, MANY + 1)))
    plans.analyze(database)
    return database


# Any of the indexes that begin with the user: where few rows are the user's, they cost alike.
OF_USER = "file_event_journal_user_"


@pytest.mark.parametrize("position", [0, MANY - 20])
def test_new_rows_are_read_by_the_primary_key(full: Database, position: int) -> None:
    name = full.engine.dialect.name
    plan = plans.of(full, lambda db: journal.after(db, position, MANY))
    assert plans.PRIMARY[name] in plan
    assert plans.WHOLE[name] not in plan


@pytest.mark.parametrize("position", [0, MANY - 200])
def test_a_users_rows_are_read_by_the_users_index(full: Database, position: int) -> None:
    name = full.engine.dialect.name
    end = event.Point(MANY, 0)
    plan = plans.of(full, lambda db: journal.page_of_user(db, "7", position, end))
    assert OF_USER in plan
    assert plans.WHOLE[name] not in plan
    root = frozenset(uri.ancestors("/a/b/c"))
    replays = [journal.Replay(user, "my", position, root) for user in ("7", "8", "9")]
    plan = plans.of(full, lambda db: journal.pasts(db, replays, 1_000))
    assert OF_USER in plan
    assert plans.WHOLE[name] not in plan


def test_single_rows_are_found_by_their_keys(full: Database) -> None:
    name = full.engine.dialect.name
    reads: list[Callable[[Connection], Any]] = [
        lambda db: journal.tag_at(db, 77),
        lambda db: journal.head(db, 77),
        lambda db: journal.ends(db, [77]),
        lambda db: journal.ends(db, range(70, 86)),
    ]
    for read in reads:
        plan = plans.of(full, read)
        assert plans.PRIMARY[name] in plan
        assert plans.WHOLE[name] not in plan


@pytest.mark.parametrize("count", [1, 2, 60])
def test_event_keys_are_found_by_their_index(database: Database, count: int) -> None:
    """Given a list of pairs, SQLite reads all of the index: every step of the mover did so."""
    name = database.engine.dialect.name
    kept.keep(
        database,
        (kept.row(n, user_id=str(n % 50), event_key=f"k{n}") for n in range(1, MANY + 1)),
    )
    plans.analyze(database)
    keys = [(str(n % 50), f"k{n}") for n in range(100, 100 + count)]
    plan = plans.of(database, lambda db: journal.positions_of_keys(db, [*keys, ("7", "none")]))
    assert "file_event_journal_user_key" in plan
    assert plans.WHOLE[name] not in plan
    found = database.read(lambda db: journal.positions_of_keys(db, [*keys, ("7", "none")]))
    assert found == {key: 100 + n for n, key in enumerate(keys)}


def test_the_databases_time_moves_within_a_transaction(database: Database) -> None:
    """PostgreSQL's now() would stand still from the transaction's begin, before the lock was had.

    SQLite's and MariaDB's stand still for one statement only.
    """

    def twice(connection: Connection) -> bool:
        first = connection.scalar(select(utc_now()))
        slow: Any = {
            "sqlite": text("SELECT randomblob(30000000) IS NULL"),
            "postgresql": select(func.pg_sleep(0.005)),
            "mysql": select(func.sleep(0.005)),
        }[connection.dialect.name]
        connection.execute(slow)
        second = connection.scalar(select(utc_now()))
        return first is not None and second is not None and second > first

    assert database.read(twice)

"""The mover under every interleaving it was built for, on every engine.

SQLite has one writer at a time: two transactions of an app never overlap there, so a late commit
with a lower id is made with explicit ids, and whoever holds the file's write lock makes the mover
leave, not wait for a row.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import gevent
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Connection, Engine, exc, select, text
from sqlalchemy.engine.interfaces import IsolationLevel

from events_app import database as databases
from events_app import errors, sequencer
from events_app.columns import utc_now
from events_app.database import Database
from events_app.schema import journal, outbox, state
from events_app.sequencer import Mover, Step
from tests import reused, rows, statements
from tests.databases import ROOT, plain_environment

SERVERS = pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
MARIADB = pytest.mark.parametrize("engine", ["mariadb"], indirect=True)

# Who waits for a lock although nobody should have to fails after this long.
PATIENCE = {
    "postgresql": "SET lock_timeout = '1s'",
    "mysql": "SET SESSION innodb_lock_wait_timeout = 1",
}
DEADLINE_SECONDS = 20

url = reused.on_each_engine


@pytest.fixture
def app(url: str) -> Engine:
    """Give an app's engine, at the isolation level that its database begins with."""
    return rows.app(url)


def step(database: Database, most: int = sequencer.BATCH_ROWS) -> Step | None:
    return database.write(lambda db: sequencer.move(db, most))


def step_until_empty(database: Database) -> list[Step]:
    mover = Mover(database)
    done = []
    while (last := mover.step()) is not None and last.moved:
        done.append(last)
    return done


@contextlib.contextmanager
def impatient(engine: Engine) -> Iterator[Connection]:
    """Connect so that waiting for any lock is an error."""
    with engine.connect() as connection:
        connection.execute(text(PATIENCE[connection.dialect.name]))
        connection.commit()
        yield connection


def wait_until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not look():
        assert time.monotonic() < deadline


# What is given a position, and which.


def test_rows_get_dense_positions_in_the_order_of_their_ids(database: Database, url: str) -> None:
    rows.commit(url, "/a", "/b")
    assert step(database) == Step(2, 0, 2)
    rows.commit(url, "/c")
    assert step(database) == Step(1, 0, 3)
    assert database.read(rows.paths) == ["/a", "/b", "/c"]
    assert database.read(rows.positions) == [1, 2, 3]
    assert database.read(rows.last_position) == 3
    assert database.read(rows.waiting) == 0


def test_an_empty_outbox_is_a_step_that_writes_nothing(database: Database) -> None:
    seen = statements.watch(database.engine)
    assert step(database) == Step(0, 0, 0)
    assert not [one for one in seen if one.startswith(("UPDATE", "INSERT", "DELETE", "NOTIFY"))]


def test_a_step_takes_the_lowest_ids_first_and_no_more_than_it_may(
    database: Database, url: str
) -> None:
    rows.commit(url, *rows.numbered(5))
    assert step(database, 2) == Step(2, 0, 2)
    assert database.read(rows.paths) == rows.numbered(2)
    assert database.read(rows.waiting) == 3


def test_a_step_goes_by_ids_not_by_when_rows_were_written(database: Database, url: str) -> None:
    for number in (3_000_000, 1_000_000, 2_000_000):
        rows.commit(url, f"/{number}", id=number)
    assert step(database) == Step(3, 0, 3)
    assert database.read(rows.paths) == ["/1000000", "/2000000", "/3000000"]


def test_everything_the_app_wrote_arrives_as_it_wrote_it(database: Database, url: str) -> None:
    """JSON stays the text it was: numbers beyond a double, spaces, the order and repetition."""
    meta = '{"z": 12345678901234567890.10, "a": [1,  2], "a": "\\u00e4\\u0000", "ä": "😀"}'
    written = {
        "user_id": "Ünï@example.org",
        "type": "rename",
        "file_id": "id with 'quotes' and \\ and %s",
        "fs": "my",
        "to_path": "/neu/ä😀 \u2028.txt",
        "is_folder": 1,
        "client_id": "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f",
        "actor_id": "somebody else",
        "event_key": "key \t1",
        "meta": meta,
        "created_at": "2026-01-02 03:04:05.678901",
    }
    rows.commit(url, "/alt/\t%00\\N\n.txt", **written)
    step(database)
    kept = database.read(
        lambda db: (
            db.execute(
                select(
                    *(column for column in journal.c if column.name != "meta"),
                    sqlalchemy.cast(journal.c.meta, sqlalchemy.Text).label("meta"),
                )
            )
            .mappings()
            .one()
        )
    )
    created_at = kept["created_at"].isoformat(" ")
    assert created_at == "2026-01-02 03:04:05.678901+00:00"
    expected = written | {"from_path": "/alt/\t%00\\N\n.txt", "created_at": kept["created_at"]}
    assert {name: kept[name] for name in expected} == expected
    assert kept["rejected"] is None
    assert 0 <= kept["tag"] < 2**32


def test_rows_are_recorded_at_the_databases_time_not_the_apps(database: Database, url: str) -> None:
    rows.commit(url, "/a", created_at="2001-01-01 00:00:00")
    before = database.read(_now)
    step(database)
    after = database.read(_now)
    recorded = database.read(lambda db: db.scalar(select(journal.c.recorded_at)))
    assert recorded is not None
    assert before <= recorded <= after


def _now(connection: Connection) -> datetime:
    now = connection.scalar(select(utc_now()))
    assert isinstance(now, datetime)
    return now


def test_tags_differ(database: Database, url: str) -> None:
    rows.commit(url, *rows.numbered(20))
    step(database)
    tags = database.read(lambda db: set(db.scalars(select(journal.c.tag))))
    assert len(tags) > 15


# Interleavings.


def test_a_lower_id_that_appears_late_is_still_moved(database: Database, url: str) -> None:
    """On SQLite too, where only explicit ids can make one."""
    rows.commit(url, "/first", id=2_000_000)
    step(database)
    rows.commit(url, "/late", id=1_000_000)
    rows.commit(url, "/last", id=3_000_000)
    step(database)
    assert database.read(rows.paths) == ["/first", "/late", "/last"]
    assert database.read(rows.positions) == [1, 2, 3]


@SERVERS
def test_a_late_commit_with_a_lower_id_is_still_moved(database: Database, app: Engine) -> None:
    """SQLite cannot overlap two writing transactions: see the test with explicit ids."""
    with app.connect() as early, app.connect() as late:
        rows.insert(early, "/lower")
        rows.insert(late, "/higher")
        late.commit()
        step(database)
        assert database.read(rows.paths) == ["/higher"]
        early.commit()
    step(database)
    assert database.read(rows.paths) == ["/higher", "/lower"]


@SERVERS
def test_a_reader_by_id_loses_what_commits_late(database: Database, app: Engine) -> None:
    """Why there is a mover: the same interleaving, read by `id > cursor`."""
    seen: list[str] = []
    cursor = 0

    def naive_read() -> None:
        nonlocal cursor
        query = select(outbox.c.id, outbox.c.from_path).where(outbox.c.id > cursor)
        for row in database.read(lambda db: db.execute(query.order_by(outbox.c.id)).all()):
            seen.append(row.from_path)
            cursor = row.id

    with app.connect() as early, app.connect() as late:
        rows.insert(early, "/lower")
        rows.insert(late, "/higher")
        late.commit()
        naive_read()
        early.commit()
        naive_read()
    assert seen == ["/higher"]


def test_a_pick_beyond_a_hint_would_put_a_late_row_behind_its_own_delete(
    database: Database, url: str
) -> None:
    """Why each pick begins at the lowest id there is."""
    rows.commit(url, "/other", id=10)
    step(database)
    rows.commit(url, "/f", id=5)
    rows.commit(url, "/f", id=11, type="delete")
    naive = select(outbox.c.type).where(outbox.c.id > 10).order_by(outbox.c.id)
    assert database.read(lambda db: list(db.scalars(naive))) == ["delete"]
    step(database)
    kinds = select(journal.c.type).where(journal.c.from_path == "/f").order_by(journal.c.position)
    assert database.read(lambda db: list(db.scalars(kinds))) == ["create", "delete"]


def test_a_rollback_leaves_a_gap_in_ids_and_none_in_positions(
    database: Database, url: str, app: Engine
) -> None:
    rows.commit(url, "/a")
    with app.connect() as connection:
        rows.insert(connection, "/never", "/neither")
        connection.rollback()
    rows.commit(url, "/b")
    step(database)
    assert database.read(rows.paths) == ["/a", "/b"]
    assert database.read(rows.positions) == [1, 2]


@SERVERS
def test_a_transaction_open_for_long_delays_nobody_but_itself(
    database: Database, url: str, app: Engine
) -> None:
    """SQLite lets nobody else write meanwhile, the app's own other transactions least of all."""
    with app.connect() as long:
        rows.insert(long, "/long-1", "/long-2")
        for number in range(5):
            rows.commit(url, f"/quick-{number}")
            assert step(database) == Step(1, 0, number + 1)
        rows.insert(long, "/long-3")
        long.commit()
    step(database)
    quick = [f"/quick-{number}" for number in range(5)]
    assert database.read(rows.paths) == [*quick, "/long-1", "/long-2", "/long-3"]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_transaction_open_on_sqlite_makes_the_mover_leave_and_come_back(
    url: str, app: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "SQLITE_WAIT_SECONDS", 0.01)
    database = Database(url)
    mover = Mover(database)
    with app.connect() as long:
        rows.insert(long, "/long")
        assert mover.step() is None
        long.commit()
    assert mover.step() == Step(1, 0, 1)
    database.close()


def test_rows_of_one_transaction_stay_together_in_order(database: Database, app: Engine) -> None:
    with app.begin() as connection:
        rows.insert(connection, "/x", type="delete")
        rows.insert(connection, "/y", type="rename", to_path="/x")
        rows.insert(connection, "/x", type="modify")
    step(database, 2)
    step(database)
    kinds = select(journal.c.type).order_by(journal.c.position)
    assert database.read(lambda db: list(db.scalars(kinds))) == ["delete", "rename", "modify"]


# Two movers.


@SERVERS
def test_the_second_mover_leaves_at_once(database: Database, url: str) -> None:
    rows.commit(url, "/a", "/b")
    with impatient(database.engine) as first:
        assert sequencer.move(first, 1) == Step(1, 0, 1)
        assert step(database) is None
        first.commit()
    assert step(database) == Step(1, 0, 2)
    assert database.read(rows.paths) == ["/a", "/b"]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_the_second_mover_on_sqlite_leaves_when_the_file_stays_locked(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no SKIP LOCKED: it waits a moment for the write lock, then leaves likewise."""
    monkeypatch.setattr(databases, "SQLITE_WAIT_SECONDS", 0.01)
    rows.commit(url, "/a", "/b")
    second = Database(url)
    first = databases.create_engine(url)
    with first.connect() as connection:
        connection.execution_options(sqlite_write=True)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        assert sequencer.move(connection, 1) == Step(1, 0, 1)
        assert Mover(second).step() is None
        connection.commit()
    assert Mover(second).step() == Step(1, 0, 2)
    assert second.read(rows.paths) == ["/a", "/b"]
    second.close()
    first.dispose()


@POSTGRESQL
def test_lock_and_pick_in_one_statement_would_pick_from_the_past(
    database: Database, url: str, app: Engine
) -> None:
    """The waiter in one statement sees rows that are moved already; in two statements, none.

    On MariaDB every locking read sees the present, and SQLite has no rows to lock.
    """
    lock = "SELECT id FROM file_event_state FOR UPDATE"
    pick = "SELECT id FROM file_event_outbox ORDER BY id"
    both = (
        "SELECT o.id FROM file_event_state s CROSS JOIN file_event_outbox o "
        "ORDER BY o.id FOR UPDATE OF s"
    )

    def picked(*queries: str) -> list[int]:
        rows.commit(url, "/a", "/b")
        with database.engine.connect() as first, app.connect() as second:
            sequencer.move(first, 500)
            with ThreadPoolExecutor(1) as pool:
                found = pool.submit(lambda: [list(second.scalars(text(q))) for q in queries][-1])
                wait_until(lambda: database.read(_somebody_waits))
                first.commit()
                return found.result(DEADLINE_SECONDS)

    assert len(picked(both)) == 2
    assert picked(lock, pick) == []


def _somebody_waits(connection: Connection) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return bool(connection.scalar(text(f"{query} AND datname = current_database()")))


def test_movers_that_race_move_every_row_once(url: str, app: Engine) -> None:
    """Three at a full outbox, while an app goes on writing, some of it in vain."""
    backlog, more = 2_000, 200
    with app.begin() as connection:
        connection.execute(
            sqlalchemy.insert(outbox),
            [
                {"user_id": "42", "type": "create", "file_id": path, "from_path": path}
                for path in rows.numbered(backlog)
            ],
        )
    barrier = threading.Barrier(4)
    written = threading.Event()

    def write() -> None:
        barrier.wait()
        try:
            for number in range(0, more, 5):
                with app.connect() as connection:
                    rows.insert(connection, *rows.numbered(5, backlog + number + 1))
                    connection.commit()
                    rows.insert(connection, "/never")
                    connection.rollback()
        finally:
            written.set()

    def work() -> int:
        database = Database(url)
        mover, total = Mover(database), 0
        barrier.wait()
        while True:
            last_round = written.is_set()
            done = mover.step()
            total += done.moved if done else 0
            if last_round and done is not None and not done.moved:
                break
        database.close()
        gevent.get_hub().destroy(destroy_loop=True)
        return total

    with ThreadPoolExecutor(4) as pool:
        writer = pool.submit(write)
        movers = [pool.submit(work) for _ in range(3)]
        writer.result()
        assert sum(mover.result() for mover in movers) == backlog + more
    with app.connect() as connection:
        assert rows.positions(connection) == list(range(1, backlog + more + 1))
        assert rows.paths(connection) == rows.numbered(backlog + more)
        assert rows.waiting(connection) == 0


# A step that does not come to its end.


class Fault(Exception):
    """Planted."""


class Planted:
    """Does harm before the statement whose turn it is."""

    def __init__(self, database: Database, harm: Callable[[], None]) -> None:
        self._harm = harm
        self._left: int | None = None
        statements.before_each(database.engine, self._tell)
        database.read(rows.waiting)

    def _tell(self, statement: str) -> None:
        del statement
        if self._left == 0:
            self._harm()
        if self._left is not None:
            self._left -= 1

    @contextlib.contextmanager
    def before(self, number: int) -> Iterator[None]:
        """Do harm before statement `number`, counted from 0."""
        self._left = number
        try:
            yield
        finally:
            self._left = None


def fail_at_each_statement(
    database: Database, app: Engine, harm: Callable[[], None], *failures: type[Exception]
) -> int:
    """Step over five rows until a step comes through; return how many did not."""
    planted = Planted(database, harm)
    with app.begin() as connection:
        rows.insert(connection, "/1", event_key="a")
        rows.insert(connection, "/2", "/3", "/4", "/5")
    for failed in range(50):
        try:
            with planted.before(failed):
                assert step(database) == Step(5, 0, 5)
        except failures:
            with app.begin() as connection:
                rows.wait_for_state(connection)
                assert rows.waiting(connection) == 5
                assert rows.paths(connection) == []
                assert rows.last_position(connection) == 0
        else:
            assert database.read(rows.paths) == ["/1", "/2", "/3", "/4", "/5"]
            assert database.read(rows.positions) == [1, 2, 3, 4, 5]
            assert database.read(rows.waiting) == 0
            return failed
    raise AssertionError


def test_a_failure_between_any_two_statements_undoes_the_whole_step(
    database: Database, app: Engine
) -> None:
    def fail() -> None:
        raise Fault

    # Lock, pick, known keys, append, delete, advance, commit.
    assert fail_at_each_statement(database, app, fail, Fault) >= 7


@SERVERS
def test_a_connection_cut_between_any_two_statements_undoes_the_whole_step(
    database: Database, app: Engine
) -> None:
    """And the next step takes another connection by itself. SQLite has no connection to cut."""
    cut = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mysql": "SELECT id FROM information_schema.processlist "
        "WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    }

    def fail() -> None:
        with app.connect() as connection:
            found = connection.scalars(text(cut[connection.dialect.name])).all()
            if connection.dialect.name == "mysql":
                for number in found:
                    connection.execute(text(f"KILL {number}"))

    failed = fail_at_each_statement(database, app, fail, exc.DBAPIError, psycopg.Error)
    assert failed >= 7


def test_a_mover_killed_between_any_two_statements_leaves_everything_to_the_next(
    database: Database, url: str
) -> None:
    """SIGKILL, at each place in turn: the rows are where they were, and nothing has a position."""
    rows.commit(url, *rows.numbered(5))
    killed = subprocess.run(
        [sys.executable, "-m", "tests.killed_mover", url],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == 0, killed.stderr
    places = killed.stdout.splitlines()
    # Lock, pick, append, delete, advance, commit.
    assert len(places) >= 6, places
    assert [place[:4] for place in places] == ["5 0 "] * len(places)
    assert step(database) == Step(5, 0, 5)
    assert database.read(rows.paths) == rows.numbered(5)


def test_a_count_that_does_not_fit_moves_nothing(database: Database, url: str) -> None:
    """Somebody deletes an outbox row between the pick and the delete."""
    interfere(database, "DELETE", "DELETE FROM file_event_outbox")
    rows.commit(url, "/a", "/b")
    with pytest.raises(errors.MoveMismatch, match="picked 2 outbox rows, appended 2, deleted 0"):
        Mover(database).step()
    assert database.read(rows.waiting) == 2
    assert database.read(rows.paths) == []


def test_a_state_row_that_changes_under_the_lock_moves_nothing(
    database: Database, url: str
) -> None:
    interfere(
        database,
        "UPDATE file_event_state SET last",
        "UPDATE file_event_state SET last_position = 7",
    )
    rows.commit(url, "/a", "/b")
    with pytest.raises(errors.MoveMismatch, match="left position 0"):
        Mover(database).step()
    assert database.read(rows.waiting) == 2
    assert database.read(rows.last_position) == 0


def interfere(database: Database, before: str, harm: str) -> None:
    """Run `harm` in the mover's own transaction before the statement that begins with `before`."""

    def execute(cursor: Any, statement: str, *rest: Any) -> None:
        del rest
        if " ".join(statement.split()).startswith(before):
            cursor.execute(harm)

    sqlalchemy.event.listen(database.engine, "do_execute", execute)


# An app must not feel the mover, nor the mover an app.


@SERVERS
def test_an_app_in_repeatable_read_and_the_mover_never_wait_for_each_other(
    database: Database, url: str
) -> None:
    """SQLite knows no isolation levels; there the app's INSERT waits for the file's lock, briefly.

    The open rows lie before, among and behind those that are moved. Each side waits one second at
    most, and then the test fails.
    """
    app = rows.app(url, "REPEATABLE READ")
    with impatient(app) as open_before, impatient(app) as mid_step:
        assert open_before.get_isolation_level() == "REPEATABLE READ"
        rows.insert(open_before, "/open-1")
        rows.commit(url, *rows.numbered(2))
        rows.insert(open_before, "/open-2")
        rows.commit(url, *rows.numbered(2, start=3))
        rows.insert(open_before, "/open-3")
        with impatient(database.engine) as mover:
            assert sequencer.move(mover, 500) == Step(4, 0, 4)
            rows.insert(open_before, "/open-4")
            rows.insert(mid_step, "/mid-step")
            mid_step.commit()
            mover.commit()
        assert step(database) == Step(1, 0, 5)
        open_before.commit()
    assert step(database) == Step(4, 0, 9)
    late = ["/mid-step", "/open-1", "/open-2", "/open-3", "/open-4"]
    assert database.read(rows.paths) == [*rows.numbered(4), *late]


@MARIADB
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_mover_that_picked_with_locks_would_stop_the_app(
    url: str, isolation: IsolationLevel
) -> None:
    """Why the pick is plain and READ COMMITTED: with locks it waits for the app, or the app for it.

    Under READ COMMITTED it waits for the row that the app has not committed; under REPEATABLE READ
    the app's next INSERT waits for it besides.
    """
    rows.commit(url, "/a")
    naive = select(outbox.c.id).order_by(outbox.c.id).limit(500).with_for_update()
    with impatient(rows.app(url, isolation)) as mover, impatient(rows.app(url)) as app:
        if isolation == "REPEATABLE READ":
            mover.execute(naive)
            with pytest.raises(exc.OperationalError, match="Lock wait timeout"):
                rows.insert(app, "/b")
        else:
            rows.insert(app, "/b")
            with pytest.raises(exc.OperationalError, match="Lock wait timeout"):
                mover.execute(naive)


@MARIADB
def test_a_delete_by_a_list_of_keys_would_wait_for_the_app(url: str) -> None:
    """Why the keys are joined: a small table is read from end to end, open rows and all.

    Older planners choose to, newer ones use the key; the hint makes all of them do it.
    """
    rows.commit(url, *rows.numbered(5))
    with impatient(rows.app(url)) as app, impatient(rows.app(url, "READ COMMITTED")) as mover:
        ids = list(mover.scalars(select(outbox.c.id)))
        rows.insert(app, "/open")
        listed = ", ".join(map(str, ids))
        scan = f"DELETE o FROM {outbox.name} o IGNORE INDEX (PRIMARY) WHERE o.id IN ({listed})"
        with pytest.raises(exc.OperationalError, match="Lock wait timeout"):
            mover.exec_driver_sql(scan)


# Batches.


def test_steps_grow_while_they_are_full_and_fall_back_when_one_is_not(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer, "BATCH_ROWS", 2)
    monkeypatch.setattr(sequencer, "BACKLOG_BATCH_ROWS", 6)
    rows.commit(url, *rows.numbered(20))
    mover = Mover(database)
    sizes = [mover.batch_rows]
    while (done := mover.step()) is not None and done.moved:
        sizes.append(mover.batch_rows)
    assert sizes == [2, 4, 6, 6, 6, 2]
    assert database.read(rows.paths) == rows.numbered(20)


def test_lists_of_keys_are_cut_into_parts(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer, "KEYS_PER_STATEMENT", 3)
    with rows.app(url).begin() as connection:
        for number in range(10):
            rows.insert(connection, f"/{number}", event_key=f"{number % 7}")
    assert step(database) == Step(10, 3, 10)
    assert database.read(rows.waiting) == 0


# The hint.


@POSTGRESQL
def test_a_step_notifies_once_when_it_commits_and_without_a_payload(
    database: Database, url: str
) -> None:
    address = sqlalchemy.make_url(url).set(drivername="postgresql")
    with psycopg.connect(
        address.render_as_string(hide_password=False), autocommit=True
    ) as listening:
        listening.execute(f"LISTEN {sequencer.CHANNEL}")
        rows.commit(url, "/a", "/b")
        with database.engine.connect() as mover:
            sequencer.move(mover, 500)
            mover.rollback()
        step(database)
        step(database)
        heard = list(listening.notifies(timeout=DEADLINE_SECONDS, stop_after=1))
        heard += list(listening.notifies(timeout=0))
    assert [(notice.channel, notice.payload) for notice in heard] == [(sequencer.CHANNEL, "")]


def test_nothing_moves_while_the_state_row_is_gone(database: Database, url: str) -> None:
    """A database restored in part: the journal's reader says what is wrong, the mover stands."""
    rows.commit(url, "/a")
    with rows.app(url).begin() as connection:
        kept = connection.execute(select(state)).mappings().one()
        connection.execute(sqlalchemy.delete(state))
    try:
        assert step(database) is None
        assert database.read(rows.waiting) == 1
    finally:
        with rows.app(url).begin() as connection:
            connection.execute(sqlalchemy.insert(state).values(**kept))

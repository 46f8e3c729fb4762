"""Short transactions that behave alike on every engine, and the databases that are refused."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Connection, NullPool, event, exc, make_url, select, text, update

from events_app import database as databases
from events_app import errors, failures, fitness, logs, schema
from events_app.database import Database
from events_app.schema import state
from tests import reused, rows
from tests.databases import migrated, server_address

SERVERS = pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)

url = reused.on_each_engine


# Transactions.


def test_a_write_is_committed_when_its_work_returns(database: Database) -> None:
    assert database.write(lambda db: rows.insert(db, "/a") or 7) == 7  # type: ignore[func-returns-value] # for its value
    assert database.read(rows.waiting) == 1


@pytest.mark.parametrize("error", [ValueError, errors.MoveMismatch, KeyboardInterrupt])
def test_a_write_that_raises_is_undone_and_raises_to_the_caller(
    database: Database, error: type[BaseException]
) -> None:
    def work(connection: Connection) -> None:
        rows.insert(connection, "/a")
        raise error

    with pytest.raises(error):
        database.write(work)
    assert database.read(rows.waiting) == 0


@SERVERS
def test_transactions_are_read_committed(database: Database, url: str) -> None:
    """Each statement sees what was committed before it. A SQLite transaction sees one moment."""

    def look_twice(connection: Connection) -> tuple[int, int]:
        before = rows.waiting(connection)
        rows.commit(url, "/a")
        return before, rows.waiting(connection)

    assert database.read(look_twice) == (0, 1)
    assert database.read(lambda db: db.get_isolation_level()) == "READ COMMITTED"


@SERVERS
def test_a_session_that_is_ended_behind_a_transaction_is_one_line_and_no_traceback(
    database: Database, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the pool notices: the next transaction has more to say."""
    caplog.handler.addFilter(logs.Calm())
    kill, own = (
        ("SELECT pg_terminate_backend({})", "pg_backend_pid()")
        if database.is_postgresql
        else ("KILL {}", "CONNECTION_ID()")
    )
    number = database.read(lambda db: db.scalar(text(f"SELECT {own}")))
    killing = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def end(*_: object) -> None:
        with killing.connect() as connection:
            connection.execute(text(kill.format(number)))

    event.listen(database.engine, "reset", end)
    assert database.read(lambda db: db.scalar(text(f"SELECT {own}"))) == number
    event.remove(database.engine, "reset", end)
    with contextlib.suppress(exc.DBAPIError):
        database.read(rows.waiting)
    assert database.read(rows.waiting) == 0
    assert all(record.levelname == "INFO" and not record.exc_info for record in caplog.records)


@SERVERS
def test_no_connection_is_kept_between_two_calls(database: Database) -> None:
    def calls() -> None:
        database.read(rows.waiting)

    greenlets = [gevent.spawn(calls) for _ in range(20)]
    gevent.joinall(greenlets, raise_error=True)
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined] # a QueuePool can


def test_json_is_written_as_the_text_it_is(database: Database) -> None:
    document = '{"b": 1.10, "a": [ ]}'
    database.write(lambda db: rows.insert(db, "/a", meta=document))
    query = select(sqlalchemy.cast(schema.outbox.c.meta, sqlalchemy.Text))
    assert database.read(lambda db: db.scalar(query)) == document


# SQLite and its thread.


@SQLITE
def test_sqlite_runs_everything_in_one_other_thread(database: Database) -> None:
    threads = {database.read(lambda _: threading.get_ident()) for _ in range(3)}
    threads.add(database.write(lambda _: threading.get_ident()))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


@SQLITE
def test_a_wait_for_sqlites_lock_does_not_stop_the_event_loop(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "SQLITE_WAIT_SECONDS", 0.2)
    database = Database(url)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            gevent.sleep(0.001)

    ticking = gevent.spawn(tick)
    with rows.app(url).connect() as app:
        rows.insert(app, "/a")
        with pytest.raises(exc.OperationalError, match="locked") as caught:
            database.write(rows.waiting)
        app.rollback()
    ticking.kill()
    assert failures.is_locked(caught.value)
    assert ticks > 10
    database.close()


@SQLITE
def test_reading_sqlite_goes_on_while_an_app_writes(database: Database, url: str) -> None:
    """Write-ahead logging: readers never wait."""
    rows.commit(url, "/a")
    with rows.app(url).connect() as app:
        rows.insert(app, "/b")
        assert database.read(rows.waiting) == 1
        app.rollback()


@SQLITE
def test_a_write_on_sqlite_takes_the_lock_at_its_beginning(database: Database, url: str) -> None:
    """One that reads first and asks for the lock later may be told that it read the past."""
    app = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args={"timeout": 0})

    def work(connection: Connection) -> None:
        rows.waiting(connection)
        with app.connect() as other, pytest.raises(exc.OperationalError, match="locked"):
            rows.insert(other, "/a")

    database.write(work)


def replace_file(url: str, other: str) -> None:
    """Give the name of the file at `url` to the one at `other`, as after a restore."""
    file, new = (Path(str(make_url(each).database)) for each in (url, other))
    for name in (f"{file}-wal", f"{file}-shm"):
        Path(name).unlink(missing_ok=True)
    new.rename(file)


def test_a_sqlite_file_that_was_replaced_is_opened_at_once(sqlite_url: str, tmp_path: Path) -> None:
    """The old one lives on without a name, and the app writes into the new one."""
    database = Database(sqlite_url)
    database.write(lambda db: rows.insert(db, "/old"))
    with migrated("sqlite", tmp_path) as other:
        rows.commit(other, "/new 1", "/new 2")
        replace_file(sqlite_url, other)
    assert database.read(rows.waiting) == 2
    database.write(lambda db: rows.insert(db, "/new 3"))
    database.close()
    with rows.app(sqlite_url).connect() as connection:
        assert rows.waiting(connection) == 3


def test_a_sqlite_file_that_is_gone_is_waited_for_and_not_made_anew(
    sqlite_url: str, tmp_path: Path
) -> None:
    """An empty file would be in the way of the one that is to come."""
    database = Database(sqlite_url)
    database.write(lambda db: rows.insert(db, "/a"))
    file = Path(str(make_url(sqlite_url).database))
    file.rename(tmp_path / "away")
    with pytest.raises(exc.OperationalError, match="is gone") as raised:
        database.read(rows.waiting)
    assert failures.is_away(raised.value)
    assert not file.exists()
    (tmp_path / "away").rename(file)
    assert database.read(rows.waiting) == 1
    database.close()


def test_the_folder_of_a_sqlite_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "events.db"
    databases.create_sqlite_folder(f"sqlite:///{path}")
    assert path.parent.is_dir()
    assert not path.exists()
    databases.create_sqlite_folder("sqlite://")
    databases.create_sqlite_folder("postgresql+psycopg://u@h/d")


# Whoever freezes.


@SERVERS
def test_a_worker_that_freezes_in_a_step_frees_the_state_row(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP, a stalled virtual machine: the server ends its transaction after some seconds.

    SQLite has no server to do that: a frozen process holds the file until it goes on.
    """
    monkeypatch.setattr(databases, "IDLE_IN_TRANSACTION_SECONDS", 1)
    limit = "SET LOCAL idle_in_transaction_session_timeout = '1s'"
    monkeypatch.setitem(databases._LIMITS, "postgresql", limit)
    frozen, other = Database(url), rows.app(url)
    freed: list[float] = []

    def freeze(connection: Connection) -> None:
        connection.execute(update(state).values(last_position=99))
        with other.begin() as waiting:
            began = time.monotonic()
            rows.wait_for_state(waiting)
            freed.append(time.monotonic() - began)
            assert rows.last_position(waiting) == 0
        connection.execute(select(state))

    with pytest.raises(exc.DBAPIError):
        frozen.write(freeze)
    assert freed, "the other one gave up, which is an error of the database too"
    assert freed[0] < 5
    assert frozen.read(rows.last_position) == 0
    frozen.close()


@pytest.mark.parametrize("engine", ["mariadb"], indirect=True)
def test_on_mysql_the_limit_is_that_of_idle_connections(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL has no other; planted over MariaDB. In the pool a connection may be idle for longer."""

    def limit(connection: Connection) -> object:
        return connection.scalar(sqlalchemy.text("SELECT @@wait_timeout"))

    def fail(connection: Connection) -> None:
        assert limit(connection) == databases.IDLE_IN_TRANSACTION_SECONDS
        connection.exec_driver_sql("SELECT nonsense")

    assert database.read(limit) == databases.MYSQL_WAIT_SECONDS
    monkeypatch.setattr(database.engine.dialect, "is_mariadb", False)
    assert database.write(limit) == databases.IDLE_IN_TRANSACTION_SECONDS
    assert database.read(limit) == databases.MYSQL_WAIT_SECONDS
    with pytest.raises(exc.OperationalError, match="nonsense"):
        database.write(fail)
    assert database.read(limit) == databases.MYSQL_WAIT_SECONDS


@SERVERS
def test_a_statement_that_does_not_end_is_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = "SET LOCAL statement_timeout = '0.2s'"
    monkeypatch.setitem(databases._LIMITS, "postgresql", limit)
    endless = {
        "postgresql": "SELECT pg_sleep(30)",
        "mysql": "SELECT max(a.seq + b.seq) FROM seq_1_to_1000000 a JOIN seq_1_to_1000000 b",
    }
    made = Database(url)
    made.engine = databases.create_engine(url, timeout_seconds=1)
    statement = endless[made.engine.dialect.name]
    with pytest.raises(exc.DBAPIError, match=r"statement timeout|max_statement_time") as caught:
        made.write(lambda db: db.exec_driver_sql(statement).all())
    assert not failures.is_bad_value(caught.value)
    made.close()


# What is refused.


def test_the_databases_of_the_tests_are_not_refused(database: Database, engine: str) -> None:
    database.read(fitness.refuse_unsupported)
    product, version = database.read(fitness.product_and_version)
    assert product.lower() == engine
    assert version >= fitness.OLDEST.get(product, (3,))


@pytest.mark.parametrize(
    ("engine", "version", "refused"),
    [
        ("postgresql", (12, 20), "PostgreSQL 12.20 is too old.*use PostgreSQL 13 or newer"),
        ("postgresql", (13, 0), ""),
        ("mariadb", (10, 5, 22), "MariaDB 10.5.22 is too old.*use MariaDB 10.6 or newer"),
        ("mariadb", (10, 6, 0), ""),
    ],
    indirect=["engine"],
)
def test_an_old_server_is_refused_with_what_to_use(
    database: Database, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], refused: str
) -> None:
    """The version is planted: the tests have no such server."""
    database.read(fitness.product_and_version)
    monkeypatch.setattr(database.engine.dialect, "server_version_info", version)
    if not refused:
        database.read(fitness.refuse_unsupported)
        return
    with pytest.raises(errors.UnsupportedDatabase, match=refused):
        database.read(fitness.refuse_unsupported)


@pytest.mark.parametrize("engine", ["mariadb"], indirect=True)
def test_mysql_has_an_oldest_version_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted likewise, over MariaDB."""
    database.read(fitness.product_and_version)
    monkeypatch.setattr(database.engine.dialect, "is_mariadb", False)
    monkeypatch.setattr(database.engine.dialect, "server_version_info", (8, 0, 16))
    with pytest.raises(
        errors.UnsupportedDatabase, match=r"MySQL 8\.0\.16 is .* MySQL 8\.0\.17 or newer"
    ):
        database.read(fitness.refuse_unsupported)


@SERVERS
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_another_isolation_level_is_refused(url: str, level: Any) -> None:
    with (
        rows.app(url, level).connect() as connection,
        pytest.raises(errors.UnsupportedDatabase, match=level),
    ):
        fitness.refuse_unsupported(connection)


@contextlib.contextmanager
def database_in_latin1() -> Iterator[str]:
    address = server_address("postgresql")
    assert address is not None
    name = f"test_{secrets.token_hex(4)}"
    plain = make_url(address).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as administrator:
        administrator.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' "
            "LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        try:
            yield make_url(address).set(database=name).render_as_string(hide_password=False)
        finally:
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


@POSTGRESQL
def test_a_database_that_cannot_hold_every_name_is_refused(engine: str) -> None:
    del engine
    with database_in_latin1() as at:
        narrow = Database(at)
        with pytest.raises(errors.UnsupportedDatabase, match="LATIN1, not UTF8"):
            narrow.read(fitness.refuse_unsupported)
        narrow.close()


# Whose fault an error is.


def error_of(database: Database, statement: str) -> Exception:
    with pytest.raises(exc.DBAPIError) as caught:
        database.write(lambda db: db.exec_driver_sql(statement))
    return caught.value


INSERT = "INSERT INTO file_event_outbox (user_id, type, file_id, from_path, is_folder) VALUES "


def test_an_error_of_values_is_told_from_trouble(database: Database) -> None:
    bad = [
        INSERT + "('42', 'move', 'f', '/a', 0)",  # a CHECK
        INSERT + "('42', 'create', 'f', NULL, 0)",  # NOT NULL
        INSERT.replace("(user_id", "(id, user_id") + "(1, '42', 'create', 'f', '/a', 0), "
        "(1, '42', 'create', 'f', '/a', 0)",  # a key twice
    ]
    if not database.is_sqlite:
        bad += [
            INSERT + f"('{'u' * 65}', 'create', 'f', '/a', 0)",  # too long
            INSERT + "('42', 'create', 'f', '/a', 99999)",  # too large
            INSERT.replace("is_folder", "meta") + "('42', 'create', 'f', '/a', '{')",  # no JSON
            INSERT.replace("is_folder", "created_at") + "('42', 'create', 'f', '/a', 'never')",
        ]
    for statement in bad:
        assert failures.is_bad_value(error_of(database, statement)), statement
    trouble = ["SELECT * FROM nowhere", "SELECT nothing FROM file_event_state", "SELEKT"]
    for statement in trouble:
        assert not failures.is_bad_value(error_of(database, statement)), statement
    assert not failures.is_bad_value(exc.TimeoutError("no connection is free"))
    assert not failures.is_bad_value(OSError())


def test_only_sqlites_lock_is_a_lock(database: Database) -> None:
    assert not failures.is_locked(error_of(database, "SELEKT"))
    assert not failures.is_locked(ValueError())


# The schema.


def test_the_schema_of_this_program_is_accepted(database: Database) -> None:
    assert database.read(fitness.check_schema) == schema.REVISION


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, r"the tables are missing; run: .*alembic upgrade head"),
        ("0000", r"of version 0000, this program needs \d{4}; run: .*alembic upgrade head"),
        ("9999", ""),
    ],
)
def test_an_old_schema_is_refused_and_a_newer_one_is_not(
    database: Database, version: str | None, message: str
) -> None:
    """Migrations only add, so that the program of yesterday runs on the schema of tomorrow."""

    def check(connection: Connection) -> str:
        versions = sqlalchemy.table(schema.VERSION_TABLE, sqlalchemy.column("version_num"))
        connection.execute(sqlalchemy.delete(versions))
        if version:
            connection.execute(sqlalchemy.insert(versions).values(version_num=version))
        try:
            return fitness.check_schema(connection)
        finally:
            connection.rollback()

    if not message:
        assert _undone(database, check) == version
        return
    with pytest.raises(errors.SchemaError, match=message):
        _undone(database, check)


def _undone(database: Database, work: Any) -> Any:
    """Run `work`, which rolls back itself."""
    with database.engine.connect() as connection:
        return work(connection)


def test_a_database_without_our_tables_is_refused(empty_url: str) -> None:
    made = Database(empty_url)
    with pytest.raises(errors.SchemaError, match=r"missing; run: .*alembic upgrade head"):
        made.read(fitness.check_schema)
    made.close()

"""Engines, and the one way to run a short transaction.

Theory of operation
    `Database.read` and `Database.write` take a function of a connection and run it in one short
    READ COMMITTED transaction. psycopg and PyMySQL cooperate with gevent, so on the servers it
    runs in the calling greenlet. sqlite3 does not: every call, and its wait for a lock above all,
    would stop the event loop. So one native thread per process owns the SQLite connection and
    runs everything, one transaction after the other.

Rules
    The function must not wait for anything but its connection, nor touch gevent. A connection is
    never kept between two calls. READ COMMITTED because under REPEATABLE READ on InnoDB a locking
    read of an open range makes the app's own INSERTs wait.
"""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg
import sqlalchemy
from gevent.threadpool import ThreadPool
from sqlalchemy import Connection, Engine, event, exc, inspect, make_url, text

from events_app import errors, schema

T = TypeVar("T")

# What a worker must be able to read and write by, whoever holds what. A worker that froze in the
# middle of a move (SIGSTOP, a stalled virtual machine) frees the state row after the second one.
STATEMENT_TIMEOUT_SECONDS = 30
IDLE_IN_TRANSACTION_SECONDS = 5
CONNECT_TIMEOUT_SECONDS = 5
# By how much the driver waits longer than the server works: the server's answer must win.
ANSWER_SECONDS = 5

# While the app writes, everything else of this process waits behind a step of ours: not for long,
# the next turn tries again.
SQLITE_WAIT_SECONDS = 1

POOL_SIZE = 5
POOL_OVERFLOW = 10
POOL_WAIT_SECONDS = 10
# How many streams are at the database at once. Below the pool's size: when thousands come back,
# the tailer, the ledger and the rest must not stand in line behind them.
STREAMS_AT_ONCE = 12
# Below MySQL's wait for an idle connection (set below), so that no dead connection is handed out.
POOL_RECYCLE_SECONDS = 50
MYSQL_WAIT_SECONDS = 60

# The oldest versions with SKIP LOCKED (MariaDB), with utf8mb4_0900_bin (MySQL, whose CHECKs are a
# version older), and that are still maintained or nearly so.
OLDEST = {"PostgreSQL": (13,), "MariaDB": (10, 6), "MySQL": (8, 0, 17)}

UPGRADE = "run: .venv/bin/alembic upgrade head"

_LIMITS = {
    "postgresql": (
        f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'; "
        f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_SECONDS}s'"
    ),
    "sqlite": "BEGIN IMMEDIATE",
}


def create_engine(url: str, timeout_seconds: int = STATEMENT_TIMEOUT_SECONDS) -> Engine:
    """Make an engine whose transactions behave alike on every database; connects to nothing.

    No statement takes longer than `timeout_seconds`, where that is said per connection.
    """
    parsed = make_url(url)
    family = parsed.get_backend_name()
    engine = sqlalchemy.create_engine(
        parsed,
        connect_args=_connect_arguments(family, dict(parsed.query), timeout_seconds),
        json_serializer=_verbatim,
        pool_recycle=POOL_RECYCLE_SECONDS,
        **_engine_arguments(family),
    )
    if family == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif family in {"mysql", "mariadb"}:
        event.listen(engine, "connect", partial(_prepare_mysql, timeout_seconds=timeout_seconds))
        event.listen(engine, "reset", _wait_long)
    return engine


def _verbatim(document: str) -> str:
    """JSON is written as the text it was read as (`columns.VerbatimJson`)."""
    return document


def _connect_arguments(family: str, query: dict[str, Any], timeout_seconds: int) -> dict[str, Any]:
    if family == "sqlite":
        return {"timeout": SQLITE_WAIT_SECONDS, "check_same_thread": False}
    if family == "postgresql":
        return {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "tcp_user_timeout": timeout_seconds * 1000,
            # While an answer is awaited nothing of ours is unacknowledged: that the server's
            # machine has vanished shows only if we ask, by default after two hours.
            "keepalives_idle": max(1, timeout_seconds // 2),
            "keepalives_interval": max(1, timeout_seconds // 6),
            "keepalives_count": 3,
        }
    timeouts = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "read_timeout": timeout_seconds + ANSWER_SECONDS,
        "write_timeout": timeout_seconds,
    }
    if any(name.startswith("ssl") for name in query):
        # Loading the certificates anew with every connect would block the loop for 30 ms.
        return timeouts | {"ssl": ssl.create_default_context(cafile=query.get("ssl_ca"))}
    return timeouts | {"ssl_disabled": True}


def _engine_arguments(family: str) -> dict[str, Any]:
    if family == "sqlite":
        return {"pool_size": 1, "max_overflow": 0, "poolclass": sqlalchemy.QueuePool}
    return {
        "isolation_level": "READ COMMITTED",
        "pool_size": POOL_SIZE,
        "max_overflow": POOL_OVERFLOW,
        "pool_timeout": POOL_WAIT_SECONDS,
    }


def _prepare_sqlite(connection: Any, record: object) -> None:
    del record
    connection.isolation_level = None  # transactions begin and end where we say
    connection.text_factory = _decode_anything
    connection.execute("PRAGMA journal_mode = WAL")


def _decode_anything(value: bytes) -> str:
    """Bad bytes of one row must not fail the reading of all: they become lone surrogates."""
    return value.decode(errors="surrogateescape")


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get("sqlite_write"):
        connection.exec_driver_sql("BEGIN")


def _prepare_mysql(connection: Any, record: object, *, timeout_seconds: int) -> None:
    del record
    is_mariadb = "mariadb" in connection.get_server_info().lower()
    limits = (
        f"idle_transaction_timeout = {IDLE_IN_TRANSACTION_SECONDS}, "
        f"max_statement_time = {timeout_seconds}"
        if is_mariadb
        else f"max_execution_time = {timeout_seconds * 1000}"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET SESSION {limits}, time_zone = '+00:00', wait_timeout = {MYSQL_WAIT_SECONDS}, "
            f"innodb_lock_wait_timeout = {IDLE_IN_TRANSACTION_SECONDS}"
        )


_WAITS_SHORTLY = "waits_shortly"


def _limit(connection: Connection) -> None:
    """Set the time limits of a transaction that writes."""
    if limits := _LIMITS.get(connection.dialect.name):
        connection.exec_driver_sql(limits)
    elif not getattr(connection.dialect, "is_mariadb", False):
        # MySQL knows no limit for idle transactions, only one for idle connections. Lowered until
        # the connection is back in the pool, it ends a frozen worker's transaction.
        connection.info[_WAITS_SHORTLY] = True
        connection.exec_driver_sql(f"SET SESSION wait_timeout = {IDLE_IN_TRANSACTION_SECONDS}")


def _wait_long(connection: Any, record: Any, reset_state: object) -> None:
    """Let a connection that goes back into the pool be idle there."""
    del reset_state
    if record.info.pop(_WAITS_SHORTLY, False):
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION wait_timeout = {MYSQL_WAIT_SECONDS}")


def create_sqlite_folder(url: str) -> None:
    """Make the folder of a new SQLite file, which sqlite3 itself would only call unopenable."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)


class Database:
    """The shared database as one process uses it. Made after the fork."""

    def __init__(self, url: str) -> None:
        """Prepare for `url`; connects with the first transaction."""
        self.engine = create_engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.is_postgresql = self.engine.dialect.name == "postgresql"
        self._thread = ThreadPool(1) if self.is_sqlite else None

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads, and return what it returns."""
        return self._run(work, write=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that may write, under time limits; commit when it returns."""
        return self._run(work, write=True)

    def _run(self, work: Callable[[Connection], T], *, write: bool) -> T:
        if self._thread is None:
            return self._transact(work, write=write)
        result, error = self._thread.apply(self._outcome, (work,), {"write": write})
        if error is not None:
            raise error
        return cast("T", result)

    def _outcome(
        self, work: Callable[[Connection], T], *, write: bool
    ) -> tuple[T | None, BaseException | None]:
        """Hand an error over as a value: gevent would print one that leaves its thread."""
        try:
            return self._transact(work, write=write), None
        except BaseException as error:  # noqa: BLE001 -- raised again by the caller
            return None, error

    def _transact(self, work: Callable[[Connection], T], *, write: bool) -> T:
        with self.engine.connect() as connection:
            connection.execution_options(sqlite_write=write and self.is_sqlite)
            with connection.begin():
                if write:
                    _limit(connection)
                return work(connection)

    def close(self) -> None:
        """Close every connection."""
        if self._thread is None:
            self.engine.dispose()
        else:
            self._thread.apply(self.engine.dispose)
            self._thread.kill()


def refuse_unsupported(connection: Connection) -> None:
    """Raise `UnsupportedDatabase` for an engine, version or isolation level we cannot work on."""
    product, version = product_and_version(connection)
    if product in OLDEST and version < OLDEST[product]:
        raise errors.UnsupportedDatabase(
            f"{product} {_dotted(version)} is too old: it lacks SKIP LOCKED, CHECK or a collation "
            f"as the mover needs them; use {product} {_dotted(OLDEST[product])} or newer"
        )
    if product == "SQLite":
        return
    isolation = connection.get_isolation_level()
    if isolation != "READ COMMITTED":
        raise errors.UnsupportedDatabase(
            f"transactions run in {isolation}, not READ COMMITTED: the app's INSERTs would wait"
        )
    if product == "PostgreSQL":
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise errors.UnsupportedDatabase(f"the database is encoded in {encoding}, not UTF8")


def product_and_version(connection: Connection) -> tuple[str, tuple[int, ...]]:
    """Name the database server and its version."""
    dialect = connection.dialect
    version = tuple(part for part in dialect.server_version_info or () if isinstance(part, int))
    if dialect.name in {"mysql", "mariadb"}:
        return ("MariaDB" if getattr(dialect, "is_mariadb", False) else "MySQL"), version
    return {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[dialect.name], version


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def refuse_unusable(connection: Connection) -> None:
    """Raise `DatabaseError` unless the sidecar can work here: engine, isolation, schema."""
    refuse_unsupported(connection)
    check_schema(connection)


def is_away(error: BaseException) -> bool:
    """Tell a database that does not answer from one that answers with a refusal."""
    if isinstance(error, exc.TimeoutError):
        return True  # of the pool
    refusal = isinstance(error, exc.ProgrammingError) or is_denied(error)
    return isinstance(error, exc.DBAPIError) and not refusal


# PyMySQL calls a missing right an operational error: to the server, a database, a table and so on.
_MYSQL_DENIED = frozenset({1044, 1045, 1142, 1143, 1227, 1370})


def is_denied(error: BaseException) -> bool:
    """Tell that the role lacks a right."""
    original = getattr(error, "orig", None)
    if isinstance(original, psycopg.errors.InsufficientPrivilege):
        return True
    return bool(original and original.args and original.args[0] in _MYSQL_DENIED)


def check_schema(connection: Connection) -> str:
    """Return the schema's version; raise `SchemaError` when it is missing or too old.

    Migrations are additive, so a newer schema than this code knows is fine.
    """
    if not inspect(connection).has_table(schema.VERSION_TABLE):
        raise errors.SchemaError(f"the tables are missing; {UPGRADE}")
    versions = sqlalchemy.table(schema.VERSION_TABLE, sqlalchemy.column("version_num"))
    found = connection.scalar(sqlalchemy.select(versions.c.version_num))
    if found is None:
        raise errors.SchemaError(f"the tables are missing; {UPGRADE}")
    if found < schema.REVISION:
        raise errors.SchemaError(
            f"the tables are of version {found}, this program needs {schema.REVISION}; {UPGRADE}"
        )
    return str(found)


# MySQL and MariaDB report bad values under several classes of error: wrong or incorrect string
# value, invalid JSON, a CHECK that failed.
_MYSQL_BAD_VALUE = frozenset({1264, 1265, 1292, 1300, 1366, 1406, 3140, 3819, 4025})


def is_locked(error: BaseException) -> bool:
    """Tell that SQLite's one place for a writer is taken, longer than we wait for it."""
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlite_errorcode", 0) or 0
    # The low byte is the primary result code; the rest says more precisely what is busy.
    return code & 0xFF == sqlite3.SQLITE_BUSY


def is_bad_value(error: BaseException) -> bool:
    """Tell an error that the values caused from one that the database or the network caused."""
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(original, psycopg.Error):
        return isinstance(original, psycopg.DataError | psycopg.IntegrityError)
    if isinstance(error, exc.DBAPIError):
        number = original.args[0] if original is not None and original.args else None
        return isinstance(error, exc.DataError | exc.IntegrityError) or number in _MYSQL_BAD_VALUE
    return isinstance(error, UnicodeError | ValueError | OverflowError | exc.StatementError)

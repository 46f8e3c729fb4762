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

import sqlalchemy
from gevent.threadpool import ThreadPool
from sqlalchemy import Connection, Engine, ExceptionContext, event, exc, make_url

from events_app import failures

T = TypeVar("T")

# What a worker must be able to read and write by, whoever holds what. A worker that froze in the
# middle of a move (SIGSTOP, a stalled virtual machine) frees the state row after the second one.
STATEMENT_TIMEOUT_SECONDS = 30
IDLE_IN_TRANSACTION_SECONDS = 5
# With TLS and a password, PostgreSQL needs five answers; a slow one takes two seconds for each.
CONNECT_TIMEOUT_SECONDS = 15
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

_FILE = "file"

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
    event.listen(engine, "handle_error", _leave_read_only)
    if family == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        _follow_file(engine, Path(str(parsed.database)))
    elif family in {"mysql", "mariadb"}:
        event.listen(engine, "do_connect", _leave_times_as_text)
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


def _leave_read_only(context: ExceptionContext) -> None:
    """Connect anew, through the pool's whole length, when a server refuses to write.

    After a fail-over the old primary may go on serving those who are connected, as a replica: they
    would stay with it, while whoever connects comes to the new one.
    """
    if failures.is_read_only(context.original_exception):
        context.is_disconnect = True


def _prepare_sqlite(connection: Any, record: object) -> None:
    del record
    connection.isolation_level = None  # transactions begin and end where we say
    connection.text_factory = _decode_anything
    connection.execute("PRAGMA journal_mode = WAL")


def _follow_file(engine: Engine, file: Path) -> None:
    """Let go of a connection once another file has its name: it would go on in the old one."""

    def remember(connection: Any, record: Any) -> None:
        del connection
        record.info[_FILE] = _identity(file)

    def refuse_replaced(connection: Any, record: Any, proxy: object) -> None:
        del connection, proxy
        present = _identity(file)
        if present == record.info[_FILE]:
            return
        if present is None:
            # To connect would make an empty file, into which somebody is about to copy another.
            gone = sqlite3.OperationalError(f"{file} is gone")
            raise exc.OperationalError("connect", None, gone)
        raise exc.DisconnectionError(f"{file} was replaced")  # the pool connects again

    event.listen(engine, "connect", remember)
    event.listen(engine, "checkout", refuse_replaced)


def _identity(file: Path) -> tuple[int, int] | None:
    """Tell one file from another of the same name; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _decode_anything(value: bytes) -> str:
    """Bad bytes of one row must not fail the reading of all: they become lone surrogates."""
    return value.decode(errors="surrogateescape")


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get("sqlite_write"):
        connection.exec_driver_sql("BEGIN")


def _leave_times_as_text(
    dialect: Any, record: object, arguments: object, keywords: dict[str, Any]
) -> None:
    """Let `columns.UtcTime` read times.

    PyMySQL's own way to a `datetime` takes a quarter of the time of a row of the journal.
    """
    del record, arguments
    driver = dialect.loaded_dbapi
    keywords["conv"] = dict(driver.converters.conversions)
    del keywords["conv"][driver.constants.FIELD_TYPE.DATETIME]


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
        # Whether a write has failed since somebody asked what is wrong: `probe` does.
        self.is_doubtful = False
        self._thread = ThreadPool(1) if self.is_sqlite else None

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads, and return what it returns."""
        return self._run(work, write=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that may write, under time limits; commit when it returns."""
        try:
            return self._run(work, write=True)
        except sqlalchemy.exc.SQLAlchemyError as error:
            if not (failures.is_bad_value(error) or failures.is_locked(error)):
                self.is_doubtful = True
            raise

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

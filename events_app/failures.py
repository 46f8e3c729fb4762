"""What an error of the database means: gone, refused, busy, or caused by the values."""

from __future__ import annotations

import re
import sqlite3

import psycopg
from sqlalchemy import exc


def words_of(error: BaseException) -> str:
    """Return what the database itself says, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def is_away(error: BaseException) -> bool:
    """Tell a database that does not answer from one that answers with a refusal."""
    if isinstance(error, exc.TimeoutError):
        return True  # of the pool
    refusal = isinstance(error, exc.ProgrammingError) or is_denied(error)
    return isinstance(error, exc.DBAPIError) and not refusal


# PyMySQL calls a missing right an operational error: to the server (also from this host, or without
# a password), a database, a table and so on.
_MYSQL_DENIED = frozenset({1044, 1045, 1130, 1142, 1143, 1227, 1370, 1698})

# Until it is connected, libpq hands on PostgreSQL's words without its code. A server that speaks
# another language counts as away, and its words are in the log. Not here: what an LDAP or RADIUS
# server decides, which may itself be away.
_POSTGRESQL_LOGIN_DENIED = re.compile(
    r"FATAL: +(password authentication failed for user|no pg_hba\.conf entry for"
    r"|role .* is not permitted to log in|role .* does not exist|permission denied for database)"
    r"|no password supplied"
)


def is_denied(error: BaseException) -> bool:
    """Tell that the role lacks a right, or may not even log in."""
    original = getattr(error, "orig", None)
    if isinstance(original, psycopg.errors.InsufficientPrivilege):
        return True
    if isinstance(original, psycopg.OperationalError):
        return original.sqlstate is None and bool(_POSTGRESQL_LOGIN_DENIED.search(str(original)))
    return bool(original and original.args and original.args[0] in _MYSQL_DENIED)


# An option of the server forbids the statement; the transaction is read-only; so is InnoDB.
_MYSQL_READ_ONLY = frozenset({1290, 1792, 1836})


def is_read_only(original: BaseException | None) -> bool:
    """Tell that a server takes no writes, by its driver's error."""
    if isinstance(original, psycopg.Error):
        return isinstance(original, psycopg.errors.ReadOnlySqlTransaction)
    return bool(original and original.args and original.args[0] in _MYSQL_READ_ONLY)


def is_locked(error: BaseException) -> bool:
    """Tell that SQLite's one place for a writer is taken, longer than we wait for it."""
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlite_errorcode", 0) or 0
    # The low byte is the primary result code; the rest says more precisely what is busy.
    return code & 0xFF == sqlite3.SQLITE_BUSY


# MySQL and MariaDB report bad values under several classes of error: wrong or incorrect string
# value, invalid JSON, a CHECK that failed.
_MYSQL_BAD_VALUE = frozenset({1264, 1265, 1292, 1300, 1366, 1406, 3140, 3819, 4025})


def is_bad_value(error: BaseException) -> bool:
    """Tell an error that the values caused from one that the database or the network caused."""
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(original, psycopg.Error):
        return isinstance(original, psycopg.DataError | psycopg.IntegrityError)
    if isinstance(error, exc.DBAPIError):
        number = original.args[0] if original is not None and original.args else None
        return isinstance(error, exc.DataError | exc.IntegrityError) or number in _MYSQL_BAD_VALUE
    return isinstance(error, UnicodeError | ValueError | OverflowError | exc.StatementError)

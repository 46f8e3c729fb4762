"""Column types and SQL expressions that mean the same on SQLite, PostgreSQL, MariaDB and MySQL.

Tables and migrations share them: a released type never changes what it renders, since an old
migration would then build another table. A new meaning is a new class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Integer,
    String,
    Text,
    and_,
    bindparam,
    case,
    or_,
    types,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

# SQLite gives only an `INTEGER PRIMARY KEY` its own rowid; its integers are 64 bits wide anyway.
BigInt = BigInteger().with_variant(Integer(), "sqlite")

T = TypeVar("T")

# What every engine and Python can say, in any time zone.
EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)

SQLITE_TIME = "%Y-%m-%d %H:%M:%S.%f"


def _mysql_collation(dialect: Dialect) -> str:
    """Byte by byte and without padding: `a` differs from `A` and from `a `."""
    return "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"


class ByteString(types.TypeDecorator[str]):
    """Text of at most `length` characters, compared byte by byte and without padding."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        """Choose the collation that compares bytes."""
        length = self.impl_instance.length  # type: ignore[attr-defined] # a String has one
        if dialect.name in {"mysql", "mariadb"}:
            collation = _mysql_collation(dialect)
            return mysql.VARCHAR(length, charset="utf8mb4", collation=collation)
        if dialect.name == "postgresql":
            return postgresql.VARCHAR(length, collation="C")
        return String(length)


class ByteText(types.TypeDecorator[str]):
    """Long text, compared byte by byte.

    Not a VARCHAR: outside strict mode MySQL cuts a too long value off before a CHECK can refuse it.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        """Choose the collation that compares bytes."""
        if dialect.name in {"mysql", "mariadb"}:
            return mysql.TEXT(charset="utf8mb4", collation=_mysql_collation(dialect))
        if dialect.name == "postgresql":
            return postgresql.TEXT(collation="C")
        return Text()


class UtcTime(types.TypeDecorator[datetime]):
    """A UTC time with microseconds, an aware `datetime` in Python.

    SQLite keeps text that anyone may have written; what is no time there reads as None.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        """Choose the engine's type with microseconds."""
        if dialect.name in {"mysql", "mariadb"}:
            return mysql.DATETIME(fsp=6)
        if dialect.name == "postgresql":
            return postgresql.TIMESTAMP(timezone=True)
        return Text()

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Give the driver what its engine stores."""
        if value is None or dialect.name == "postgresql":
            return value
        naive = value.astimezone(UTC).replace(tzinfo=None)
        return naive.strftime(SQLITE_TIME) if dialect.name == "sqlite" else naive

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read what the engine stored."""
        del dialect
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        try:
            parsed = datetime.fromisoformat(value)
            return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            return None


def readable_time(column: ColumnElement[datetime]) -> ColumnElement[datetime | None]:
    """Read a time that an app wrote; one that Python cannot say reads as None.

    PostgreSQL knows infinity, years before 1 and beyond 9999: its driver would fail the whole read.
    """
    return case((column.between(EARLIEST, LATEST), column))


# What an app wrote for auditors is copied verbatim: it is read as text (a cast in the statement)
# and written as that text (the engine's encoder does nothing, see database.py). SQLite has it as
# text: its column type JSON would turn the text `123` into a number.
VerbatimJson = JSON(none_as_null=True).with_variant(Text(), "sqlite")


class utc_now(FunctionElement[datetime]):  # noqa: N801 -- an SQL function, written as one
    """The database's own clock, in UTC: the only one that all workers share."""

    type = UtcTime()
    inherit_cache = True


@compiles(utc_now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(utc_now, "postgresql")
def _postgresql_now(*_: Any, **__: Any) -> str:
    return "clock_timestamp()"


@compiles(utc_now, "mysql", "mariadb")
def _mysql_now(*_: Any, **__: Any) -> str:
    return "(UTC_TIMESTAMP(6))"


def is_one_of(columns: Sequence[ColumnElement[Any]], count: int) -> ColumnElement[bool]:
    """Make the condition that `columns` hold one of so many keys, whose values `listed` names.

    Not IN with a list of tuples: SQLite would read the whole table or index.
    """
    keys = range(count)
    return or_(
        *(and_(*(column == bindparam(_name(column, n)) for column in columns)) for n in keys)
    )


def listed(columns: Sequence[ColumnElement[Any]], keys: Iterable[Iterable[Any]]) -> dict[str, Any]:
    """Return the values that `is_one_of` wants for `keys`."""
    return {
        _name(column, number): value
        for number, key in enumerate(keys)
        for column, value in zip(columns, key, strict=True)
    }


def _name(column: ColumnElement[Any], number: int) -> str:
    return f"{column.key}_{number}"


def filled(keys: Iterable[T], count: int) -> list[T]:
    """Repeat the last of several keys until there are `count`.

    Else a statement would be made, compiled and kept for every number of them.
    """
    found = list(keys)
    # A single one is a statement of its own, the most frequent of all.
    return found + found[-1:] * (count - len(found)) if found[1:] else found


def parts(things: Sequence[T], each: int) -> Iterator[Sequence[T]]:
    """Yield `things` in parts of so many, for statements that take no more."""
    for start in range(0, len(things), each):
        yield things[start : start + each]


class octets(FunctionElement[int]):  # noqa: N801 -- an SQL function, written as one
    """The length of a text in bytes."""

    type = Integer()
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        """Measure `column`."""
        super().__init__(column)


@compiles(octets)
def _octets(element: octets, compiler: Any, **kw: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **kw)})"


@compiles(octets, "sqlite")
def _sqlite_octets(element: octets, compiler: Any, **kw: Any) -> str:
    # octet_length() came with SQLite 3.43; Python 3.11 still ships older ones.
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"

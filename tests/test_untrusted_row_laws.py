"""Whatever an app writes into the outbox: the line goes on, and nobody else's stream suffers."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import pymysql
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, cast, exc, insert, select

from events_app import event, intake, journal, schema
from events_app.schema import outbox
from tests import conftest, databases, reused, rows, untrusted
from tests import worker as workers
from tests.worker import Worker

GOOD, HOSTILE = "1", "2"

# Each example is a transaction or more on a server; a profile that asks for more gets a tenth.
law = settings(
    max_examples=max(40, settings().max_examples // 10),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Bytes(NamedTuple):
    """Bytes that SQLite is told to take for text."""

    value: bytes


# -- what an app writes --------------------------------------------------------------------------

TEXTS = (
    untrusted.NAMES
    | st.sampled_from(["", "create", "rename", "delete", "modify", "my", untrusted.CLIENT, "NULL"])
    | st.sampled_from(["x" * 64, "x" * 65, "😀" * 128, "x" * 129, "y" * 5_000, "é" * 70_000])
)
NAMED = untrusted.NAMES | st.sampled_from(["a" * 4_095, "\x01" * 4_095, "é" * 2_047, "/" * 9])
NO_PATHS = ("/a/../b", "/..", "/a\0b", "a", "/", "//", "/./", "/a/", "/\udcff", "/a\n\nid: 1")
PATHS = (
    st.lists(NAMED, max_size=3).map(lambda names: "/" + "/".join(names))
    | st.sampled_from(NO_PATHS)
    | TEXTS
)
USERS = TEXTS.map(lambda text: HOSTILE + text) | st.just(HOSTILE)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
DOCUMENTS = JSON.map(json.dumps) | st.sampled_from(
    [
        *('"\\u0000"', '"\\ud800"', "1e400", "-0", "9" * 5_000, '{"a":1,"a":2}', " [ ] ", "null"),
        *("[" * 31 + "]" * 31, "[" * 900 + "]" * 900, json.dumps("x" * 200_000), "", "{", "[1,]"),
    ]
)
TIMES = st.datetimes().map(str) | st.sampled_from(
    [
        *("infinity", "-infinity", "0044-03-15 BC", "12026-01-01", "0000-00-00 00:00:00", "now"),
        *("9999-12-31 23:59:59.999999", "0001-01-01 00:00:00", "yesterday", "", "1e9"),
    ]
)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.sampled_from([0, 1, 2, 32_768])
# SQLite keeps in any column whatever it is given.
ANYTHING = NUMBERS | st.binary(max_size=6) | st.binary(max_size=6).map(Bytes) | st.none()
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "user_id": USERS,
    "type": st.sampled_from(["create", "modify", "rename", "delete"]) | TEXTS,
    "file_id": TEXTS,
    "fs": st.just("my") | TEXTS,
    "from_path": PATHS,
    "to_path": st.none() | PATHS,
    "is_folder": st.sampled_from([0, 1]) | NUMBERS | TEXTS,
    "client_id": TEXTS,
    "actor_id": TEXTS,
    "event_key": st.sampled_from(["k", "K", "k "]) | TEXTS,
    "meta": DOCUMENTS | TEXTS,
    "created_at": TIMES | TEXTS,
}
USUAL = {"user_id": HOSTILE, "type": "create", "file_id": "f", "from_path": "/a"}


@st.composite
def hostile(draw: st.DrawFn, engine: str) -> dict[str, Any]:
    """Draw a row in which a column or two are odd: of more, one would hide the others."""
    found: dict[str, Any] = dict(USUAL)
    for name in draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=2, unique=True)):
        odd = COLUMNS[name]
        if engine != "postgresql" and name != "user_id":
            odd = st.one_of(odd, odd, odd, ANYTHING)
        found[name] = draw(odd)
    if draw(st.booleans()) and found["type"] == "rename":
        found.setdefault("to_path", "/b")
    return found


class App:
    """An app on a database of one engine: careless, and where it can be, hostile."""

    def __init__(self, worker: Worker, engine: str) -> None:
        self.worker = worker
        self.name = engine
        url = worker.database.engine.url.render_as_string(hide_password=False)
        self._engine = sqlalchemy.create_engine(url)
        if engine != "postgresql":
            sqlalchemy.event.listen(self._engine, "connect", CARELESS[engine])

    def insert(self, values: Mapping[str, Any]) -> bool:
        """Insert a row, in a transaction of its own; tell whether the database took it."""
        table = sqlalchemy.table(outbox.name, *map(sqlalchemy.column, values))
        statement = insert(table).values({name: _bound(each) for name, each in values.items()})
        try:
            with self._engine.begin() as connection:
                connection.execute(statement)
        except (exc.SQLAlchemyError, UnicodeError, OverflowError, ValueError):
            return False
        return True

    def insert_by_turns(self, planted: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int:
        """Insert what is planted, and between the first of it good rows of these names; count."""
        count = 0
        for values, name in zip_longest(planted, names):
            good = {"user_id": GOOD, "type": "create", "file_id": name, "from_path": f"/{name}"}
            count += self.insert(values) + (name is not None and self.insert(good))
        return count

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()
        self.worker.close()


def _bound(value: Any) -> Any:
    if isinstance(value, Bytes):
        return cast(sqlalchemy.literal(value.value, sqlalchemy.LargeBinary), sqlalchemy.Text)
    return value


def _without_checks(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA ignore_check_constraints = ON")


def _without_strict_mode(connection: pymysql.Connection[Any], _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = '', check_constraint_checks = OFF")


CARELESS: dict[str, Callable[[Any, Any], None]] = {
    "sqlite": _without_checks,
    "mariadb": _without_strict_mode,
}


@pytest.fixture(scope="module", params=databases.ENGINES)
def app(request: pytest.FixtureRequest) -> Iterator[App]:
    engine = str(request.param)
    conftest.need(engine)
    made = App(Worker(reused.url(request, engine)), engine)
    yield made
    assert made.worker.holds_nothing()
    made.close()


# -- what is told --------------------------------------------------------------------------------


def check_kept(kept: Mapping[str, Any]) -> None:
    """Hold a row of the journal to what streams rely on, if it is told."""
    if kept["rejected"] is not None:
        return
    assert kept["type"] in event.TYPES
    assert (kept["to_path"] is not None) == (kept["type"] == "rename")
    for path in filter(None, (kept["from_path"], kept["to_path"])):
        untrusted.check_path(path)
    for name, length in intake.LENGTHS.items():
        text = kept[name]
        assert text is None or (0 < len(text) <= length and "\0" not in text and text.encode())
    assert kept["client_id"] in {None, event.canonical_client_id(kept["client_id"] or "")}
    assert kept["is_folder"] in {0, 1}


def journalled(connection: Connection, after: int) -> list[Mapping[str, Any]]:
    """List the rows after a position, without what only auditors read."""
    columns = [each for each in schema.journal.c if each.name != "meta"]
    query = select(*columns).where(schema.journal.c.position > after)
    return [dict(row) for row in connection.execute(query).mappings()]


def check_journal(worker: Worker, after: int, count: int) -> None:
    """Look that so many rows stand after a position, each as it may, and none waits."""
    assert worker.database.read(rows.waiting) == 0
    moved = worker.database.read(lambda db: journalled(db, after))
    assert len(moved) == count
    for row in moved:
        check_kept(row)


@given(st.data())
@law
def test_any_row_is_journalled_and_no_other_users_stream_suffers(
    app: App, data: st.DataObject
) -> None:
    worker = app.worker
    before = worker.database.read(journal.head).last_position
    planted = data.draw(st.lists(hostile(app.name), min_size=4, max_size=8))
    names = [f"good-{before}-{number}" for number in range(3)]
    with (
        contextlib.closing(worker.stream(workers.watcher("/", None, GOOD), debounce=0)) as good,
        contextlib.closing(worker.stream(workers.watcher("/", None, HOSTILE), debounce=0)) as bad,
    ):
        for each in (good, bad):
            each.expect("subscribed")
        count = app.insert_by_turns(planted, names)
        worker.turn()
        check_journal(worker, before, count)
        frames, changes = untrusted.heard(good)
        assert [each["file_id"] for each in changes] == names
        assert set(frames) <= {"event", "keep-alive"}, "it does not end"
        _, changes = untrusted.heard(bad)
        assert not {each["file_id"] for each in changes} & set(names)

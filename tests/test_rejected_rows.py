"""What the mover does with rows that cannot be told: it says why, and goes on with the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection, exc, insert, select

from events_app import database as databases
from events_app import errors, event, failures, intake, sequencer
from events_app import journal as reading
from events_app.columns import utc_now
from events_app.database import Database
from events_app.schema import journal, outbox, state
from events_app.sequencer import Mover, Step
from tests import reused, rows

SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
MARIADB = pytest.mark.parametrize("engine", ["mariadb"], indirect=True)

url = reused.on_each_engine


def move_all(database: Database) -> Step:
    """Step until the outbox is empty; add the steps up."""
    mover, total = Mover(database), Step(0, 0, 0)
    for _ in range(200):
        done = mover.step()
        assert done is not None
        total = Step(total.moved + done.moved, total.rejected + done.rejected, done.last_position)
        if not done.moved:
            return total
    raise AssertionError(total)


# What the intake refuses.


@pytest.mark.parametrize(
    ("path", "to_path", "reason"),
    [
        ("/a/../b", None, "from_path has a .. segment"),
        ("a.txt", None, "from_path does not start with /"),
        ("/", None, "from_path is the root, which is no entry of its own"),
        ("//./", None, "from_path is the root, which is no entry of its own"),
        ("/a", "b", "to_path does not start with /"),
        ("/a", "/b/..", "to_path has a .. segment"),
    ],
)
def test_a_path_that_says_nothing_is_rejected(
    database: Database, url: str, path: str, to_path: str | None, reason: str
) -> None:
    rows.commit(url, "/before")
    kind = "rename" if to_path else "create"
    rows.commit(url, path, type=kind, to_path=to_path, file_id="bad")
    rows.commit(url, "/after")
    assert move_all(database) == Step(3, 1, 3)
    assert database.read(rows.paths) == ["/before", path, "/after"]
    assert database.read(rows.rejections) == {"/before": None, "bad": reason, "/after": None}


@pytest.mark.parametrize("column", ["user_id", "file_id", "fs", "from_path"])
def test_an_empty_text_is_rejected(database: Database, url: str, column: str) -> None:
    values = {"user_id": "42", "file_id": "f", "fs": "my", "from_path": "/a"} | {column: ""}
    rows.commit(url, values.pop("from_path"), **values)
    assert move_all(database) == Step(1, 1, 1)
    reasons = set(database.read(rows.rejections).values())
    assert reasons == {f"{column} is empty"}


def test_what_only_looks_odd_is_cleaned(database: Database, url: str) -> None:
    """And a client_id that is no UUID names no client."""
    rows.commit(url, "//a/./b/", client_id="0B0E5F3A-6C1D-4F1E-9D5A-3A1B2C3D4E5F")
    rows.commit(url, "/c", client_id="my laptop", to_path="", actor_id="", event_key="")
    assert move_all(database) == Step(2, 0, 2)
    names = ("from_path", "to_path", "client_id", "actor_id", "event_key")
    query = select(*(journal.c[name] for name in names)).order_by(journal.c.position)
    assert [tuple(row) for row in database.read(lambda db: db.execute(query).all())] == [
        ("/a/b", None, "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f", None, None),
        ("/c", None, None, None, None),
    ]


@pytest.mark.parametrize("engine", ["sqlite", "mariadb"], indirect=True)
@pytest.mark.parametrize("column", ["user_id", "file_id", "from_path", "client_id", "event_key"])
def test_a_nul_is_rejected_except_where_it_names_nobody(
    database: Database, url: str, column: str
) -> None:
    """PostgreSQL's text holds no NUL, so no row there can."""
    values = {"file_id": "f", "from_path": "/a"} | {column: "/x\0y"}
    rows.commit(url, values.pop("from_path"), **values)
    reason = None if column == "client_id" else f"{column} holds a NUL"
    assert move_all(database) == Step(1, int(reason is not None), 1)
    assert set(database.read(rows.rejections).values()) == {reason}


# SQLite stores in any column whatever it is given.


def insert_expressions(url: str, values: dict[str, str]) -> None:
    """Insert a row whose values are SQL expressions."""
    table = sqlalchemy.table("file_event_outbox", *map(sqlalchemy.column, values))
    expressions: dict[str, Any] = {
        name: sqlalchemy.literal_column(value) for name, value in values.items()
    }
    with rows.app(url).begin() as connection:
        connection.execute(insert(table).values(expressions))


@SQLITE
@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("user_id", "CAST(x'ff41' AS TEXT)", "user_id is not valid UTF-8"),
        ("from_path", "CAST(x'2fff' AS TEXT)", "from_path is not valid UTF-8"),
        ("file_id", "CAST(x'eda080' AS TEXT)", "file_id is not valid UTF-8"),
        ("meta", "CAST(x'7bff7d' AS TEXT)", "meta is not valid UTF-8"),
        ("meta", "x'7bff7d'", "meta is not valid UTF-8"),
        ("user_id", "x'3432'", "user_id is bytes, not text"),
        ("from_path", "x'2f61'", "from_path is bytes, not text"),
        ("event_key", "x'00'", "event_key is bytes, not text"),
        ("user_id", "printf('%.*c', 65, 'u')", "user_id is longer than 64"),
        ("file_id", "printf('%.*c', 129, 'u')", "file_id is longer than 128"),
        ("fs", "printf('%.*c', 33, 'u')", "fs is longer than 32"),
        ("actor_id", "printf('%.*c', 65, 'u')", "actor_id is longer than 64"),
        ("event_key", "printf('%.*c', 129, 'u')", "event_key is longer than 128"),
    ],
)
def test_on_sqlite_what_no_column_should_hold_is_rejected(
    database: Database, url: str, column: str, value: str, reason: str
) -> None:
    values = {"user_id": "'42'", "type": "'create'", "file_id": "'bad'", "from_path": "'/a'"}
    values |= {column: value}
    rows.commit(url, "/before")
    insert_expressions(url, values)
    rows.commit(url, "/after")
    assert move_all(database) == Step(3, 1, 3)
    kept = database.read(
        lambda db: db.execute(select(journal).where(journal.c.position == 2)).one()
    )
    assert kept.rejected == reason
    assert database.read(rows.positions) == [1, 2, 3]


@SQLITE
@pytest.mark.parametrize("value", ["17", "'yesterday'", "x'00'", "'9999-12-31T23:59:59-23:59'"])
def test_on_sqlite_a_time_that_is_none_is_the_time_of_the_move(
    database: Database, url: str, value: str
) -> None:
    values = {"user_id": "'42'", "type": "'create'", "file_id": "'f'", "from_path": "'/a'"}
    insert_expressions(url, values | {"created_at": value})
    check_created_at_the_move(database)


@POSTGRESQL
@pytest.mark.parametrize("value", ["infinity", "-infinity", "0044-03-15 BC", "12026-01-01"])
def test_on_postgresql_a_time_that_python_cannot_say_is_the_time_of_the_move(
    database: Database, url: str, value: str
) -> None:
    rows.commit(url, "/a", created_at=value)
    check_created_at_the_move(database)


@MARIADB
def test_on_mariadb_the_zero_date_is_the_time_of_the_move(database: Database, url: str) -> None:
    rows.commit(url, "/a", created_at="0000-00-00 00:00:00")
    check_created_at_the_move(database)


def check_created_at_the_move(database: Database) -> None:
    assert database.read(reading.head).waiting_since is not None
    assert move_all(database) == Step(1, 0, 1)
    query = select(journal.c.created_at, journal.c.recorded_at)
    assert len(set(database.read(lambda db: db.execute(query).one()))) == 1


# Retries.


def test_a_key_that_was_seen_is_journalled_as_a_duplicate(database: Database, url: str) -> None:
    """In the same batch and in a later one; another user's is another key, and so is `K`."""
    rows.commit(url, "/first", event_key="k")
    rows.commit(url, "/again", event_key="k")
    rows.commit(url, "/case", event_key="K")
    rows.commit(url, "/space", event_key="k ")
    rows.commit(url, "/other", event_key="k", user_id="43")
    # In one go: a batch that fails for it would be cut in halves down to the row.
    assert database.write(lambda db: sequencer.move(db, 500)) == Step(5, 1, 5)
    rows.commit(url, "/later", event_key="k")
    rows.commit(url, "/no key")
    assert move_all(database) == Step(2, 1, 7)
    assert database.read(rows.rejections) == {
        "/first": None,
        "/again": event.DUPLICATE,
        "/case": None,
        "/space": None,
        "/other": None,
        "/later": event.DUPLICATE,
        "/no key": None,
    }


def test_a_rejected_row_does_not_use_its_key_up(database: Database, url: str) -> None:
    """The app repairs what it wrote, and tells it under the same key."""
    rows.commit(url, "no slash", event_key="k")
    rows.commit(url, "/slash", event_key="k")
    assert move_all(database) == Step(2, 1, 2)
    assert database.read(rows.rejections)["/slash"] is None


# What apps may write for auditors.


LONG = intake.MAX_META_CHARACTERS


@pytest.mark.parametrize(
    ("characters", "reason"), [(LONG, None), (LONG + 1, f"meta is longer than {LONG}")]
)
def test_a_meta_that_is_too_long_is_rejected_and_left_out(
    database: Database, url: str, characters: int, reason: str | None
) -> None:
    """It may be written: an engine takes more in a row than in a statement that holds it."""
    meta = '"' + "\N{GRINNING FACE}" * (characters - 2) + '"'
    rows.commit(url, "/a", meta=meta, file_id="f")
    rows.commit(url, "/after")
    assert move_all(database) == Step(2, int(reason is not None), 2)
    assert database.read(rows.rejections)["f"] == reason
    assert database.read(metas) == [None if reason else meta, None]


def metas(connection: Connection) -> list[str | None]:
    query = select(sqlalchemy.cast(journal.c.meta, sqlalchemy.Text)).order_by(journal.c.position)
    return list(connection.scalars(query))


@MARIADB
def test_15_megabytes_of_meta_do_not_stop_the_line(database: Database, url: str) -> None:
    """Escaped, they are more than the server takes in a statement."""
    values = {"user_id": "'42'", "type": "'create'", "file_id": "'f'", "from_path": "'/a'"}
    quotes = "CONCAT('\"', REPEAT('\\\\\"', 7900000), '\"')"
    insert_expressions(url, values | {"meta": quotes})
    rows.commit(url, "/after")
    assert move_all(database) == Step(2, 1, 2)
    assert database.read(metas) == [None, None]


@MARIADB
@pytest.mark.parametrize("path", ["/a", "/.."])
def test_a_meta_that_is_no_json_is_rejected_and_left_out(
    database: Database, url: str, path: str
) -> None:
    """An app can switch the check off, and the journal has one too."""
    with rows.app(url).begin() as connection:
        connection.exec_driver_sql("SET SESSION check_constraint_checks = OFF")
        rows.insert(connection, path, meta="{", file_id="bad")
        rows.insert(connection, path, meta="{", file_id="worse", type="moved")
    rows.commit(url, "/after")
    assert move_all(database) == Step(3, 2, 3)
    rejections = database.read(rows.rejections)
    assert all(rejections.pop(name) for name in ("bad", "worse"))
    assert rejections == {"/after": None}
    assert database.read(metas) == [None, None, None]


# What only the database refuses.


@contextlib.contextmanager
def refusing(url: str, path: str) -> Iterator[None]:
    """Make the journal refuse `path`, as only the database itself can."""
    engine = rows.app(url)
    plant = f"ALTER TABLE file_event_journal ADD CONSTRAINT planted CHECK (from_path <> '{path}')"
    heal = "ALTER TABLE file_event_journal DROP CONSTRAINT planted"
    if engine.dialect.name == "sqlite":
        plant = (
            "CREATE TRIGGER planted BEFORE INSERT ON file_event_journal "
            f"WHEN NEW.from_path = '{path}' BEGIN SELECT RAISE(ABORT, 'planted'); END"
        )
        heal = "DROP TRIGGER planted"
    with engine.begin() as connection:
        connection.exec_driver_sql(plant)
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.delete(journal))
            connection.exec_driver_sql(heal)


def only_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a rejected row another path: the journal would refuse the salvaged one likewise."""
    salvage = intake.reject
    monkeypatch.setattr(
        intake, "reject", lambda *args: salvage(*args) | {"from_path": "/what was refused"}
    )


def test_a_row_that_the_database_refuses_is_rejected_and_no_other(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of 500 good ones, which keep their order."""
    only_as_told(monkeypatch)
    names = rows.numbered(501)
    bad = names[250]
    with rows.app(url).begin() as connection:
        connection.execute(
            insert(outbox),
            [
                {"user_id": "42", "type": "create", "file_id": name, "from_path": name}
                for name in names
            ],
        )
    with refusing(url, bad):
        assert move_all(database) == Step(501, 1, 501)
        assert database.read(rows.positions) == list(range(1, 502))
        query = select(journal.c.file_id).order_by(journal.c.position)
        assert database.read(lambda db: list(db.scalars(query))) == names
        rejections = database.read(rows.rejections)
    reasons = {name: reason for name, reason in rejections.items() if reason is not None}
    assert list(reasons) == [bad]
    assert "planted" in str(reasons[bad])


def test_bad_rows_at_both_ends_and_next_to_each_other_are_rejected(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_as_told(monkeypatch)
    with refusing(url, "/bad"):
        rows.commit(url, "/bad", file_id="1")
        rows.commit(url, *rows.numbered(5))
        rows.commit(url, "/bad", file_id="2")
        rows.commit(url, "/bad", file_id="3")
        assert move_all(database) == Step(8, 3, 8)
        rejections = database.read(rows.rejections)
        assert {name for name, reason in rejections.items() if reason} == {"1", "2", "3"}


# Trouble is no row's fault.


def test_a_lock_that_is_not_had_rejects_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds, uncommitted, the very position that comes next."""
    monkeypatch.setattr(databases, "SQLITE_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(databases, "IDLE_IN_TRANSACTION_SECONDS", 1)
    monkeypatch.setitem(databases._LIMITS, "postgresql", "SET LOCAL lock_timeout = '0.1s'")
    rows.commit(url, "/a", "/b")
    database = Database(url)
    mover = Mover(database)
    with rows.app(url).connect() as intruder:
        values = {"user_id": "", "type": "", "file_id": "", "fs": "", "from_path": "/intruder"}
        moment = {"created_at": utc_now(), "recorded_at": utc_now()}
        intruder.execute(insert(journal).values(position=1, is_folder=0, tag=0, **values, **moment))
        if database.is_sqlite:
            assert mover.step() is None
        else:
            with pytest.raises(Exception, match=r"(?i)lock") as caught:
                mover.step()
            assert not failures.is_bad_value(caught.value)
        intruder.rollback()
    assert mover.batch_rows == sequencer.BATCH_ROWS
    assert mover.step() == Step(2, 0, 2)
    database.close()


READ_ONLY = {
    "sqlite": ("PRAGMA query_only = ON", "readonly"),
    "postgresql": ("SET default_transaction_read_only = on", "read-only"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "READ ONLY"),
}


def test_a_database_that_is_read_only_rejects_nothing(url: str) -> None:
    """As a replica is, after a failover."""
    rows.commit(url, "/a", "/b")
    database = Database(url)
    statement, message = READ_ONLY[database.engine.dialect.name]

    def turn(connection: object, _: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined] # any driver's connection has one
        cursor.execute(statement)
        cursor.close()
        if hasattr(connection, "commit"):
            connection.commit()

    sqlalchemy.event.listen(database.engine, "connect", turn)
    mover = Mover(database)
    with pytest.raises(exc.DBAPIError, match=message):
        mover.step()
    assert mover.batch_rows == sequencer.BATCH_ROWS
    assert database.read(rows.waiting) == 2
    assert database.read(rows.rejections) == {}
    database.close()


def test_a_state_row_behind_its_journal_rejects_nothing(database: Database, url: str) -> None:
    """Restored in part: every position it would give is taken. Only a person can help here."""
    rows.commit(url, "/a", "/b")
    move_all(database)
    with rows.app(url).begin() as connection:
        connection.execute(sqlalchemy.update(state).values(last_position=0))
    rows.commit(url, "/c", "/d")
    mover = Mover(database)
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        mover.step()
    assert database.read(rows.waiting) == 2
    assert set(database.read(rows.rejections)) == {"/a", "/b"}


def test_a_mismatch_is_raised_and_never_halved(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.commit(url, "/a", "/b")
    monkeypatch.setattr(sequencer, "_delete", lambda *_: 1)
    mover = Mover(database)
    with pytest.raises(errors.MoveMismatch):
        mover.step()
    assert mover.batch_rows == sequencer.BATCH_ROWS

"""The four tables as a database really has them, and how they come there, on every engine."""

from __future__ import annotations

import io
import re
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alembic.util
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, exc, func, insert, inspect, make_url, select, text

from events_app import database as databases
from events_app import errors, fitness, schema
from events_app.columns import utc_now
from events_app.database import Database
from events_app.schema import journal, outbox, subscription
from tests import kept, reused, rows
from tests.databases import ROOT, empty
from tests.serving import START_SECONDS, Server

OURS = set(schema.metadata.tables)
SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
MARIADB = pytest.mark.parametrize("engine", ["mariadb"], indirect=True)

# The contract with everyone who writes or reads these tables: name, longest text, may be null.
OUTBOX = {
    "id": (None, False),
    "user_id": (64, False),
    "type": (16, False),
    "file_id": (128, False),
    "fs": (32, False),
    "from_path": (None, False),
    "to_path": (None, True),
    "is_folder": (None, False),
    "client_id": (36, True),
    "actor_id": (64, True),
    "event_key": (128, True),
    "meta": (None, True),
    "created_at": (None, False),
}
JOURNAL = {
    "position": (None, False),
    **{name: rule for name, rule in OUTBOX.items() if name != "id"},
    "recorded_at": (None, False),
    "tag": (None, False),
    "rejected": (255, True),
}
STATE = {
    "id": (None, False),
    "last_position": (None, False),
    "floor_position": (None, False),
    "epoch": (None, False),
    "updated_at": (None, False),
}
GRANT = {
    "share_id": (64, False),
    "user_id": (64, False),
    "owner_id": (64, False),
    "fs": (32, False),
    "path": (None, False),
    "is_folder": (None, False),
    "expires_at": (None, True),
}
SUBSCRIPTION = {
    "user_id": (64, False),
    "client_id": (36, False),
    "folder_hash": (64, False),
    "fs": (32, False),
    "path": (None, False),
    "epoch": (None, False),
    "position": (None, False),
    "sent_position": (None, True),
    "generation": (None, False),
    "state": (16, False),
    "created_at": (None, False),
    "seen_at": (None, False),
}

SMALLEST = (
    "INSERT INTO file_event_outbox (user_id, type, file_id, from_path) "
    "VALUES ('42', 'create', 'f9', '/docs/plan.md');"
)

url = reused.on_each_engine


@pytest.fixture
def app(url: str) -> Iterator[Connection]:
    """Give a connection of an app, which knows nothing of ours."""
    with rows.app(url).connect() as connection:
        yield connection


def configuration(url: str) -> Config:
    """Make what `alembic` is run with; its output can be read."""
    made = Config(toml_file=ROOT / "pyproject.toml", stdout=io.StringIO())
    made.output_buffer = io.StringIO()
    made.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return made


def tables(url: str) -> set[str]:
    with rows.app(url).connect() as connection:
        return set(inspect(connection).get_table_names())


# Migrations.


def test_up_down_and_up_again(empty_url: str) -> None:
    made = configuration(empty_url)
    command.upgrade(made, "head")
    assert tables(empty_url) == OURS | {schema.VERSION_TABLE}
    rows.commit(empty_url, "/a")
    command.downgrade(made, "base")
    assert tables(empty_url) == {schema.VERSION_TABLE}
    database = Database(empty_url)
    with pytest.raises(errors.SchemaError):
        database.read(fitness.check_schema)
    command.upgrade(made, "head")
    assert database.read(fitness.check_schema) == schema.REVISION
    assert database.read(rows.waiting) == 0
    database.close()


def test_an_upgrade_that_has_nothing_to_do_keeps_everything(url: str) -> None:
    rows.commit(url, "/a")
    command.upgrade(configuration(url), "head")
    with rows.app(url).connect() as connection:
        assert rows.waiting(connection) == 1


def test_the_newest_revision_is_the_one_the_program_asks_for() -> None:
    script = ScriptDirectory.from_config(configuration("sqlite://"))
    assert script.get_heads() == [schema.REVISION]
    assert all(re.fullmatch(r"\d{4}", found.revision) for found in script.walk_revisions())


def test_the_models_are_what_the_migrations_make(url: str) -> None:
    """As alembic compares them: tables, columns, types, nullability, indexes."""
    made = configuration(url)
    command.check(made)


@pytest.mark.parametrize(
    "difference",
    [
        "ALTER TABLE file_event_journal ADD COLUMN planted INTEGER",
        "CREATE INDEX planted ON file_event_journal (file_id)",
    ],
)
def test_a_difference_would_be_seen(empty_url: str, difference: str) -> None:
    """Else the test above proves nothing."""
    made = configuration(empty_url)
    command.upgrade(made, "head")
    with rows.app(empty_url).begin() as connection:
        connection.exec_driver_sql(difference)
    with pytest.raises(alembic.util.AutogenerateDiffsDetected, match="planted"):
        command.check(made)


def test_the_models_make_the_same_tables_to_the_letter(url: str, empty_url: str) -> None:
    """CHECKs, collations and defaults too, which alembic does not compare."""
    models = databases.create_engine(empty_url)
    with models.begin() as connection:
        schema.metadata.create_all(connection)
        of_models = definitions(connection)
    models.dispose()
    with rows.app(url).connect() as connection:
        assert definitions(connection) == of_models
    assert any("octet_length" in each or "length(CAST" in each for each in of_models)


def definitions(connection: Connection) -> list[str]:
    """Write down everything the database knows of our tables."""
    name = connection.dialect.name
    if name == "mysql":
        found = [
            connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1] for table in OURS
        ]
        found = [re.sub(r" AUTO_INCREMENT=\d+", "", each) for each in found]
        # The order in which indexes were made is in it too.
        return sorted(line.rstrip(",") for each in found for line in each.splitlines())
    queries = {
        "sqlite": [
            (
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL "
                "AND tbl_name LIKE 'file\\_event\\_%' ESCAPE '\\' AND tbl_name <> 'VERSION' "
                "AND type <> 'view'"
            )
        ],
        "postgresql": [
            (
                "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, "
                "column_default, collation_name, is_identity, identity_generation, "
                "datetime_precision FROM information_schema.columns "
                "WHERE table_name LIKE 'file\\_event\\_%' AND table_name <> 'VERSION' "
                "AND table_name NOT IN (SELECT viewname FROM pg_views)"
            ),
            (
                "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint "
                "WHERE conrelid::regclass::text LIKE 'file\\_event\\_%' "
                "AND conrelid::regclass::text <> 'VERSION'"
            ),
            (
                "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'file\\_event\\_%' "
                "AND tablename <> 'VERSION'"
            ),
            (
                "SELECT sequencename, cache_size, increment_by FROM pg_sequences "
                "WHERE sequencename LIKE 'file\\_event\\_%'"
            ),
        ],
    }[name]
    found = []
    for query in queries:
        asked = text(query.replace("VERSION", schema.VERSION_TABLE))
        found += [" ".join(map(str, row)) for row in connection.execute(asked)]
    return sorted(re.sub(r"\s+", " ", each).strip() for each in found)


FOREIGN = [
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
    "INSERT INTO alembic_version VALUES ('of the app')",
    "CREATE TABLE files (id INTEGER PRIMARY KEY, name VARCHAR(64))",
    "CREATE INDEX files_by_name ON files (name)",
    "INSERT INTO files VALUES (1, 'a')",
    "CREATE TABLE file_event_notes (id INTEGER PRIMARY KEY REFERENCES files (id))",
    "CREATE VIEW file_names AS SELECT name FROM files",
]


def test_the_apps_own_tables_are_left_alone(empty_url: str) -> None:
    """By up, down and autogenerate; also those that are named like ours or like alembic's own."""
    with rows.app(empty_url).begin() as connection:
        for statement in FOREIGN:
            connection.exec_driver_sql(statement)
    foreign = {"alembic_version", "files", "file_event_notes"}
    made = configuration(empty_url)
    command.upgrade(made, "head")
    command.check(made)
    assert tables(empty_url) == OURS | foreign | {schema.VERSION_TABLE}
    command.downgrade(made, "base")
    assert tables(empty_url) == foreign | {schema.VERSION_TABLE}
    with rows.app(empty_url).connect() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars()
        assert list(found) == ["of the app"]
        assert list(connection.exec_driver_sql("SELECT name FROM file_names").scalars()) == ["a"]
        assert inspect(connection).get_indexes("files")[0]["name"] == "files_by_name"


def test_the_migration_as_sql_makes_the_same_tables(engine: str, url: str, empty_url: str) -> None:
    """For those who do not let programs change their schema: `alembic upgrade head --sql`.

    Nobody is asked for the kind of server then, so the address must say `mariadb` for a MariaDB.
    """
    address = make_url(empty_url)
    if engine == "mariadb":
        address = address.set(drivername="mariadb+pymysql")
    made = configuration(address.render_as_string(hide_password=False))
    command.upgrade(made, "head", sql=True)
    assert isinstance(made.output_buffer, io.StringIO)
    run_script(empty_url, made.output_buffer.getvalue())
    with rows.app(empty_url).connect() as connection:
        printed = definitions(connection)
    with rows.app(url).connect() as connection:
        assert definitions(connection) == printed
    database = Database(empty_url)
    assert database.read(fitness.check_schema) == schema.REVISION
    assert database.read(rows.last_position) == 0
    database.close()


def run_script(url: str, script: str) -> None:
    if (parsed := make_url(url)).get_backend_name() == "sqlite":
        file = sqlite3.connect(str(parsed.database))
        file.executescript(script)
        file.close()
        return
    with rows.app(url).begin() as connection:
        for statement in script.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)


# Starting on a database that is not ready.


@pytest.mark.parametrize("found", ["missing", "old"])
def test_a_server_does_not_start_without_its_tables_and_says_what_to_run(
    engine: str, tmp_path: Path, found: str
) -> None:
    with empty(engine, tmp_path) as at:
        if found == "old":
            command.upgrade(configuration(at), "head")
            with rows.app(at).begin() as connection:
                versions = sqlalchemy.table(schema.VERSION_TABLE, sqlalchemy.column("version_num"))
                connection.execute(sqlalchemy.update(versions).values(version_num="0000"))
        server = Server(at, tmp_path / "gunicorn.log")
        server.start(ready=False)
        assert server.process is not None
        try:
            assert server.process.wait(START_SECONDS) != 0
        finally:
            server.stop()
        log = server.log.read_text()
    assert "alembic upgrade head" in log
    assert ("0000" if found == "old" else "missing") in log
    # gunicorn itself prints where it halted when two workers fail at once; nothing of ours does.
    assert "/events_app/" not in log


# Columns.


@pytest.mark.parametrize(
    ("table", "contract"),
    [
        ("file_event_outbox", OUTBOX),
        ("file_event_journal", JOURNAL),
        ("file_event_state", STATE),
        ("file_event_subscription", SUBSCRIPTION),
        ("file_event_grant", GRANT),
    ],
)
def test_the_columns_are_those_that_are_promised(
    app: Connection, table: str, contract: dict[str, tuple[int | None, bool]]
) -> None:
    found = {
        column["name"]: (
            getattr(column["type"], "length", None)
            if "VARCHAR" in str(column["type"]).upper()
            else None,
            column["nullable"],
        )
        for column in inspect(app).get_columns(table)
    }
    assert found == contract


def test_the_keys_are_those_that_are_promised(app: Connection) -> None:
    look = inspect(app)
    keys = {table: look.get_pk_constraint(table)["constrained_columns"] for table in sorted(OURS)}
    assert keys == {
        "file_event_grant": ["share_id", "user_id"],
        "file_event_journal": ["position"],
        "file_event_outbox": ["id"],
        "file_event_state": ["id"],
        "file_event_subscription": ["user_id", "client_id", "folder_hash"],
    }
    unique = [
        index["column_names"]
        for table in OURS
        for index in look.get_indexes(table)
        if index["unique"]
    ]
    assert unique == [["user_id", "event_key"]]


def test_the_smallest_insert_works_as_it_is_printed(app: Connection) -> None:
    """The same text on every engine, and so it is in the documentation."""
    app.exec_driver_sql(SMALLEST)
    row = app.execute(select(outbox)).mappings().one()
    assert (row["fs"], row["is_folder"], row["to_path"], row["meta"]) == ("my", 0, None, None)
    assert SMALLEST in " ".join((ROOT / "README.md").read_text().split())


def test_ids_are_never_given_twice(app: Connection) -> None:
    """Not even of rows that are gone: on SQLite that needs AUTOINCREMENT."""
    seen = []
    for _ in range(3):
        rows.insert(app, "/a")
        seen.append(app.scalar(select(func.max(outbox.c.id))))
        app.execute(sqlalchemy.delete(outbox))
        app.commit()
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("number", [2**40, 2**62])
def test_positions_and_ids_are_64_bits_wide(app: Connection, number: int) -> None:
    rows.insert(app, "/a", id=number)
    assert app.scalar(select(outbox.c.id)) == number
    moment = {"created_at": utc_now(), "recorded_at": utc_now()}
    app.execute(insert(journal).values(kept.row(number, tag=2**32 - 1)).values(moment))
    assert app.execute(select(journal.c.position, journal.c.tag)).one() == (number, 2**32 - 1)


# What the tables refuse.

LONG = "/" + "a" * 4095
WIDE = "/" + "€" * 1365  # of three bytes each


@pytest.mark.parametrize(
    "columns",
    [
        {"type": "move"},
        {"type": "Create"},
        {"type": "create "},
        {"type": ""},
        {"type": "rename"},
        {"type": "rename", "to_path": ""},
        {"type": "create", "to_path": "/b"},
        {"type": "delete", "to_path": "/b"},
        {"from_path": LONG + "a"},
        {"from_path": WIDE + "€"},
        {"type": "rename", "to_path": LONG + "a"},
        {"is_folder": 2},
        {"is_folder": -1},
        {"is_folder": None},
        {"user_id": None},
        {"type": None},
        {"file_id": None},
        {"from_path": None},
        {"fs": None},
        {"created_at": None},
    ],
    ids=lambda columns: " ".join(f"{name}={str(value)[:9]}" for name, value in columns.items()),
)
def test_a_wrong_row_is_refused(app: Connection, columns: dict[str, Any]) -> None:
    path = columns.get("from_path", "/a")
    with pytest.raises(exc.DBAPIError):
        rows.insert(app, path, **({"file_id": "f"} | columns))


@pytest.mark.parametrize(
    "columns",
    [
        {"type": "create", "to_path": ""},
        {"type": "modify"},
        {"type": "delete", "is_folder": 1},
        {"type": "rename", "to_path": "/b"},
        {"from_path": LONG},
        {"from_path": WIDE},
        {"from_path": "relative, which the mover will say"},
        {"file_id": "f" * 128, "user_id": "u" * 64, "event_key": "k" * 128},
        {"meta": '{"size": 1}'},
    ],
    ids=lambda columns: " ".join(f"{name}={str(value)[:9]}" for name, value in columns.items()),
)
def test_a_right_row_is_taken(app: Connection, columns: dict[str, Any]) -> None:
    values = {"file_id": "f"} | columns
    rows.insert(app, values.pop("from_path", "/a"), **values)
    assert rows.waiting(app) == 1


@MARIADB
def test_mariadb_refuses_wrong_rows_also_without_its_strict_mode(app: Connection) -> None:
    """Many an old PHP app runs so; a path that is cut off would be another path."""
    app.execute(text("SET SESSION sql_mode = ''"))
    for columns in ({"from_path": LONG + "a"}, {"type": "move"}, {"is_folder": 2}):
        path = columns.get("from_path", "/a")
        with pytest.raises(exc.DBAPIError):
            rows.insert(app, str(path), **({"file_id": "f"} | columns))


def test_there_is_one_state_row_and_no_second(app: Connection) -> None:
    values = {"last_position": 0, "floor_position": 0, "epoch": 1, "updated_at": utc_now()}
    for number in (1, 2):
        with pytest.raises(exc.DBAPIError):
            app.execute(insert(schema.state).values(id=number, **values))
        app.rollback()


def test_a_fresh_journal_begins_at_nothing_in_an_epoch_of_its_own(empty_url: str) -> None:
    """The epoch is the time: a journal that was dropped and made anew repeats none."""
    made = configuration(empty_url)
    epochs = []
    for _ in range(2):
        before = int(time.time())
        command.upgrade(made, "head")
        with rows.app(empty_url).connect() as connection:
            found = connection.execute(select(schema.state)).one()
        assert (found.last_position, found.floor_position) == (0, 0)
        assert before <= found.epoch <= time.time()
        epochs.append(found.epoch)
        command.downgrade(made, "base")
    assert epochs == sorted(epochs)


# How text compares, and what time it is.

PAIRS = [("a", "A"), ("a", "a "), ("ä", "a"), ("ä", "a\u0308"), ("ß", "ss"), ("a", "a\u200b")]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_texts_compare_byte_by_byte(app: Connection, one: str, other: str) -> None:
    """In keys and in conditions; else two users, clients or paths become one."""
    moment = {"created_at": utc_now(), "recorded_at": utc_now()}
    for position, word in enumerate((one, other), start=1):
        values = kept.row(position, user_id=word, event_key=word, from_path="/" + word)
        app.execute(insert(journal).values(values).values(moment))
        standing = {"epoch": 1, "position": 1, "generation": 1, "state": "new"}
        key = {"user_id": word, "client_id": word, "folder_hash": word, "fs": word, "path": word}
        seen = {"created_at": utc_now(), "seen_at": utc_now()}
        app.execute(insert(subscription).values(**key, **standing, **seen))
    for column in (journal.c.user_id, journal.c.event_key):
        assert app.scalar(select(func.count()).where(column == one)) == 1
    assert app.scalar(select(func.count()).where(journal.c.from_path == f"/{one}")) == 1
    assert app.scalar(select(func.count()).where(subscription.c.path == one)) == 1


def test_texts_are_ordered_by_their_bytes(app: Connection) -> None:
    moment = {"created_at": utc_now(), "recorded_at": utc_now()}
    words = ["a", "B", "ä", "Z", "😀", "~"]
    for position, word in enumerate(words, start=1):
        values = kept.row(position, user_id=word, from_path="/" + word)
        app.execute(insert(journal).values(values).values(moment))
    by_bytes = sorted(words, key=str.encode)
    assert list(app.scalars(select(journal.c.user_id).order_by(journal.c.user_id))) == by_bytes


ELSEWHERE = {
    "sqlite": None,
    "postgresql": "SET TIME ZONE 'Asia/Tokyo'",
    "mysql": "SET time_zone = '+09:00'",
}


def test_the_default_time_is_utc_wherever_the_app_is(
    app: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        if statement := ELSEWHERE[app.dialect.name]:
            app.exec_driver_sql(statement)
        before = datetime.now(UTC)
        for number in range(5):
            rows.insert(app, f"/{number}")
        app.commit()
        after = datetime.now(UTC)
    finally:
        monkeypatch.undo()
        time.tzset()
    found = database.read(lambda db: list(db.scalars(select(outbox.c.created_at))))
    for each in found:
        assert abs((each - before).total_seconds()) < 2 + (after - before).total_seconds()
        assert each.utcoffset() is not None
    if app.dialect.name != "sqlite":  # whose clock says milliseconds
        assert any(each.microsecond % 1000 for each in found)


@POSTGRESQL
def test_postgresql_is_told_what_a_queue_needs(app: Connection) -> None:
    query = text("SELECT relname, reloptions FROM pg_class WHERE relname LIKE 'file_event%'")
    options = {row.relname: row.reloptions for row in app.execute(query)}
    assert "autovacuum_vacuum_scale_factor=0" in options["file_event_outbox"]
    assert "fillfactor=10" in options["file_event_state"]
    cache = "SELECT cache_size FROM pg_sequences WHERE sequencename LIKE 'file_event_outbox%'"
    assert app.scalar(text(cache)) == 1


@MARIADB
def test_mariadb_has_innodb_and_its_unpadded_binary_collation(app: Connection) -> None:
    engines = text(
        "SELECT DISTINCT engine FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type <> 'VIEW'"
    )
    assert list(app.scalars(engines)) == ["InnoDB"]
    collations = text(
        "SELECT DISTINCT collation_name FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name <> :version "
        "AND collation_name IS NOT NULL AND column_name <> 'meta'"
    )
    found = list(app.scalars(collations, {"version": schema.VERSION_TABLE}))
    assert found == ["utf8mb4_nopad_bin"]

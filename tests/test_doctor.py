"""Each line of the doctor: ok where it is good, else what to do about it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import Connection, column, delete, make_url, select, table, update

from events_app import doctor, outbox, schema, settings, sidecar
from events_app.app import create_app
from events_app.columns import utc_now
from events_app.doctor import Finding
from tests import databases, reused, tokens
from tests.conftest import missing
from tests.serving import free_port
from tests.writers import roles
from tests.writers.roles import Roles

LINES = ["settings", "database", "isolation", "schema", "role", "outbox", "driver"]
SERVERS = ("postgresql", "mariadb")


def examine(app: Flask) -> dict[str, Finding]:
    parts = sidecar.of(app)
    try:
        return {finding.what: finding for finding in doctor.examine(parts)}
    finally:
        parts.close()


def failing(found: dict[str, Finding]) -> dict[str, str]:
    """Return what is not good; each says it in one line."""
    says = {finding.what: finding.says for finding in found.values() if not finding.ok}
    assert all(line and "\n" not in line for line in says.values())
    return says


url = reused.on_sqlite


def test_a_good_installation_is_ok_in_every_line(
    request: pytest.FixtureRequest, engine: str
) -> None:
    found = examine(tokens.app(reused.url(request, engine)))
    assert list(found) == LINES
    assert failing(found) == {}
    assert found["schema"].says == f"version {schema.REVISION}; positions 1 to 0"


def test_looking_changes_nothing(request: pytest.FixtureRequest, engine: str) -> None:
    """Every right is tried, on no row, and rolled back."""
    address = reused.url(request, engine)
    parts = sidecar.of(tokens.app(address))
    parts.database.write(lambda db: outbox.append(db, "42", "create", "f", "/a"))
    parts.tailer.turn()
    parts.database.write(lambda db: outbox.append(db, "42", "modify", "f", "/a"))
    before = parts.database.read(contents)
    assert failing(examine(tokens.app(address))) == {}
    assert parts.database.read(contents) == before
    parts.close()


def contents(connection: Connection) -> list[object]:
    return [
        tuple(row)
        for table in schema.metadata.sorted_tables
        for row in connection.execute(table.select())
    ]


def test_a_missing_secret_is_said_and_the_rest_is_looked_at(url: str) -> None:
    found = examine(create_app(settings.load({"EVENTS_DATABASE_URL": url})))
    assert list(found) == LINES
    says = failing(found)
    assert list(says) == ["settings"]
    assert "EVENTS_JWT_SECRET is unset" in says["settings"]
    assert "make one with" in says["settings"]


def test_without_tables_the_schema_says_how_to_migrate(engine: str, empty_url: str) -> None:
    del engine
    found = examine(tokens.app(empty_url))
    assert "role" not in found, "there is nothing to try it on"
    assert list(failing(found)) == ["schema"]
    assert "alembic upgrade head" in found["schema"].says


def test_tables_that_are_too_old_say_how_to_migrate(sqlite_url: str) -> None:
    app = tokens.app(sqlite_url)
    versions = table(schema.VERSION_TABLE, column("version_num"))
    sidecar.of(app).database.write(lambda db: db.execute(update(versions).values(version_num="0")))
    assert "alembic upgrade head" in failing(examine(app))["schema"]


def test_a_lost_state_row_is_said(url: str) -> None:
    app = tokens.app(url)
    row = sidecar.of(app).database.read(lambda db: db.execute(schema.state.select()).one())
    sidecar.of(app).database.write(lambda db: db.execute(delete(schema.state)))
    try:
        assert "file_event_state" in failing(examine(app))["schema"]
    finally:
        again = sidecar.of(tokens.app(url)).database
        again.write(lambda db: db.execute(schema.state.insert().values(row._mapping)))
        again.close()


@pytest.mark.parametrize("family", ["postgresql", "mysql"])
def test_a_server_that_does_not_answer_is_said_and_nothing_else_is_tried(family: str) -> None:
    found = examine(tokens.app(f"{family}://nobody:hunter2@127.0.0.1:{free_port()}/events"))
    assert list(found) == ["settings", "database"]
    assert list(failing(found)) == ["database"]
    assert "hunter2" not in found["database"].says


def test_the_password_is_not_shown(request: pytest.FixtureRequest, engine: str) -> None:
    address = reused.url(request, engine)
    found = examine(tokens.app(address))
    assert found["database"].ok
    password = make_url(address).password
    assert not password or f":{password}@" not in found["database"].says


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"no database at all" * 100)
    assert list(failing(examine(tokens.app(f"sqlite:///{tmp_path / 'events.db'}")))) == ["database"]


def test_a_file_without_wal_says_what_to_do(tmp_path: Path) -> None:
    """As on a file system without shared memory, where SQLite leaves the mode as it is."""
    path = tmp_path / "events.db"
    databases.upgrade(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    found = examine(tokens.app(f"sqlite:///file:{path}?vfs=unix-none&uri=true"))
    assert list(failing(found)) == ["isolation"]
    assert "journal_mode = WAL" in found["isolation"].says


def test_an_outbox_that_nobody_empties_is_said(request: pytest.FixtureRequest, engine: str) -> None:
    app = tokens.app(reused.url(request, engine))
    database = sidecar.of(app).database
    database.write(lambda db: outbox.append(db, "42", "create", "f", "/a"))
    now = database.read(lambda db: db.execute(select(utc_now())).scalar_one())
    long_ago = now.replace(year=now.year - 1)
    database.write(lambda db: db.execute(update(schema.outbox).values(created_at=long_ago)))
    says = failing(examine(app))
    assert list(says) == ["outbox"]
    assert "is a worker running?" in says["outbox"]


def test_rows_that_have_just_come_are_ok(url: str) -> None:
    app = tokens.app(url)
    sidecar.of(app).database.write(lambda db: outbox.append(db, "42", "create", "f", "/a"))
    found = examine(app)
    assert failing(found) == {}
    assert found["outbox"].says == "rows wait to be moved"


# -- roles ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SERVERS)
def granted(request: pytest.FixtureRequest) -> Iterator[Roles]:
    """Give a database with the documented roles."""
    server = databases.server_address(request.param)
    if server is None:
        missing(f"the {request.param} server")
    with roles.prepared(str(server)) as made:
        yield made


def test_the_documented_role_may_do_all(granted: Roles) -> None:
    assert failing(examine(tokens.app(granted.address("sidecar")))) == {}


def test_the_apps_role_is_not_enough(granted: Roles) -> None:
    says = failing(examine(tokens.app(granted.address("app"))))
    assert list(says) == ["schema"]
    assert "denied" in says["schema"]


@pytest.mark.parametrize(
    ("right", "table"),
    [
        ("DELETE", "file_event_outbox"),
        ("UPDATE", "file_event_state"),
        ("INSERT", "file_event_journal"),
        ("DELETE", "file_event_journal"),
        ("UPDATE", "file_event_subscription"),
        ("DELETE", "file_event_subscription"),
        ("INSERT", "file_event_subscription"),
        ("SELECT", "file_event_grant"),
    ],
)
def test_a_right_that_is_missing_is_named(granted: Roles, right: str, table: str) -> None:
    name = granted.sidecar.username
    role = name if granted.sidecar.get_backend_name() == "postgresql" else f"'{name}'@'%%'"
    with granted.engine("admin").begin() as connection:
        connection.exec_driver_sql(f"REVOKE {right} ON {table} FROM {role}")
    try:
        says = failing(examine(tokens.app(granted.address("sidecar"))))
    finally:
        with granted.engine("admin").begin() as connection:
            connection.exec_driver_sql(f"GRANT {right} ON {table} TO {role}")
    assert list(says) == ["role"]
    assert right in says["role"]
    assert table in says["role"]
    assert "GRANT" in says["role"]


# -- the command ---------------------------------------------------------------------------------


def run(app: Flask) -> Result:
    return app.test_cli_runner().invoke(args=["events", "doctor"])


def test_the_command_prints_a_line_each_and_is_pleased(url: str) -> None:
    result = run(tokens.app(url))
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"ok    {what}" for what in LINES]


def test_one_bad_line_makes_the_command_fail(tmp_path: Path) -> None:
    result = run(tokens.app(f"sqlite:///{tmp_path / 'empty.db'}"))
    assert result.exit_code == 1
    assert [line for line in result.output.splitlines() if line.startswith("FAIL")] == [
        "FAIL  schema: the tables are missing; run: .venv/bin/alembic upgrade head"
    ]

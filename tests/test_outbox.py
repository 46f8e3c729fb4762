"""Appending for writers in Python, on every engine."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, exc, select

from events_app import outbox, schema
from events_app.database import Database
from tests import reused, rows, statements

url = reused.on_each_engine


@pytest.fixture
def app(url: str) -> Engine:
    """Give an app's own engine, which knows nothing of ours."""
    return rows.app(url)


def only_row(connection: Connection) -> Any:
    return connection.execute(select(schema.outbox)).mappings().one()


def test_a_change_is_appended_with_the_tables_defaults(app: Engine, database: Database) -> None:
    with app.begin() as connection:
        outbox.append(connection, "42", "create", "f9", "/docs/plän.md")
    row = dict(database.read(only_row))
    assert isinstance(row.pop("id"), int)
    assert row.pop("created_at").tzinfo is not None
    assert row == {
        "user_id": "42",
        "type": "create",
        "file_id": "f9",
        "fs": "my",
        "from_path": "/docs/plän.md",
        "to_path": None,
        "is_folder": 0,
        "client_id": None,
        "actor_id": None,
        "event_key": None,
        "meta": None,
    }


def test_every_column_may_be_given(app: Engine, database: Database) -> None:
    given = {
        "fs": "share",
        "is_folder": 1,
        "client_id": "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f",
        "actor_id": "43",
        "event_key": "k",
    }
    with app.begin() as connection:
        outbox.append(connection, "42", "rename", "f9", "/a", "/b", **given)
    row = database.read(only_row)
    assert {name: row[name] for name in given} == given
    assert (row["type"], row["from_path"], row["to_path"]) == ("rename", "/a", "/b")


def test_a_change_is_part_of_the_callers_transaction(app: Engine, database: Database) -> None:
    with app.connect() as connection:
        outbox.append(connection, "42", "create", "f9", "/a")
        connection.rollback()
        assert database.read(rows.waiting) == 0
        outbox.append(connection, "42", "create", "f9", "/b")
        connection.commit()
    assert database.read(only_row)["from_path"] == "/b"


def test_what_the_table_refuses_is_raised_to_the_caller(app: Engine, database: Database) -> None:
    with app.connect() as connection:
        with pytest.raises(exc.DBAPIError):
            outbox.append(connection, "42", "move", "f9", "/a")
        connection.rollback()
        with pytest.raises(exc.DBAPIError):
            outbox.append(connection, "42", "rename", "f9", "/a")
    assert database.read(rows.waiting) == 0


def test_a_column_that_is_none_is_refused(app: Engine, database: Database) -> None:
    """A misspelt `client_id` that went unnoticed would have clients hear themselves."""
    with app.connect() as connection, pytest.raises(exc.CompileError, match="client"):
        outbox.append(connection, "42", "create", "f9", "/a", client="me")
    assert database.read(rows.waiting) == 0


def test_the_right_to_insert_is_all_it_needs(app: Engine) -> None:
    """The new id is not fetched: an app's role may not read the outbox."""
    seen = statements.watch(app)
    with app.begin() as connection:
        outbox.append(connection, "42", "create", "f9", "/a")
    (written,) = [one for one in seen if one.startswith("INSERT")]
    assert "RETURNING" not in written

"""The roles of docs/how-to/grants.md may do what they need, and no more.

That the sidecar's rights suffice for all its work is shown in test_examples.py.
"""

import pytest
import sqlalchemy
from sqlalchemy import exc

from tests.writers import roles

OURS = (
    "file_event_outbox",
    "file_event_journal",
    "file_event_state",
    "file_event_subscription",
    "file_event_schema_version",
)

ROW = (
    "INSERT INTO file_event_outbox (user_id, type, file_id, from_path) "
    "VALUES ('grants', 'create', 'f', '/f')"
)

FORBIDDEN = {
    "app": (
        *(f"SELECT * FROM {table}" for table in OURS),  # noqa: S608 -- our own names
        *(f"DELETE FROM {table}" for table in OURS),  # noqa: S608 -- our own names
        *(f"DROP TABLE {table}" for table in OURS),
        "UPDATE file_event_outbox SET user_id = 'x'",
        f"{ROW} RETURNING id",
        "INSERT INTO file_event_journal SELECT * FROM file_event_journal",
        "UPDATE file_event_state SET last_position = 0",
    ),
    "sidecar": (
        "SELECT * FROM files",
        "DELETE FROM files",
        ROW,
        "UPDATE file_event_outbox SET user_id = 'x'",
        "UPDATE file_event_journal SET user_id = 'x'",
        "INSERT INTO file_event_state SELECT * FROM file_event_state",
        "DELETE FROM file_event_state",
        "UPDATE file_event_schema_version SET version_num = 'x'",
        "DELETE FROM file_event_schema_version",
        *(f"DROP TABLE {table}" for table in OURS),
        "CREATE TABLE mine (id integer)",
    ),
    "migration": (
        "SELECT * FROM files",
        "INSERT INTO files (id, owner_id, path) VALUES ('x', 'x', '/x')",
        "DROP TABLE files",
        "ALTER TABLE files ADD COLUMN x integer",
    ),
}

CASES = [(role, statement) for role, statements in FORBIDDEN.items() for statement in statements]


@pytest.mark.parametrize(("role", "statement"), CASES)
def test_no_role_may_do_more_than_it_needs(
    database: roles.Roles, role: str, statement: str
) -> None:
    """The database refuses each of these for want of a right, not for another reason."""
    with database.engine(role).connect() as connection:
        with pytest.raises(exc.DBAPIError) as refused:
            connection.exec_driver_sql(statement)
        assert any(word in str(refused.value.orig) for word in ("denied", "must be owner"))


def test_the_app_may_insert_a_change(database: roles.Roles) -> None:
    """INSERT on the outbox is all it has of ours, and enough."""
    with database.engine("app").connect() as connection:
        connection.exec_driver_sql(ROW)
        connection.rollback()


def test_the_migrating_role_owns_what_it_needs_to_change_the_tables_again(
    database: roles.Roles,
) -> None:
    """Its rights reach for later migrations too: a column comes and goes."""
    with database.engine("migration").connect() as connection:
        for statement in (
            "ALTER TABLE file_event_journal ADD COLUMN later integer",
            "CREATE INDEX later ON file_event_journal (later)",
            "ALTER TABLE file_event_journal DROP COLUMN later",
        ):
            connection.exec_driver_sql(statement)
        connection.commit()
        columns = sqlalchemy.inspect(connection).get_columns("file_event_journal")
    assert "later" not in {column["name"] for column in columns}

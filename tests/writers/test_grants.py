"""The roles of docs/how-to/grants.md may do what they need, and no more.

That the sidecar's rights suffice for all its work is shown in test_examples.py.
"""

import subprocess
import sys

import pytest
import sqlalchemy
from sqlalchemy import exc

from events_app import errors, outbox, sequencer, settings, upkeep
from events_app.clock import SystemClock
from events_app.database import Database
from events_app.tailer import Tailer
from events_app.tally import Tally
from events_app.writing import Writing
from tests import databases, serving
from tests.writers import roles

OURS = (
    "file_event_outbox",
    "file_event_journal",
    "file_event_state",
    "file_event_subscription",
    "file_event_schema_version",
)

VIEWS = ("file_event_audit", "file_event_audit_by_path", "file_event_audit_by_actor")

ROW = (
    "INSERT INTO file_event_outbox (user_id, type, file_id, from_path) "
    "VALUES ('grants', 'create', 'f', '/f')"
)

FORBIDDEN = {
    "app": (
        *(f"SELECT * FROM {table}" for table in OURS),  # noqa: S608 -- our own names
        *(f"DELETE FROM {table}" for table in OURS),  # noqa: S608 -- our own names
        *(f"DROP TABLE {table}" for table in OURS),
        "DROP TABLE file_event_grant",
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
        "INSERT INTO file_event_grant SELECT * FROM file_event_grant",
        "DELETE FROM file_event_grant",
        *(f"DROP TABLE {table}" for table in OURS),
        *(f"DROP VIEW {view}" for view in VIEWS),
        "CREATE TABLE mine (id integer)",
    ),
    "auditor": (
        "SELECT * FROM files",
        "SELECT * FROM file_event_outbox",
        "SELECT * FROM file_event_subscription",
        ROW,
        "DELETE FROM file_event_journal",
        "UPDATE file_event_journal SET user_id = 'x'",
        "DELETE FROM file_event_audit",
        "UPDATE file_event_audit SET user_id = 'x'",
        "UPDATE file_event_state SET last_position = 0",
        "DROP VIEW file_event_audit",
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
def test_no_role_may_do_more_than_it_needs(granted: roles.Roles, role: str, statement: str) -> None:
    """The database refuses each of these for want of a right, not for another reason."""
    with granted.engine(role).connect() as connection:
        with pytest.raises(exc.DBAPIError) as refused:
            connection.exec_driver_sql(statement)
        assert any(word in str(refused.value.orig) for word in ("denied", "must be owner"))


def test_the_app_may_grant_and_revoke(granted: roles.Roles) -> None:
    with granted.engine("app").connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO file_event_grant (share_id, user_id, owner_id, path, is_folder)"
            " VALUES ('s1', '43', '42', '/docs', 1)"
        )
        connection.exec_driver_sql("DELETE FROM file_event_grant WHERE share_id = 's1'")
        connection.rollback()


def test_the_app_may_insert_a_change(granted: roles.Roles) -> None:
    """INSERT on the outbox is all it has of the tables that changes go through, and enough."""
    with granted.engine("app").connect() as connection:
        connection.exec_driver_sql(ROW)
        connection.rollback()


def test_the_migrating_role_owns_what_it_needs_to_change_the_tables_again(
    granted: roles.Roles,
) -> None:
    """Its rights reach for later migrations too: a column comes and goes."""
    with granted.engine("migration").connect() as connection:
        for statement in (
            "ALTER TABLE file_event_journal ADD COLUMN later integer",
            "CREATE INDEX later ON file_event_journal (later)",
            "ALTER TABLE file_event_journal DROP COLUMN later",
        ):
            connection.exec_driver_sql(statement)
        connection.commit()
        columns = sqlalchemy.inspect(connection).get_columns("file_event_journal")
    assert "later" not in {column["name"] for column in columns}


def test_the_auditor_may_read_what_happened(granted: roles.Roles) -> None:
    """The journal and every view over it."""
    with granted.engine("auditor").connect() as connection:
        for table in ("file_event_journal", *VIEWS):
            connection.exec_driver_sql(f"SELECT * FROM {table}")  # noqa: S608 -- our own names


def doctor(url: str) -> subprocess.CompletedProcess[str]:
    """Run `flask events doctor` on the database at `url`."""
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "events", "doctor"],
        cwd=databases.ROOT,
        env=databases.plain_environment()
        | {"EVENTS_DATABASE_URL": url, "EVENTS_JWT_SECRET": "s" * 48},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_doctor_finds_nothing_amiss_with_the_sidecars_role(granted: roles.Roles) -> None:
    """Every line is good, the one about rights too."""
    found = doctor(granted.address("sidecar"))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "ok    role: it may do all that the sidecar does" in found.stdout
    assert "FAIL" not in found.stdout


def test_the_doctor_says_what_the_apps_role_lacks_to_be_the_sidecars(granted: roles.Roles) -> None:
    """Whoever gives the sidecar the wrong address gets a word about rights, not a traceback."""
    found = doctor(granted.address("app"))
    assert found.returncode == 1
    assert "denied" in found.stdout
    assert "Traceback" not in found.stderr


def test_the_sidecars_role_may_prune_and_expire(granted: roles.Roles) -> None:
    """DELETE on the journal and on the subscriptions is for this, which runs only now and then."""
    with granted.engine("app").begin() as connection:
        connection.exec_driver_sql(ROW)
    at_once = settings.load({"EVENTS_RETENTION": "0.001", "EVENTS_OFFLINE_MAX_AGE": "0.001"})
    database = Database(granted.address("sidecar"))

    def nothing_kept() -> bool:
        sequencer.Mover(database).step()
        upkeep.once(database, at_once, Tally())
        with granted.engine("sidecar").connect() as connection:
            counts = "(SELECT COUNT(*) FROM file_event_outbox)"
            counts += " + (SELECT COUNT(*) FROM file_event_journal)"
            return bool(connection.exec_driver_sql(f"SELECT {counts}").scalar_one() == 0)

    try:
        serving.eventually(nothing_kept)
    finally:
        database.close()


def test_appending_by_http_takes_the_grant_that_the_page_shows_for_it(
    granted: roles.Roles,
) -> None:
    """Without it whoever appends is told what is missing, and that coming back is no use."""
    database = Database(granted.address("sidecar"))
    tailer = Tailer(database, SystemClock(), 0.25)
    change = dict.fromkeys(outbox.COLUMNS) | {
        "user_id": "grants",
        "type": "create",
        "file_id": "f",
        "fs": "my",
        "from_path": "/f",
        "is_folder": 0,
    }
    with pytest.raises(errors.Unforeseen, match="may not INSERT into file_event_outbox"):
        Writing(database, tailer, SystemClock()).append([change])
    database.close()

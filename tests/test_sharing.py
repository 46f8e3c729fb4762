"""Which folders of other users somebody may watch, on every engine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text

from events_app import scope, sharing, uri
from events_app.columns import utc_now
from events_app.database import Database
from events_app.schema import grant
from events_app.uri import Folder
from tests import reused

DOCS = {"share_id": "s1", "user_id": "43", "owner_id": "42", "path": "/docs", "is_folder": 1}
ENDLESS_PAST = {
    "sqlite": "UPDATE file_event_grant SET expires_at = 'soon'",
    "postgresql": "UPDATE file_event_grant SET expires_at = '-infinity'",
    "mariadb": "UPDATE file_event_grant SET expires_at = '0999-01-01 00:00:00'",
}
VIEW = """
CREATE VIEW file_event_grant AS SELECT id AS share_id, CAST(guest AS {text}) AS user_id,
CAST(host AS {text}) AS owner_id, 'my' AS fs, '/docs' AS path, 1 AS is_folder,
CAST(NULL AS {time}) AS expires_at FROM app_share
"""
TYPES = {
    "sqlite": {"text": "text", "time": "text"},
    "postgresql": {"text": "varchar", "time": "timestamptz"},
    "mariadb": {"text": "char(64)", "time": "datetime(6)"},
}


@pytest.fixture
def url(request: pytest.FixtureRequest, engine: str) -> str:
    return reused.url(request, engine)


def watcher(share_id: str = "s1", path: str = "/", user_id: str = "43") -> scope.Watcher:
    return scope.Watcher.through(user_id, None, uri.Share(share_id, path))


def put(database: Database, **columns: Any) -> None:
    database.write(lambda db: db.execute(insert(grant).values(DOCS | columns)))


def run(database: Database, statement: str) -> None:
    database.write(lambda db: db.execute(text(statement)))


def watched(database: Database, who: scope.Watcher) -> Folder | None:
    found = database.read(lambda db: sharing.resolve(db, who))
    return None if found is None else found.folder


@pytest.mark.parametrize(
    ("shared", "below", "path"),
    [
        ("/docs", "/", "/docs"),
        ("/docs", "/a/b", "/docs/a/b"),
        ("/", "/", "/"),
        ("/", "/a", "/a"),
        ("/docs/", "/a", "/docs/a"),
        ("//docs/./x", "/a", "/docs/x/a"),
    ],
)
def test_a_share_is_mounted_at_its_folder(
    database: Database, shared: str, below: str, path: str
) -> None:
    put(database, path=shared)
    assert watched(database, watcher(path=below)) == Folder("my", path, "42")


def test_the_watcher_stays_who_it_is_and_watches_the_owners_changes(database: Database) -> None:
    put(database)
    found = database.read(lambda db: sharing.resolve(db, watcher(path="/a")))
    assert found is not None
    assert (found.user_id, found.owner_id, found.is_resolved) == ("43", "42", True)
    assert found.named == watcher(path="/a").folder == Folder("share", "/s1/a")
    assert not watcher().is_resolved


@pytest.mark.parametrize(
    "columns",
    [
        {"user_id": "44"},
        {"share_id": "S1"},
        {"share_id": "s1 "},
        {"is_folder": 0},
        {"owner_id": ""},
        {"path": "docs"},
        {"path": ""},
        {"path": "/docs/.."},
        {"fs": ""},
    ],
    ids=str,
)
def test_what_is_not_granted_exactly_is_not_granted(
    database: Database, columns: dict[str, Any]
) -> None:
    put(database, **columns)
    assert watched(database, watcher()) is None


@pytest.mark.parametrize(("seconds", "is_there"), [(-1, False), (3_600, True)])
def test_a_grant_ends_by_the_databases_clock(
    database: Database, seconds: float, *, is_there: bool
) -> None:
    now = database.read(lambda db: db.scalar(select(utc_now())))
    assert now is not None
    put(database, expires_at=now + timedelta(seconds=seconds))
    assert (watched(database, watcher()) is not None) == is_there


def test_an_end_that_cannot_be_read_has_come(database: Database, engine: str) -> None:
    put(database)
    run(database, ENDLESS_PAST[engine])
    assert watched(database, watcher()) is None


def test_many_are_looked_up_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "KEYS_AT_ONCE", 2)
    for number in range(0, 5, 2):
        put(database, share_id=f"s{number}", path=f"/{number}")
    all_of_them = [watcher(f"s{number}") for number in range(5)] + [watcher("s0", "/a")]
    found = database.read(lambda db: sharing.resolve_all(db, all_of_them))
    paths = [each.folder.path if each else None for each in map(found.__getitem__, all_of_them)]
    assert paths == ["/0", None, "/2", None, "/4", "/0/a"]


def test_the_app_may_put_a_view_in_its_place(empty_url: str, engine: str) -> None:
    """Over its own shares, with its own types; what compares loosely there permits nothing more."""
    database = Database(empty_url)
    run(database, "CREATE TABLE app_share (id varchar(20), guest integer, host integer)")
    run(database, "INSERT INTO app_share VALUES ('s1', 43, 42), ('S1', 43, 41)")
    run(database, VIEW.format_map(TYPES[engine]))
    assert watched(database, watcher()) == Folder("my", "/docs", "42")
    assert watched(database, watcher("S1")) == Folder("my", "/docs", "41")
    run(database, "DELETE FROM app_share WHERE host = 42")
    assert watched(database, watcher()) is None
    database.close()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("column", ["owner_id", "fs", "path"])
@pytest.mark.parametrize(
    "value", ["NULL", "7", "x'2f61'", "CAST(x'2fff' AS TEXT)", "'/a' || x'00'"]
)
def test_what_no_column_should_hold_permits_nothing_and_ends_nothing_else(
    empty_url: str, column: str, value: str
) -> None:
    """One bad row of a view must not keep the others from being looked up."""
    database = Database(empty_url)
    values = {"owner_id": "'42'", "fs": "'my'", "path": "'/docs'"}
    good, bad = (
        ", ".join(f"{text} AS {name}" for name, text in (values | changed).items())
        for changed in ({}, {column: value})
    )
    run(
        database,
        "CREATE VIEW file_event_grant AS "
        f"SELECT 's1' AS share_id, '43' AS user_id, 1 AS is_folder, NULL AS expires_at, {good} "
        f"UNION ALL SELECT 's2', '43', 1, NULL, {bad}",
    )
    guests = [watcher(), watcher("s2")]
    found = database.read(lambda db: sharing.resolve_all(db, guests))
    assert found[guests[0]] is not None
    assert found[guests[1]] is None
    database.close()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("value", ["'0'", "'1'", "x'00'", "2", "NULL"])
def test_a_folder_is_1_and_nothing_else(empty_url: str, value: str) -> None:
    """A driver may hand a bit or a text on, of which 0 is as true as 1."""
    database = Database(empty_url)
    run(
        database,
        "CREATE VIEW file_event_grant AS SELECT 's1' AS share_id, '43' AS user_id, "
        f"'42' AS owner_id, 'my' AS fs, '/docs' AS path, {value} AS is_folder, NULL AS expires_at",
    )
    assert watched(database, watcher()) is None
    database.close()


def test_what_is_deleted_is_not_granted(database: Database) -> None:
    put(database)
    assert watched(database, watcher()) is not None
    database.write(lambda db: db.execute(delete(grant)))
    assert watched(database, watcher()) is None


def test_a_watcher_of_its_own_folder_has_no_grant_to_look_up(database: Database) -> None:
    own = scope.Watcher.of("42", None, Folder("my", "/"))
    with pytest.raises(ValueError, match="its own folder"):
        database.read(lambda db: sharing.resolve(db, own))

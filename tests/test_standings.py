"""Who is behind, as an operator asks; on every engine."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import update

from events_app import journal, scope, standings
from events_app.database import Database
from events_app.schema import FRESH, LIVE, NEW, subscription
from tests import kept, reused
from tests.subscribed import (
    CLIENT,
    connect,
    is_of,
    live_at,
    prune_upto_6,
    raise_epoch,
    stored,
    watcher,
)

url = reused.on_each_engine


def standing(database: Database, path: str = "/") -> standings.Standing:
    found = database.read(standings.read)
    return next(each for each in found if each.path == path)


def standing_at(database: Database, position: int, who: scope.Watcher) -> None:
    """Have the client's stored cursor at `position`, wherever that is."""
    live_at(database, database.read(journal.head).last_position, who)
    change = update(subscription).where(is_of(who))
    database.write(lambda db: db.execute(change.values(position=position)))


def recorded_at(database: Database, position: int) -> datetime:
    return database.read(lambda db: journal.after(db, position - 1, position))[0].recorded_at


def test_the_furthest_behind_come_first_with_the_time_of_what_they_lack(
    database: Database,
) -> None:
    kept.keep_run(database, 1, 3)
    kept.keep_run(database, 4, 9)
    for position, path in ((7, "/near"), (3, "/far"), (9, "/there")):
        standing_at(database, position, watcher(path))
    connect(database, watcher("/just came", user="43"))
    found = database.read(standings.read)
    assert [(each.path, each.behind, each.state) for each in found] == [
        ("/far", 6, LIVE),
        ("/near", 2, LIVE),
        ("/there", 0, LIVE),
        ("/just came", 0, NEW),
    ]
    assert [each.since for each in found] == [
        recorded_at(database, 4),
        recorded_at(database, 8),
        None,
        None,
    ]
    row = stored(database, watcher("/far"))
    assert found[0] == standings.Standing(
        "42", CLIENT, "my", "/far", LIVE, 6, recorded_at(database, 4), row.seen_at
    )


def test_only_one_users_and_only_those_so_far_behind(database: Database) -> None:
    kept.keep_run(database, 1, 9)
    for position, user in enumerate(("42", "42", "43"), start=5):
        standing_at(database, position, watcher(f"/{position}", user=user))

    def listed(user: str | None, behind: int) -> list[str]:
        found = database.read(lambda db: standings.read(db, user, behind))
        return [each.path for each in found]

    assert listed(None, 0) == ["/5", "/6", "/7"]
    assert listed("42", 0) == ["/5", "/6"]
    assert listed(None, 3) == ["/5", "/6"]
    assert listed("43", 3) == []
    assert listed("4", 0) == []


@pytest.mark.parametrize("position", [2, 12], ids=["pruned", "beyond the end"])
def test_whose_past_is_gone_is_first_and_will_start_afresh(
    database: Database, position: int
) -> None:
    kept.keep_run(database, 1, 9)
    live_at(database, 9, watcher("/there"))
    prune_upto_6(database)
    standing_at(database, position, watcher("/gone"))
    found = database.read(lambda db: standings.read(db, None, 1_000))
    assert [(each.path, each.state, each.behind, each.since) for each in found] == [
        ("/gone", FRESH, None, None)
    ]


def test_in_another_epoch_everybody_will_start_afresh(database: Database) -> None:
    kept.keep_run(database, 1, 9)
    standing_at(database, 5, watcher())
    raise_epoch(database)
    assert (standing(database).state, standing(database).behind) == (FRESH, None)

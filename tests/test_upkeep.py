"""What workers clear away now and then."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import gevent
import pytest
from sqlalchemy import func, select, update

from events_app import expiry, journal, schema, scope, settings, subscriptions, upkeep, uri
from events_app.database import Database
from events_app.settings import Settings
from events_app.tally import Tally
from tests import kept, reused, rows

ROWS = 5

url = reused.on_each_engine


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make batches small and pauses none."""
    monkeypatch.setattr(upkeep, "BATCH_PAUSE_SECONDS", 0)
    monkeypatch.setattr(upkeep, "EVERY_SECONDS", 0)
    monkeypatch.setattr(journal, "PRUNE_ROWS", 2)
    monkeypatch.setattr(expiry, "EXPIRE_ROWS", 2)


def configured(**seconds: str) -> Settings:
    names = {f"EVENTS_{name.upper()}": value for name, value in seconds.items()}
    return settings.load(names)


@pytest.fixture
def aged(database: Database) -> Database:
    """Give five journal rows and five subscriptions, all of an hour ago."""
    kept.keep_run(database, 1, ROWS)
    limits = subscriptions.Limits(100, 100)
    for number in range(ROWS):
        folder = uri.Folder("my", f"/{number}")
        who = scope.Watcher.of("42", "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f", folder)
        subscriptions.connect(database, who, None, limits)
    ago = database.read(journal.head).now - timedelta(hours=1)

    def age(connection: Any) -> None:
        connection.execute(update(schema.journal).values(recorded_at=ago))
        connection.execute(update(schema.subscription).values(seen_at=ago))

    database.write(age)
    return database


def left(database: Database) -> tuple[int, int]:
    """Count journal rows and subscriptions."""
    count = select(func.count()).select_from(schema.subscription)
    return len(database.read(rows.positions)), database.read(lambda db: db.scalar(count)) or 0


def test_everything_that_is_due_goes_batch_by_batch(
    aged: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        upkeep.once(aged, configured(retention="60", offline_max_age="60"), Tally())
    assert left(aged) == (0, 0)
    assert aged.read(journal.head)[:2] == (ROWS, ROWS)
    messages = [record.message for record in caplog.records]
    assert messages == ["journal rows pruned: 5", "subscriptions forgotten: 5"]


def test_nothing_goes_before_its_time(aged: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        upkeep.once(aged, configured(retention="7200", offline_max_age="7200"), Tally())
    assert left(aged) == (ROWS, ROWS)
    assert caplog.records == []


def test_without_a_retention_the_journal_is_kept_for_ever(aged: Database) -> None:
    upkeep.once(aged, configured(offline_max_age="60"), Tally())
    assert left(aged) == (ROWS, 0)


def test_rounds_that_fail_are_put_off_to_the_next_and_that_is_said_once(
    aged: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    once = upkeep.once
    rounds: list[str] = []

    def fail_twice(*arguments: Any) -> None:
        rounds.append("begun")
        if len(rounds) <= 2:
            raise ConnectionError("away")
        if len(rounds) == 4:
            raise gevent.GreenletExit
        once(*arguments)

    monkeypatch.setattr(upkeep, "once", fail_twice)
    due = configured(retention="60", offline_max_age="60")
    running = gevent.spawn(upkeep.run, aged, due, Tally())
    running.join(timeout=20)
    assert isinstance(running.value, gevent.GreenletExit)
    assert len(rounds) == 4
    assert left(aged) == (0, 0)
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        "upkeep is put off: away",
        "upkeep goes on",
    ]

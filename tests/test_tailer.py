"""The tailer with a clock that the test owns, on every engine."""

from __future__ import annotations

import functools
import gc
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from gevent.event import Event
from sqlalchemy import delete, func, select, text, update

from events_app import errors, journal, schema, sequencer, tailer
from events_app.clock import Bell
from events_app.database import Database
from events_app.event import Point
from events_app.schema import outbox, state
from events_app.sequencer import Step
from events_app.tailer import Tailer
from events_app.window import WINDOW_ROWS, Window
from tests import kept, reused, rows
from tests.manual_clock import ManualClock
from tests.serving import free_port

POLL_SECONDS = 0.25

url = reused.on_each_engine


class Stop(BaseException):
    """Ends a tailer that would run for ever."""


class CountingClock(ManualClock):
    """Notes how long each wait was meant to be, and ends after so many."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self._most = waits

    def wait(self, bell: Bell, timeout: float) -> None:
        self.pauses.append(timeout)
        if len(self.pauses) == self._most:
            raise Stop
        super().wait(bell, timeout)


def make(database: Database, clock: ManualClock | None = None) -> Tailer:
    return Tailer(database, clock or ManualClock(), POLL_SECONDS)


def started(database: Database, clock: ManualClock | None = None) -> Tailer:
    made = make(database, clock)
    made._next_pause(POLL_SECONDS)
    assert made.trouble is None
    return made


def positions(follower: Tailer, position: int = 0, user: str = "42") -> list[int] | None:
    found = follower.rows_after(user, position)
    return None if found is None else [row.position for row in found]


def epoch(database: Database) -> int:
    return database.read(journal.head).epoch


def run(follower: Tailer, clock: CountingClock) -> list[float]:
    with pytest.raises(Stop):
        follower.run()
    return clock.pauses


# Following.


def test_it_begins_at_the_end(database: Database) -> None:
    """What came before is for SQL: a worker does not read the whole journal when it starts."""
    kept.keep_run(database, 1, 5)
    follower = make(database)
    assert follower.why_not_ready() == "the journal has not been read yet"
    follower.turn()
    assert follower.why_not_ready() is None
    assert follower.epoch == reused.EPOCH
    assert follower.end == Point(5, kept.tag_of(5))
    assert positions(follower, 5) == []
    assert positions(follower, 4) is None


def test_a_turn_moves_what_waits_and_reads_it(database: Database, url: str) -> None:
    follower = started(database)
    rows.commit(url, "/a", "/b")
    rows.commit(url, "/c", user_id="43")
    rows.commit(url, "no slash")
    assert follower.turn()
    assert (follower.moved_rows, follower.rejected_rows) == (4, 1)
    assert positions(follower) == [1, 2, 4]
    assert positions(follower, 1) == [2, 4]
    assert positions(follower, user="43") == [3]
    assert positions(follower, user="44") == []
    assert not follower.turn()


def test_it_reads_what_another_worker_moved(database: Database, url: str) -> None:
    follower, other = started(database), started(database)
    rows.commit(url, "/a", "/b")
    other.turn()
    assert follower.turn()
    assert (follower.moved_rows, positions(follower)) == (0, [1, 2])


def test_it_reads_on_while_another_worker_is_at_the_mover(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = started(database)
    kept.keep_run(database, 1, 2)
    rows.commit(url, "/waits")
    monkeypatch.setattr(follower._mover, "step", lambda: None)
    assert follower.turn()
    assert positions(follower) == [1, 2]


def test_rows_ring_the_bells_of_their_users_only(database: Database, url: str) -> None:
    follower = started(database)
    mine, mine_too, other = Event(), Event(), Event()
    follower.add_bell("42", mine)
    follower.add_bell("42", mine_too)
    follower.add_bell("43", other)
    rows.commit(url, "/a")
    follower.turn()
    assert (mine.is_set(), mine_too.is_set(), other.is_set()) == (True, True, False)


def test_a_bell_that_was_removed_is_forgotten_with_its_user(database: Database, url: str) -> None:
    follower = started(database)
    bells = [Event(), Event()]
    for bell in bells:
        follower.add_bell("42", bell)
    follower.remove_bell("42", bells[0])
    rows.commit(url, "/a")
    follower.turn()
    assert [bell.is_set() for bell in bells] == [False, True]
    follower.remove_bell("42", bells[1])
    assert not follower._bells


def test_many_bells_are_rung_with_room_for_others_between(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle: list[int] = []
    follower = started(database)
    bells = [Event() for _ in range(2 * tailer.BELLS_IN_PASS)]
    for bell in bells:
        follower.add_bell("42", bell)
    monkeypatch.setattr("gevent.idle", lambda *_: idle.append(sum(bell.is_set() for bell in bells)))
    rows.commit(url, "/a")
    follower.turn()
    rung, all_rung = tailer.BELLS_IN_PASS, 2 * tailer.BELLS_IN_PASS
    assert idle == [rung, all_rung, all_rung]  # the last time between this page and the next


def test_pages_are_read_until_the_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = started(database)
    monkeypatch.setattr(journal, "PAGE_ROWS", 2)
    kept.keep_run(database, 1, 5)
    follower.turn()
    assert positions(follower) == [1, 2, 3, 4, 5]


def test_the_window_keeps_the_newest_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailer, "Window", functools.partial(Window, rows=3))
    follower = started(database)
    kept.keep_run(database, 1, 5)
    follower.turn()
    assert positions(follower, 2) == [3, 4, 5]
    assert positions(follower, 1) is None
    kept.keep_run(database, 6, 6)
    follower.turn()
    assert positions(follower, 3) == [4, 5, 6]
    assert positions(follower, 2) is None


def test_a_rows_age_is_told_by_the_databases_clock_and_goes_on_between_turns(
    database: Database,
) -> None:
    clock = ManualClock()
    follower = started(database, clock)
    kept.keep_run(database, 1, 1)
    follower.turn()
    (row,) = follower.rows_after("42", 0) or []
    assert 0 <= follower.age_seconds(row) < 5
    before = follower.age_seconds(row)
    clock.now += 100
    assert follower.age_seconds(row) == pytest.approx(before + 100)
    later = row.recorded_at.replace(year=row.recorded_at.year + 1)
    assert follower.age_seconds(row._replace(recorded_at=later)) == 0


# Holes.


def test_nothing_is_read_past_a_hole_and_it_goes_on_when_it_is_filled(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    follower = started(database)
    bell = Event()
    follower.add_bell("42", bell)
    kept.keep(database, [kept.row(position) for position in (1, 2, 4, 5)])
    with caplog.at_level(logging.WARNING):
        assert [follower._next_pause(0.01) for _ in range(3)] == [tailer.RETRY_SECONDS] * 3
    assert positions(follower) == [1, 2]
    assert bell.is_set()
    assert "position 3 is missing from the journal, which ends at 5" in str(follower.trouble)
    assert follower.why_not_ready() == follower.trouble
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    kept.keep(database, [kept.row(3)], last=5)
    with caplog.at_level(logging.WARNING):
        follower._next_pause(0.01)
    assert positions(follower) == [1, 2, 3, 4, 5]
    assert follower.why_not_ready() is None
    assert "can be followed again" in caplog.records[-1].message


@pytest.mark.parametrize("found", [[], [2], [2, 3]])
def test_a_hole_at_the_first_or_last_position_is_a_hole(
    database: Database, found: list[int]
) -> None:
    follower = started(database)
    last = 2 if 3 not in found else 4
    kept.keep(database, [kept.row(position) for position in found], last=last)
    with pytest.raises(errors.HoleInJournal):
        follower.turn()
    assert positions(follower) == []


def prune_to(database: Database, floor: int) -> None:
    def work(connection: Any) -> None:
        connection.execute(delete(schema.journal).where(schema.journal.c.position <= floor))
        connection.execute(update(state).values(floor_position=floor))

    database.write(work)


@pytest.mark.parametrize("floor", [2, 3, 5])
def test_what_is_pruned_while_it_is_read_is_no_hole(
    database: Database, monkeypatch: pytest.MonkeyPatch, floor: int
) -> None:
    """Between the look at the head and the read of the page."""
    follower = started(database)
    kept.keep_run(database, 1, 5)
    read_page = follower._read_page

    def prune_first(upto: int) -> None:
        monkeypatch.undo()
        prune_to(database, floor)
        read_page(upto)

    monkeypatch.setattr(follower, "_read_page", prune_first)
    follower.turn()
    follower.turn()
    assert follower.end == Point(5, kept.tag_of(5) if floor < 5 else 0)
    assert positions(follower, floor) == list(range(floor + 1, 6))
    assert positions(follower, floor - 1) is None


def test_a_worker_that_slept_through_a_prune_goes_on_above_the_floor(database: Database) -> None:
    follower = started(database)
    kept.keep_run(database, 1, 5)
    prune_to(database, 3)
    follower.turn()
    assert positions(follower, 3) == [4, 5]
    assert positions(follower, 2) is None
    assert follower.epoch == reused.EPOCH


# Other histories.


def fall(database: Database) -> None:
    """Restore a backup that ends earlier."""
    database.write(lambda db: db.execute(delete(schema.journal)))
    kept.keep_run(database, 1, 3)


def refill(database: Database) -> None:
    """Restore a backup that ends earlier, and go on until the same position is reached."""
    fall(database)
    kept.keep(database, [kept.row(4, tag=7), kept.row(5, tag=7)])


def overtake(database: Database) -> None:
    """Restore a backup, and go on beyond what was read before."""
    refill(database)
    kept.keep(database, [kept.row(6, tag=7)])


@pytest.mark.parametrize("restore", [fall, refill, overtake])
def test_another_history_raises_the_epoch_once_whoever_sees_it(
    database: Database, restore: Callable[[Database], None], caplog: pytest.LogCaptureFixture
) -> None:
    kept.keep_run(database, 1, 5)
    followers = [started(database) for _ in range(3)]
    bells = [Event() for _ in followers]
    for follower, bell in zip(followers, bells, strict=True):
        follower.add_bell("nobody with a row", bell)
    restore(database)
    with caplog.at_level(logging.CRITICAL):
        followers[0].turn()
    raised = epoch(database)
    assert raised > reused.EPOCH
    assert "another history than at position 5" in caplog.text
    for follower in followers[1:]:
        follower.turn()
    assert epoch(database) == raised
    end = database.read(journal.head).last_position
    for follower, bell in zip(followers, bells, strict=True):
        assert follower.epoch == raised
        assert follower.end.position == end
        assert positions(follower, end) == []
        assert positions(follower, end - 1) is None
        assert bell.is_set()


def test_two_workers_that_see_it_at_the_same_moment_raise_the_epoch_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have read the fallen head before either raises."""
    kept.keep_run(database, 1, 5)
    first, second = started(database), started(database)
    fall(database)
    restart = first._restart
    raised: list[int] = []

    def be_overtaken(head: journal.Head) -> None:
        second.turn()
        raised.append(epoch(database))
        restart(head)

    monkeypatch.setattr(first, "_restart", be_overtaken)
    first.turn()
    assert epoch(database) == raised[0] > reused.EPOCH
    assert first.epoch == second.epoch == raised[0]


def test_an_epoch_that_was_raised_by_hand_is_followed(database: Database) -> None:
    kept.keep_run(database, 1, 5)
    follower = started(database)
    bell = Event()
    follower.add_bell("42", bell)
    database.write(lambda db: journal.raise_epoch(db, reused.EPOCH))
    follower.turn()
    assert follower.epoch == epoch(database) != reused.EPOCH
    assert bell.is_set()
    raised = follower.epoch
    follower.turn()
    assert epoch(database) == raised


def test_a_new_epoch_is_never_seen_with_the_rows_of_the_old_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams run while the tailer waits for the database; those of the new epoch trust it."""
    follower = started(database)
    kept.keep_run(database, 1, 3)
    follower.turn()
    assert positions(follower) == [1, 2, 3]
    database.write(lambda db: journal.raise_epoch(db, reused.EPOCH))
    read, seen = database.read, list[tuple[int | None, list[int] | None]]()

    def watched(work: Callable[[Any], Any]) -> Any:
        seen.append((follower.epoch, positions(follower)))
        return read(work)

    monkeypatch.setattr(database, "read", watched)
    follower.turn()
    assert seen
    assert all(epoch == reused.EPOCH or not found for epoch, found in seen)
    assert follower.epoch != reused.EPOCH
    assert not positions(follower)


def test_the_same_history_never_raises_the_epoch(database: Database, url: str) -> None:
    follower = started(database)
    for number in range(3):
        rows.commit(url, f"/{number}")
        follower.turn()
        prune_to(database, number + 1)
        follower.turn()
        follower.turn()
    assert epoch(database) == reused.EPOCH


# Pauses.


def test_idle_turns_come_less_and_less_often_down_to_the_poll_interval(
    database: Database, url: str
) -> None:
    rows.commit(url, "/a")
    clock = CountingClock(8)
    assert run(make(database, clock), clock) == [0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.25, 0.25]


def test_work_makes_the_next_turn_come_at_once(database: Database, url: str) -> None:
    clock = CountingClock(7)
    follower = make(database, clock)
    clock.at(clock.now + 0.05, lambda: rows.commit(url, "/a"))
    assert run(follower, clock) == [0.02, 0.04, 0.01, 0.02, 0.04, 0.08, 0.16]


def test_a_bell_brings_the_next_turn_forward_once(database: Database) -> None:
    clock = CountingClock(4)
    follower = make(database, clock)
    follower.bell.set()
    run(follower, clock)
    assert clock.now == pytest.approx(1_000 + 0.04 + 0.08)
    assert not follower.bell.is_set()


def away() -> Database:
    """Make a database that does not answer: nobody listens on its port."""
    return Database(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/nothing")


def test_a_database_that_is_away_is_reported_once_and_asked_again(
    database: Database, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = CountingClock(8)
    follower = make(database, clock)
    nowhere = away()
    heard: list[str | None] = []
    clock.at(1_000.1, lambda: setattr(follower, "_database", nowhere))
    clock.at(1_003.0, lambda: heard.append(follower.why_not_ready()))
    clock.at(1_003.0, lambda: rows.commit(url, "/meanwhile"))
    clock.at(1_003.0, lambda: setattr(follower, "_database", database))
    with caplog.at_level(logging.WARNING):
        pauses = run(follower, clock)
    assert pauses.count(tailer.RETRY_SECONDS) == 3
    assert pauses[-2:] == [0.01, 0.02]
    assert "OperationalError" in str(heard[0])
    assert follower.why_not_ready() is None
    assert positions(follower) == [1]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    nowhere.close()


def test_other_trouble_than_before_is_reported_too(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follower = started(database)
    nowhere = away()
    kept.keep(database, [], last=1)
    with caplog.at_level(logging.WARNING):
        follower._next_pause(1)
        monkeypatch.setattr(follower, "_database", nowhere)
        follower._next_pause(1)
        follower._next_pause(1)
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "ERROR"]
    nowhere.close()


def test_two_kinds_of_trouble_by_turns_are_reported_once_each(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follower = started(database)
    nowhere = away()
    kept.keep(database, [], last=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            follower._next_pause(1)
            with monkeypatch.context() as patch:
                patch.setattr(follower, "_database", nowhere)
                follower._next_pause(1)
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "ERROR"]
    nowhere.close()


def test_trouble_is_told_in_the_databases_own_words_on_one_line(empty_url: str) -> None:
    database = Database(empty_url)
    follower = make(database)
    follower._must_look = False
    follower._next_pause(1)
    assert "file_event_" in str(follower.trouble)
    assert "\n" not in str(follower.trouble)
    assert "[SQL" not in str(follower.trouble)
    database.close()


def test_a_turn_that_does_not_end_makes_the_worker_unready(database: Database) -> None:
    clock = ManualClock()
    follower = started(database, clock)
    clock.now += tailer.STUCK_SECONDS
    assert follower.why_not_ready() is None
    clock.now += 1
    assert follower.why_not_ready() == "the tailer is stuck in a turn"


def test_rows_that_nobody_moves_make_the_worker_unready(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the state row, or the mover's file, for good."""
    clock = ManualClock()
    follower = started(database, clock)
    rows.commit(url, "/a")
    with monkeypatch.context() as patched:
        patched.setattr(follower._mover, "step", lambda: None)
        follower.turn()
        clock.now += tailer.STUCK_SECONDS
        follower.turn()
        assert follower.why_not_ready() is None
        clock.now += 1
        follower.turn()
        assert follower.why_not_ready() == "rows wait in the outbox and nobody moves them"
        kept.keep_run(database, 1, 1)  # another worker has come by
        follower.turn()
        assert follower.why_not_ready() is None
    clock.now += tailer.STUCK_SECONDS + 1
    follower.turn()
    assert follower.why_not_ready() is None


# A backlog.


FILL = {
    "sqlite": """
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :many)
        INSERT INTO file_event_outbox (user_id, type, file_id, from_path, created_at)
        SELECT '42', 'create', 'f' || i, '/' || i, '2020-01-01 00:00:00' FROM n""",
    "postgresql": """
        INSERT INTO file_event_outbox (user_id, type, file_id, from_path, created_at)
        SELECT '42', 'create', 'f' || i, '/' || i, CAST('2020-01-01 00:00:00+00' AS timestamptz)
        FROM generate_series(1, CAST(:many AS integer)) AS n(i)""",
    "mysql": """
        INSERT INTO file_event_outbox (user_id, type, file_id, from_path, created_at)
        SELECT '42', 'create', CONCAT('f', seq), CONCAT('/', seq), '2020-01-01 00:00:00'
        FROM seq_1_to_1000000 LIMIT :many""",
}


def memory_mb(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def test_a_first_start_on_a_large_outbox_works_it_off_in_bounded_steps(database: Database) -> None:
    """100,000 rows: a million take a minute for each engine, and nothing else happens in it.

    The steps grow to 10,000 rows; the worker is not ready, and says why, until the rest is small;
    no more memory is used than some steps and the window need.
    """
    many = 100_000
    filling = text(FILL[database.engine.dialect.name])
    database.write(lambda db: db.execute(filling, {"many": many}))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # begin the high-water mark anew
    before = memory_mb("VmRSS")
    follower, idle_one = make(database), make(database)
    sizes: list[int] = []
    held: list[str | None] = []
    while not held or follower.end.position < many:
        seen = follower.moved_rows
        follower.turn()
        sizes.append(follower.moved_rows - seen)
        held.append(follower.why_not_ready())
        if len(held) == 2:
            waits = idle_one._is_backlogged(database.read(journal.head))
            assert waits, "a worker that does not move sees it too"
    assert sizes[:6] == [500, 1_000, 2_000, 4_000, 8_000, 10_000]
    assert max(sizes) == sequencer.BACKLOG_BATCH_ROWS
    assert set(held[:-1]) == {"the mover is working off a backlog"}
    assert held[-1] is None
    assert not follower.turn()
    assert follower.backlogged is False
    assert memory_mb("VmHWM") - before < 100
    assert len(follower.rows_after("42", many - WINDOW_ROWS) or []) == WINDOW_ROWS
    assert follower.rows_after("42", many - WINDOW_ROWS - 1) is None
    count = select(func.count(), func.min(schema.journal.c.position)).select_from(schema.journal)
    assert database.read(lambda db: tuple(db.execute(count).one())) == (many, 1)
    assert database.read(rows.waiting) == 0


def test_a_busy_moment_is_no_backlog(database: Database, url: str) -> None:
    """Full batches of young rows, or few old ones, keep nobody waiting."""
    follower = started(database)
    with rows.app(url).begin() as connection:
        young = [{"user_id": "42", "type": "create", "file_id": "f", "from_path": "/f"}] * 1_200
        connection.execute(sqlalchemy.insert(outbox), young)
    follower.turn()
    assert database.read(rows.waiting) == 700
    assert not follower.backlogged
    while follower.turn():
        pass
    rows.commit(url, *rows.numbered(600), created_at="2020-01-01 00:00:00")
    follower.turn()
    assert database.read(rows.waiting) == 100
    assert not follower.backlogged


def test_what_a_step_did_is_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = started(database)
    monkeypatch.setattr(follower._mover, "step", lambda: Step(5, 2, 5))
    assert follower._step() == 5
    assert follower._step() == 5
    assert (follower.moved_rows, follower.rejected_rows) == (10, 4)

"""Batches into the outbox, all or nothing, and where they stand once they have moved."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import pytest
import sqlalchemy
from sqlalchemy import Connection, select

from events_app import errors, event, schema, writing
from events_app.clock import SystemClock
from events_app.database import Database
from events_app.outbox import COLUMNS
from events_app.sequencer import Mover
from events_app.tailer import Tailer
from events_app.writing import Span, Writing
from tests import reused, rows
from tests import worker as workers
from tests.serving import free_port
from tests.worker import Worker

Values = dict[str, Any]


def change(path: str, key: str | None = None, **changed: Any) -> Values:
    """Make the values of a `create` by user 42."""
    values: Values = dict.fromkeys(COLUMNS)
    values |= {"user_id": "42", "type": "create", "fs": "my"}
    return values | {"file_id": path, "from_path": path, "is_folder": 0, "event_key": key} | changed


def of(database: Database) -> Writing:
    """Write into `database` on the machine's clock."""
    return Writing(database, Tailer(database, SystemClock(), 0.25), SystemClock())


# -- writing, on every engine --------------------------------------------------------------------

url = reused.on_each_engine


def written(connection: Connection) -> list[Values]:
    """Read the outbox, without what the database adds."""
    found = connection.execute(select(schema.outbox).order_by(schema.outbox.c.id)).mappings()
    return [{name: row[name] for name in COLUMNS} for row in found]


ODD = ["/\\N", "/\\", "/a\tb", "/a\nb\r\n", "/\\.", "/ä😀", "/'\"%s:x", "/\\\\t", "/\x01"]


def test_what_is_appended_is_in_the_outbox_in_its_order(database: Database) -> None:
    """Also what means something to COPY; and the outbox adds its own id and time."""
    batch = [change(path, meta='{"a": "\\u0000\\t"}', to_path=None) for path in ODD]
    batch.append(change("/r", "key \t\\", type="rename", to_path="/s", is_folder=1, actor_id="7"))
    assert of(database).append(batch) == batch
    found = database.read(written)
    for row in found:
        row["meta"] = None if row["meta"] is None else '{"a": "\\u0000\\t"}'
    assert found == batch


def test_a_batch_is_longer_than_a_statement(database: Database) -> None:
    batch = [change(f"/{number:04}") for number in range(1_001)]
    of(database).append(batch)
    assert [row["from_path"] for row in database.read(written)] == [
        row["from_path"] for row in batch
    ]


def test_others_run_while_a_large_batch_is_read_and_written(database: Database) -> None:
    """Now and then, both when changes are read and when they are made ready."""
    passes = 0

    def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            gevent.sleep(0)

    counting = gevent.spawn(count)
    of(database).append(change(f"/{number}") for number in range(10_000))
    counting.kill()
    assert passes >= 100
    assert database.read(rows.waiting) == 10_000


@pytest.mark.parametrize("bad", [{"is_folder": 5}, {"type": "moved"}, {"user_id": None}])
def test_what_the_database_refuses_is_the_bodys_fault_and_nothing_is_written(
    database: Database, bad: Values
) -> None:
    """The last of a batch, in a later statement than the first."""
    batch = [change(f"/{number}") for number in range(300)] + [change("/bad", **bad)]
    with pytest.raises(errors.BadParameter, match="the database refuses a value"):
        of(database).append(batch)
    assert database.read(rows.waiting) == 0


def test_batches_of_the_same_keys_that_race_are_told_once(database: Database) -> None:
    """All of them are accepted, and the mover takes the first of each key."""
    batch = [change(f"/{number}", f"k{number}") for number in range(50)]
    racing = [gevent.spawn(of(database).append, batch) for _ in range(4)]
    gevent.joinall(racing, raise_error=True)
    done = Mover(database).step()
    assert done is not None
    assert (done.moved, done.rejected) == (200, 150)
    told = select(schema.journal.c.from_path).where(schema.journal.c.rejected.is_(None))
    assert set(database.read(lambda db: list(db.scalars(told)))) == {f"/{n}" for n in range(50)}


def test_what_cannot_be_read_to_its_end_is_not_written(database: Database) -> None:
    def changes() -> Iterator[Values]:
        yield change("/a")
        raise errors.BadParameter("the second is bad").at(1)

    with pytest.raises(errors.BadParameter, match="the second is bad"):
        of(database).append(changes())
    assert database.read(rows.waiting) == 0


READ_ONLY = {
    "sqlite": "PRAGMA query_only = 1",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}


def on_connect(database: Database, statement: str) -> None:
    """Run `statement` on every connection that is made."""

    def run(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()
        connection.commit()

    sqlalchemy.event.listen(database.engine, "connect", run)


def unavailable(database: Database) -> None:
    """Look that nothing can be written, and that whoever tries is told to come back."""
    with pytest.raises(errors.DatabaseAway) as caught:
        of(database).append([change("/a")])
    assert caught.value.retry_after_seconds == 5


def test_a_database_that_is_read_only_is_unavailable(engine: str, database: Database) -> None:
    on_connect(database, READ_ONLY[engine])
    unavailable(database)
    assert database.read(rows.waiting) == 0


def test_a_full_database_is_unavailable(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    on_connect(database, "PRAGMA max_page_count = 1")
    with pytest.raises(errors.DatabaseAway):
        of(database).append([change(f"/{number}" + "x" * 4_000) for number in range(100)])
    assert database.read(rows.waiting) == 0
    database.close()


@pytest.mark.parametrize("family", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_database_that_does_not_answer_is_unavailable(family: str) -> None:
    database = Database(f"{family}://nobody@127.0.0.1:{free_port()}/events")
    unavailable(database)
    database.close()


BACKEND = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mariadb": ("SELECT CONNECTION_ID()", "KILL {}"),
}


@pytest.mark.parametrize("engine", BACKEND, indirect=True)
def test_a_connection_that_broke_is_unavailable_once(
    engine: str, url: str, database: Database
) -> None:
    """The pool hands it out, nothing is written by it, and the next one is a new one."""
    which, kill = BACKEND[engine]
    number = database.read(lambda db: db.exec_driver_sql(which).scalar_one())
    with rows.app(url).connect() as other:
        other.exec_driver_sql(kill.format(number))
    unavailable(database)
    of(database).append([change("/b")])
    assert database.read(rows.waiting) == 1


# -- where a batch stands ------------------------------------------------------------------------


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = workers.make(request)
    yield made
    assert made.holds_nothing()
    made.close()


def on(worker: Worker) -> Writing:
    """Write on the worker's own parts and clock."""
    return Writing(worker.database, worker.tailer, worker.clock)


def append(worker: Worker, *changes: Values) -> Span | None:
    """Append a batch, wait for a second at most; it moves after a tenth of that."""
    appended = on(worker).append(changes, traced=True)
    worker.clock.at(worker.clock.now + 0.1, worker.turn)
    return on(worker).span(writing.keys_of(appended), 1)


def test_a_batch_stands_where_its_rows_have_moved_to(worker: Worker) -> None:
    worker.commit("create", "/before")
    assert append(worker, *(change(f"/{number}") for number in range(5))) == Span(2, 6)
    assert append(worker, change("/alone")) == Span(7, 7)
    assert append(worker, change("/k", "k"), change("/plain"), change("/l", "l")) == Span(8, 10)


def test_rows_of_others_may_stand_between(worker: Worker) -> None:
    batch = on(worker).append([change("/a"), change("/b")], traced=True)
    worker.write("create", "/other", user_id="43")
    worker.turn()
    assert on(worker).span(writing.keys_of(batch), 1) == Span(1, 2)
    assert append(worker, change("/c", user_id="43"), change("/d")) == Span(4, 5)


def test_a_batch_that_is_retried_stands_where_it_stood(worker: Worker) -> None:
    """Nothing has to move for that, and the second rows are journalled as duplicates."""
    keyed = [change("/a", "a"), change("/b", "b")]
    assert append(worker, *keyed) == Span(1, 2)
    again = on(worker).append(keyed, traced=True)
    assert on(worker).span(writing.keys_of(again), 0) == Span(1, 2)
    worker.turn()
    assert append(worker, change("/a", "a"), change("/new", "new")) == Span(1, 6)
    assert worker.database.read(duplicates) == ["/a", "/b", "/a"]


def duplicates(connection: Connection) -> list[str]:
    """List the paths of the rows that repeated a key."""
    journal = schema.journal.c
    query = select(journal.from_path).where(journal.rejected == event.DUPLICATE)
    return list(connection.scalars(query.order_by(journal.position)))


def test_a_key_that_comes_twice_in_a_batch_counts_once(worker: Worker) -> None:
    assert append(worker, change("/a", "k"), change("/b", "k"), change("/c")) == Span(1, 3)
    assert worker.database.read(duplicates) == ["/b"]


def test_the_same_key_of_another_user_is_another_key(worker: Worker) -> None:
    assert append(worker, change("/a", "k"), change("/a", "k", user_id="43")) == Span(1, 2)
    assert worker.database.read(duplicates) == []


def test_more_keys_than_are_asked_for_at_once_are_found(worker: Worker) -> None:
    batch = [change(f"/{number}", f"k{number}") for number in range(2_500)]
    assert append(worker, *batch) == Span(1, 2_500)


def test_only_the_first_and_the_last_row_without_a_key_get_one(worker: Worker) -> None:
    batch = [change("/k", "k"), change("/a"), change("/b"), change("/c"), change("/l", "l")]
    keys = [row["event_key"] for row in on(worker).append(batch, traced=True)]
    assert (keys[0], keys[2], keys[4]) == ("k", None, "l")
    assert re.fullmatch("traced-[0-9a-f]{32}", keys[1])
    assert re.fullmatch("traced-[0-9a-f]{32}", keys[3])
    assert keys[1] != keys[3]


def test_a_batch_that_is_not_traced_gets_no_keys(worker: Worker) -> None:
    (row,) = on(worker).append([change("/a")])
    assert row["event_key"] is None


def test_who_waits_in_vain_waits_no_longer_than_asked(worker: Worker) -> None:
    began = worker.clock.now
    batch = on(worker).append([change("/a"), change("/b")], traced=True)
    assert on(worker).span(writing.keys_of(batch), 7) is None
    assert worker.clock.now - began == pytest.approx(7)


def test_a_worker_that_stops_lets_nobody_wait(worker: Worker) -> None:
    began = worker.clock.now
    at_work = on(worker)
    batch = at_work.append([change("/a")], traced=True)
    worker.clock.at(began + 1, at_work.stop)
    assert at_work.span(writing.keys_of(batch), 60) is None
    assert worker.clock.now - began <= 1 + writing.LOOK_SECONDS


def test_a_database_that_goes_away_meanwhile_does_not_undo_what_is_committed(
    worker: Worker,
) -> None:
    batch = on(worker).append([change("/a")], traced=True)
    worker.clock.at(worker.clock.now + 1, lambda: setattr(worker.database, "away", True))
    assert on(worker).span(writing.keys_of(batch), 60) is None
    worker.database.away = False
    assert worker.database.read(rows.waiting) == 1


def test_the_mover_is_told_at_once(worker: Worker) -> None:
    worker.tailer.bell.clear()
    on(worker).append([change("/a")])
    assert worker.tailer.bell.is_set()


# -- the queue -----------------------------------------------------------------------------------


def test_so_many_at_a_time_and_the_queue_has_an_end(worker: Worker) -> None:
    at_work = on(worker)
    bell = gevent.event.Event()

    def take() -> None:
        with at_work.turn():
            bell.wait()

    taken = [gevent.spawn(take) for _ in range(writing.AT_ONCE + writing.MOST_WAITING)]
    gevent.sleep(0)
    with pytest.raises(errors.DatabaseAway, match="too many write at once"), at_work.turn():
        pass
    bell.set()
    gevent.joinall(taken, raise_error=True)
    with at_work.turn():
        pass


def test_word_of_a_batch_is_looked_for_in_line_with_those_who_write(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those who wait would take every connection, and the tailer would have none."""
    at_work, at_once = on(worker), []
    looking = 0

    def look(*_: Any) -> dict[Any, int]:
        nonlocal looking
        looking += 1
        at_once.append(looking)
        gevent.sleep(0)
        looking -= 1
        return {("42", "k"): 1}

    monkeypatch.setattr(worker.database, "read", look)
    waiting = [gevent.spawn(at_work.span, [("42", "k")], 60) for _ in range(10)]
    gevent.joinall(waiting, raise_error=True)
    assert (len(at_once), max(at_once)) == (10, writing.AT_ONCE)
    assert {each.value for each in waiting} == {Span(1, 1)}


def test_who_gets_no_turn_waits_no_longer_than_asked(worker: Worker) -> None:
    at_work = on(worker)
    batch = at_work.append([change("/a")], traced=True)
    worker.turn()
    with contextlib.ExitStack() as taken:
        for _ in range(writing.AT_ONCE):
            taken.enter_context(at_work.turn())
        assert at_work.span(writing.keys_of(batch), 0) is None
    assert at_work.span(writing.keys_of(batch), 0) == Span(1, 1)


def refuse(at_work: Writing, writer: str | None, length: int | None) -> bool:
    """Tell whether there is no room for such a body."""
    try:
        with at_work.room(writer, length):
            return False
    except errors.DatabaseAway:
        return True


def test_of_large_bodies_so_many_are_on_their_way_and_of_one_writer_half_of_them(
    worker: Worker,
) -> None:
    """They come as slowly as their clients like, and each is held in memory."""
    at_work, large = on(worker), writing.SMALL_BYTES + 1
    with contextlib.ExitStack() as first:
        for _ in range(writing.MOST_LARGE_OF_ONE):
            first.enter_context(at_work.room("42", large))
        assert refuse(at_work, "42", large)
        assert refuse(at_work, "42", None), "nobody knows how long it is"
        assert not refuse(at_work, "42", writing.SMALL_BYTES)
        with contextlib.ExitStack() as second:
            for _ in range(writing.MOST_LARGE - writing.MOST_LARGE_OF_ONE):
                second.enter_context(at_work.room(None, None))
            assert refuse(at_work, "43", large)
            assert not refuse(at_work, "43", writing.SMALL_BYTES)
        assert not refuse(at_work, "43", large)
    assert not refuse(at_work, "42", large)
    assert not at_work._large, "nobody is remembered"


def test_a_turn_ends_with_a_failure(worker: Worker) -> None:
    at_work = on(worker)
    for _ in range(writing.AT_ONCE + 1):
        with pytest.raises(errors.TooLarge), at_work.turn():
            raise errors.TooLarge

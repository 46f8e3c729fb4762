"""Faults that were found by reading: each test is the scenario in which one did its damage."""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from sqlalchemy import update

from events_app import database, logs, schema, settings, sidecar
from events_app.peers import Peer
from events_app.stream import Request, Stream
from tests import serving
from tests.worker import CLIENT, Worker, make, watcher

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = make(request)
    yield made
    made.close()


def known_client(worker: Worker) -> None:
    """Connect once, so that the client has a past."""
    first = worker.stream()
    first.expect("subscribed")
    first.expect("keep-alive")
    first.close()


# -- a backup from before an epoch was raised ----------------------------------------------------


def test_an_earlier_epoch_that_comes_back_ends_the_streams_of_the_later_one(
    worker: Worker,
) -> None:
    """Else they would sit on keep-alives for ever, and hear of no change."""
    reader = worker.stream(debounce=0)
    reader.expect("subscribed")
    seen = worker.tailer.epoch
    assert seen is not None
    worker.database.write(lambda db: db.execute(update(schema.state).values(epoch=seen - 1)))
    worker.commit("create", "/a")
    assert reader.rest()[-1].name == "reconnect-required"
    assert worker.tailer.epoch is not None
    assert worker.tailer.epoch > seen
    again = worker.stream(debounce=0)
    again.expect("subscribed")
    worker.commit("create", "/b")
    assert again.told() == [("create", "/b", "")]


def test_a_new_epoch_is_above_the_later_one_also_when_the_clock_is_behind(worker: Worker) -> None:
    future = 9_999_999_999
    worker.database.write(lambda db: db.execute(update(schema.state).values(epoch=future)))
    worker.turn()
    worker.database.write(lambda db: db.execute(update(schema.state).values(epoch=1)))
    worker.turn()
    assert worker.tailer.epoch == future + 1


# -- a second delivery that breaks off ----------------------------------------------------------


def test_the_id_of_a_second_delivery_is_no_way_round_it(worker: Worker) -> None:
    """Who resumes by the stored cursor, and then by the id it got with it, heard no more."""
    known_client(worker)
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    worker.commit("rename", "/a", "/b", file_id="1")
    reader.expect("event")
    reader.close()
    second = worker.stream()
    resumed = second.expect("resumed")
    second.close()
    third = worker.stream(last_event_id=resumed.id)
    third.expect("resumed")
    assert third.told() == [("delete", "/a", ""), ("create", "/b", "")]


# -- a connect that comes too late ---------------------------------------------------------------


def test_the_late_connect_of_a_client_that_left_takes_no_generation(worker: Worker) -> None:
    """It is back on another connection by then, whose cursor would stand still for ever."""
    late: list[Callable[[], None]] = []
    around = worker.around()._replace(run_aside=late.append)
    gone = Stream(around, Request(watcher(), None, "array", 86_400), Peer(None))
    frames = gone.frames()
    next(frames)
    frames.close()
    reader = worker.stream()
    reader.expect("subscribed")
    for work in late:
        work()
    assert worker.subscription().generation == 1
    reader.expect("keep-alive")
    reader.close()
    assert worker.subscription(CLIENT).state == schema.LIVE


# -- a journal that cannot be followed -----------------------------------------------------------


def test_nobody_is_told_to_begin_while_the_journal_cannot_be_followed(worker: Worker) -> None:
    """Nothing would come after it; and one asks the database for all, not each stream by itself."""
    worker.tailer.trouble = "OperationalError: away"
    reader = worker.stream()
    assert reader.expect("keep-alive").id is None
    worker.tailer.trouble = None
    reader.expect("subscribed")


# -- a loop that is never idle -------------------------------------------------------------------


def _ping(here: socket.socket) -> None:
    while True:
        here.send(b"x")
        gevent.socket.wait_read(here.fileno())
        here.recv(1)


def test_bells_are_rung_while_the_loop_has_no_idle_moment(worker: Worker) -> None:
    """One busy pair of sockets is enough for `gevent.idle` never to return."""
    pair = socket.socketpair()
    pings = [gevent.spawn(_ping, end) for end in pair]
    bells = [Event() for _ in range(500)]
    try:
        ringing = gevent.spawn(worker.tailer._ring, bells)
        ringing.join(timeout=10)
        assert ringing.ready()
        assert all(bell.is_set() for bell in bells)
    finally:
        gevent.killall([*pings, ringing])
        for end in pair:
            end.close()


# -- thousands at once ---------------------------------------------------------------------------


def test_streams_leave_room_at_the_database_for_the_tailer(sqlite_url: str) -> None:
    """In line behind thousands of connects it would wait until the pool gives up."""
    environment = {"EVENTS_DATABASE_URL": sqlite_url, "EVENTS_JWT_SECRET": SECRET}
    parts = sidecar.Sidecar(settings.load(environment))
    at_it: list[int] = []
    most = 0
    done = Event()

    def work() -> None:
        nonlocal most
        with parts._around.turns:
            at_it.append(1)
            most = max(most, len(at_it))
            gevent.sleep(0)
            at_it.pop()

    for _ in range(100):
        parts._around.run_aside(work)
    parts._around.run_aside(done.set)
    assert done.wait(10)
    parts.close()
    assert most == database.STREAMS_AT_ONCE < database.POOL_SIZE + database.POOL_OVERFLOW


# -- the end of a worker ---------------------------------------------------------------------------


def test_the_end_of_a_worker_is_not_swallowed_by_a_transaction(sqlite_url: str) -> None:
    """One that is cut short may do that: the worker would keep its port and never end."""
    environment = {"EVENTS_DATABASE_URL": sqlite_url, "EVENTS_JWT_SECRET": SECRET}
    parts = sidecar.Sidecar(settings.load(environment))
    stubborn = gevent.spawn(_swallow_once)
    parts._greenlets.append(stubborn)
    gevent.sleep(0)
    with gevent.Timeout(10):
        parts.close()
    assert stubborn.ready()


def _swallow_once() -> None:
    with contextlib.suppress(gevent.GreenletExit):
        Event().wait()
    Event().wait()


# -- the limit of descriptors --------------------------------------------------------------------


def test_a_low_soft_limit_of_descriptors_is_raised(sqlite_url: str, tmp_path: Path) -> None:
    """At 1,024, what most systems give, the thousandth stream would cut the worker off."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = serving.Server(sqlite_url, tmp_path / "gunicorn.log", workers=1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1_024), hard))
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        (worker,) = server.worker_pids()
        limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    finally:
        server.stop()
    assert limits[0] == min(21_000, hard)


# -- a client that takes nothing -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (TimeoutError("timed out"), logging.INFO),
        (OSError(errno.EHOSTUNREACH, "No route to host"), logging.INFO),
        (OSError(errno.EMFILE, "Too many open files"), logging.ERROR),
        (ValueError("ours"), logging.ERROR),
    ],
)
def test_a_dropped_client_is_one_line_and_no_error(error: Exception, level: int) -> None:
    """A network that fails would fill the log with thousands of tracebacks."""
    why = (type(error), error, None)
    record = logging.LogRecord("gunicorn.error", logging.ERROR, "", 0, "Socket error", (), why)
    assert logs.Calm().filter(record)
    assert record.levelno == level
    assert (record.exc_info is None) == (level == logging.INFO)
    assert ("dropped" in record.getMessage()) == (level == logging.INFO)


# -- the database goes away, or the worker does -------------------------------------------------


@pytest.mark.parametrize("error", [ConnectionError("lost\nit"), gevent.GreenletExit()])
def test_a_connection_that_the_pool_cannot_reset_is_one_line_and_no_error(
    error: BaseException,
) -> None:
    """There is one of them for each connection that the pool holds."""
    why = (type(error), error, None)
    name = "sqlalchemy.pool.impl.QueuePool"
    record = logging.LogRecord(name, logging.ERROR, "", 0, "Exception during reset", (), why)
    assert logs.Calm().filter(record)
    assert (record.levelno, record.exc_info) == (logging.INFO, None)
    assert record.getMessage().startswith("a broken connection is let go: ")
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("part", ["tailer", "ledger"])
def test_a_worker_that_leaves_ends_the_transaction_that_it_is_at(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Killed between two statements it would leave a broken connection, and a false alarm."""
    environment = {"EVENTS_DATABASE_URL": sqlite_url, "EVENTS_JWT_SECRET": SECRET}
    parts = sidecar.Sidecar(settings.load(environment))
    begun, may_end = Event(), Event()
    ended: list[float] = []

    def work() -> float:
        begun.set()
        may_end.wait()
        ended.append(1.0)
        return 1.0

    if part == "tailer":
        monkeypatch.setattr(parts.tailer, "turn", work)
    else:
        monkeypatch.setattr(parts.ledger, "tick", work)
    parts.start()
    assert begun.wait(10)
    leaving = gevent.spawn(parts.close)
    gevent.idle()
    assert not leaving.ready()
    may_end.set()
    leaving.join(timeout=10)
    assert leaving.successful()
    assert ended == [1.0]

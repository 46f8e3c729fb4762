"""Who may open one more stream, who waits for a place, and who is told when the worker stops."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from events_app import admission, errors
from events_app.admission import Admission, Caps
from events_app.clock import Bell
from events_app.scope import Watcher
from events_app.stream import Stream
from tests.manual_clock import ManualClock
from tests.worker import OTHER, Worker, make, watcher

CAPS = Caps(of_worker=100, of_user=10, of_subscription=10)


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = make(request)
    yield made
    made.close()


def admitting(worker: Worker, **caps: int) -> Admission:
    return Admission(CAPS._replace(**caps), worker.clock, worker.tally)


def enter(worker: Worker, to: Admission, who: Watcher | None = None) -> Stream:
    """Open a stream as a request does."""
    who = who or watcher()
    to.admit(who)
    stream = worker.stream(who).stream
    to.enter(stream)
    return stream


def of_user(user: str) -> Watcher:
    return watcher(user_id=user)


# -- a user's caps -------------------------------------------------------------------------------


def test_a_user_has_so_many_streams_and_another_user_as_many(worker: Worker) -> None:
    counting = admitting(worker, of_user=2)
    streams = [enter(worker, counting) for _ in range(2)]
    with pytest.raises(errors.TooManyStreams, match="for this user"):
        counting.admit(watcher("/another folder", OTHER))
    counting.admit(of_user("43"))
    counting.leave(streams[0])
    counting.admit(watcher())


def test_a_subscription_has_so_many_streams_and_another_one_as_many(worker: Worker) -> None:
    counting = admitting(worker, of_subscription=2)
    streams = [enter(worker, counting) for _ in range(2)]
    with pytest.raises(errors.TooManyStreams, match="of this client"):
        counting.admit(watcher())
    for other in (watcher("/docs"), watcher(client_id=OTHER), of_user("43")):
        counting.admit(other)
    counting.leave(streams[0])
    counting.admit(watcher())


def test_streams_without_a_client_id_are_no_subscription(worker: Worker) -> None:
    counting = admitting(worker, of_subscription=1)
    for _ in range(3):
        enter(worker, counting, watcher(client_id=None))
    assert len(counting) == 3


def test_without_a_cap_of_its_own_a_subscription_has_that_of_its_user(worker: Worker) -> None:
    caps = CAPS._replace(of_user=3, of_subscription=None)
    counting = Admission(caps, worker.clock, worker.tally)
    for _ in range(3):
        enter(worker, counting)
    with pytest.raises(errors.TooManyStreams, match="for this user"):
        counting.admit(watcher())


def test_who_has_too_many_streams_is_told_at_once(worker: Worker) -> None:
    """Also while the worker is full: no wait would help."""
    counting = admitting(worker, of_worker=1, of_user=1)
    enter(worker, counting)
    before = worker.clock.now
    with pytest.raises(errors.TooManyStreams, match="for this user") as refusal:
        counting.admit(watcher())
    assert worker.clock.now == before
    assert refusal.value.retry_after_seconds


def test_leaving_twice_counts_once(worker: Worker) -> None:
    """The server closes what has ended by itself as well."""
    counting = admitting(worker, of_user=2)
    streams = [enter(worker, counting) for _ in range(2)]
    counting.leave(streams[0])
    counting.leave(streams[0])
    assert len(counting) == 1
    counting.enter(streams[0])
    with pytest.raises(errors.TooManyStreams):
        counting.admit(watcher())


def test_users_who_left_are_forgotten(worker: Worker) -> None:
    counting = admitting(worker)
    for number in range(10):
        counting.leave(enter(worker, counting, of_user(str(number))))
    assert not counting._of_user


# -- a full worker -------------------------------------------------------------------------------


def test_a_full_worker_refuses_only_after_a_while(worker: Worker) -> None:
    counting = admitting(worker, of_worker=2)
    for user in ("1", "2"):
        enter(worker, counting, of_user(user))
    before = worker.clock.now
    with pytest.raises(errors.TooManyStreams, match="no room") as refusal:
        counting.admit(of_user("3"))
    assert worker.clock.now == before + admission.WAIT_SECONDS
    assert refusal.value.retry_after_seconds
    assert counting.waiting == 0
    assert len(counting) == 2


def test_who_waits_gets_the_place_that_becomes_free(worker: Worker) -> None:
    counting = admitting(worker, of_worker=1)
    first = enter(worker, counting, of_user("1"))
    worker.clock.at(worker.clock.now + 3, lambda: counting.leave(first))
    before = worker.clock.now
    enter(worker, counting, of_user("2"))
    assert worker.clock.now == before + 3
    assert (len(counting), counting.waiting) == (1, 0)


class Standing(ManualClock):
    """A clock that stands still; a wait ends when its bell rings."""

    def wait(self, bell: Bell, timeout: float) -> None:
        del timeout
        bell.wait()


def let_run() -> None:
    """Run every greenlet until it waits for something."""
    for _ in range(10):
        gevent.sleep(0)


def test_places_go_to_those_who_wait_in_the_order_in_which_they_came(worker: Worker) -> None:
    """And whoever comes while others wait stands behind them, although there is a place."""
    counting = Admission(CAPS._replace(of_worker=2), Standing(), worker.tally)
    streams = [enter(worker, counting, of_user(user)) for user in ("1", "2")]
    served: list[str] = []

    def ask(user: str) -> None:
        streams.append(enter(worker, counting, of_user(user)))
        served.append(user)

    waiting = [gevent.spawn(ask, user) for user in ("3", "4", "5")]
    let_run()
    assert (served, counting.waiting) == ([], 3)
    counting.leave(streams[0])
    counting.leave(streams[1])
    waiting.append(gevent.spawn(ask, "6"))
    let_run()
    assert (served, counting.waiting) == (["3", "4"], 2)
    counting.leave(streams[2])
    counting.leave(streams[3])
    let_run()
    assert (served, counting.waiting, len(counting)) == (["3", "4", "5", "6"], 0, 2)
    gevent.joinall(waiting, raise_error=True)


def test_a_place_that_its_owner_could_not_use_goes_to_the_next(worker: Worker) -> None:
    """The user's own cap was reached meanwhile, or the client is gone."""
    counting = Admission(CAPS._replace(of_worker=2, of_user=1), Standing(), worker.tally)
    streams = [enter(worker, counting, of_user(user)) for user in ("1", "2")]
    twice = [gevent.spawn(enter, worker, counting, of_user("3")) for _ in range(2)]
    next_one = gevent.spawn(enter, worker, counting, of_user("4"))
    let_run()
    for stream in streams:
        counting.leave(stream)
    let_run()
    assert (twice[0].successful(), twice[1].successful()) == (True, False)
    assert isinstance(twice[1].exception, errors.TooManyStreams)
    assert next_one.successful()
    assert (len(counting), counting.waiting) == (2, 0)


def test_only_so_many_wait(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would fill gunicorn's connections, and health checks would hang."""
    monkeypatch.setattr(admission, "MOST_WAITING", 2)
    counting = Admission(CAPS._replace(of_worker=1), Standing(), worker.tally)
    first = enter(worker, counting, of_user("1"))
    waiting = [gevent.spawn(counting.admit, of_user(user)) for user in ("2", "3")]
    let_run()
    with pytest.raises(errors.TooManyStreams, match="no room"):
        counting.admit(of_user("4"))
    counting.leave(first)
    let_run()
    gevent.joinall(waiting, raise_error=True)
    assert counting.waiting == 0


# -- the stop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("drain", [0, 2])
def test_at_a_stop_the_open_streams_and_those_to_come_are_told(worker: Worker, drain: int) -> None:
    """Who comes late stays a moment: until the socket is closed it would only come back here."""
    counting = admitting(worker)
    early, late = (worker.stream(keep_alive=1_000, drain=drain) for _ in range(2))
    counting.enter(early.stream)
    counting.stop()
    counting.enter(late.stream)
    for each, least, most in ((early, 0, drain), (late, 1.5, max(drain, 1.5))):
        opened_at = worker.clock.now = late.opened_at
        assert [frame.name for frame in each.rest()][-1] == "reconnect-required"
        assert least <= worker.clock.now - opened_at <= most


def test_at_a_stop_those_who_wait_are_let_in_to_be_told(worker: Worker) -> None:
    """A refusal, or a connection that breaks off, would count against the server."""
    counting = Admission(CAPS._replace(of_worker=1), Standing(), worker.tally)
    enter(worker, counting, of_user("1"))
    waiting = [gevent.spawn(enter, worker, counting, of_user(user)) for user in ("2", "3")]
    let_run()
    counting.stop()
    let_run()
    gevent.joinall(waiting, raise_error=True)
    assert (len(counting), counting.waiting) == (3, 0)

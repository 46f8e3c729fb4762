"""Who may open one more stream, and who is told when the worker stops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from events_app import errors
from events_app.admission import Admission
from events_app.stream import Stream
from tests.worker import Worker, make, watcher


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = make(request)
    yield made
    made.close()


def stream(worker: Worker, user: str = "42") -> Stream:
    return worker.stream(watcher(user_id=user)).stream


def test_a_user_has_so_many_streams_and_another_user_as_many(worker: Worker) -> None:
    admission = Admission(100, 2)
    streams = [stream(worker), stream(worker)]
    for each in streams:
        admission.check("42")
        admission.enter(each)
    with pytest.raises(errors.TooManyStreams):
        admission.check("42")
    admission.check("43")
    admission.leave(streams[0])
    admission.check("42")


def test_a_worker_has_so_many_streams(worker: Worker) -> None:
    admission = Admission(2, 2)
    streams = [stream(worker, user) for user in ("1", "2")]
    for each in streams:
        admission.enter(each)
    with pytest.raises(errors.TooManyStreams, match="no room"):
        admission.check("3")
    admission.leave(streams[1])
    admission.check("3")
    assert len(admission) == 1


def test_leaving_twice_counts_once(worker: Worker) -> None:
    """The server closes what has ended by itself as well."""
    admission = Admission(100, 2)
    streams = [stream(worker), stream(worker)]
    for each in streams:
        admission.enter(each)
    admission.leave(streams[0])
    admission.leave(streams[0])
    assert len(admission) == 1
    admission.enter(streams[0])
    with pytest.raises(errors.TooManyStreams):
        admission.check("42")


def test_users_who_left_are_forgotten(worker: Worker) -> None:
    admission = Admission(100, 2)
    for number in range(10):
        each = stream(worker, str(number))
        admission.enter(each)
        admission.leave(each)
    assert not admission._per_user


@pytest.mark.parametrize("drain", [0, 2])
def test_at_a_stop_the_open_streams_and_those_to_come_are_told(worker: Worker, drain: int) -> None:
    """Who comes late stays a moment: until the socket is closed it would only come back here."""
    admission = Admission(100, 2)
    early, late = (worker.stream(keep_alive=1_000, drain=drain) for _ in range(2))
    admission.enter(early.stream)
    admission.stop()
    admission.enter(late.stream)
    for each, least, most in ((early, 0, drain), (late, 1.5, max(drain, 1.5))):
        opened_at = worker.clock.now = late.opened_at
        assert [frame.name for frame in each.rest()][-1] == "reconnect-required"
        assert least <= worker.clock.now - opened_at <= most

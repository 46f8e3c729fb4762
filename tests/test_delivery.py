"""What counts as delivered, and when it is stored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection

from events_app import delivery, journal, schema, subscriptions
from events_app.delivery import Delivery
from events_app.schema import FRESH, LIVE, NEW
from tests.worker import CLIENT, CONFIRM_SECONDS, PACE, StubbornPeer, Worker, make, watcher


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = make(request)
    yield made
    made.close()


def connect(worker: Worker, peer: StubbornPeer | None = None, state: str = LIVE) -> Delivery:
    """Take a generation, as a stream does, and let the ledger look after it."""
    start = subscriptions.connect(worker.database, watcher(), None, PACE.limits)
    key = subscriptions.key_of(watcher())
    assert key is not None
    assert start.generation is not None
    at = start.point.position
    found = Delivery(key, start.epoch, start.generation, peer or StubbornPeer(), at, state)
    worker.ledger.open(found)
    return found


def send(worker: Worker, to: Delivery, position: int, *, change: bool = True) -> None:
    to.sending(position)
    worker.ledger.wrote(to, position, change=change)


def tick_after(worker: Worker, seconds: float) -> float:
    worker.clock.now += seconds
    return worker.ledger.tick()


def stored(worker: Worker) -> tuple[int, int | None, str]:
    row = worker.subscription()
    return row.position, row.sent_position, row.state


def test_a_position_is_stored_when_the_connection_has_lived_long_enough(worker: Worker) -> None:
    to = connect(worker)
    send(worker, to, 7)
    tick_after(worker, CONFIRM_SECONDS - 1)
    assert stored(worker)[0] == 0
    tick_after(worker, 2)
    assert stored(worker) == (7, None, LIVE)


def test_a_peer_that_has_not_taken_everything_has_nothing_confirmed(worker: Worker) -> None:
    peer = StubbornPeer(takes=False)
    to = connect(worker, peer, NEW)
    send(worker, to, 7)
    tick_after(worker, 2 * CONFIRM_SECONDS)
    assert stored(worker) == (0, None, NEW)
    peer.takes = True
    tick_after(worker, 1)
    assert stored(worker) == (7, None, LIVE)


def test_a_peer_that_left_while_the_worker_stood_still_has_nothing_confirmed(
    worker: Worker,
) -> None:
    """It never read what its kernel took; the ledger's turn may come before the watch's."""
    peer = StubbornPeer()
    to = connect(worker, peer)
    send(worker, to, 7)
    peer.left = True
    tick_after(worker, 2 * CONFIRM_SECONDS)
    assert stored(worker)[0] == 0
    worker.ledger.close(to, 9)
    worker.ledger.flush()
    assert stored(worker) == (0, 7, LIVE)


def test_subscribed_counts_as_arrived_as_soon_as_the_peer_took_it(worker: Worker) -> None:
    """A client may come back within the second; its position waits all the same."""
    to = connect(worker, state=NEW)
    assert worker.ledger.tick() == delivery.NEW_TICK_SECONDS
    assert stored(worker)[2] == NEW, "nothing was written yet"
    send(worker, to, 7)
    assert worker.ledger.tick() == delivery.TICK_SECONDS
    assert stored(worker) == (0, None, LIVE)


def test_a_later_frame_does_not_put_off_an_earlier_one(worker: Worker) -> None:
    to = connect(worker)
    for second in range(60):
        send(worker, to, second)
        worker.clock.now += 1
    worker.ledger.tick()
    assert stored(worker)[0] == pytest.approx(60 - CONFIRM_SECONDS, abs=2)


def test_frames_of_one_second_wait_as_one(worker: Worker) -> None:
    """Memory: a stream that gets thousands of frames a second keeps one entry for each second."""
    to = connect(worker)
    for number in range(1, 100):
        send(worker, to, number, change=number == 5)
        worker.clock.now += 0.001
    assert len(to.written) == 1
    tick_after(worker, CONFIRM_SECONDS + 1)
    assert stored(worker)[0] == 99, "one of them was a change, so it is stored at once"


def test_what_is_never_confirmed_takes_no_more_and_no_more_memory(worker: Worker) -> None:
    """A peer that is sent something new before it has taken what was sent before."""
    peer = StubbornPeer(takes=True)
    to = connect(worker, peer)
    tick_after(worker, 1)
    peer.takes = False
    for number in range(1, 5_000):
        send(worker, to, number)
        worker.clock.now += 1
    assert len(to.written) <= delivery.MOST_WRITTEN
    peer.takes = True
    worker.ledger.tick()
    assert 4_800 <= stored(worker)[0] <= 5_000 - CONFIRM_SECONDS
    tick_after(worker, CONFIRM_SECONDS)
    assert stored(worker)[0] == 4_999


def test_what_only_follows_the_journal_is_stored_now_and_then(worker: Worker) -> None:
    to = connect(worker)
    for _ in range(int(delivery.IDLE_STORE_SECONDS * 0.8 / 25) - 1):
        send(worker, to, to.position + 1, change=False)
        tick_after(worker, 25)
    assert to.position > 0
    assert stored(worker)[0] == 0
    seen_at = worker.subscription().seen_at
    tick_after(worker, delivery.IDLE_STORE_SECONDS)
    assert stored(worker)[0] > 0
    assert worker.subscription().seen_at > seen_at


def test_an_end_stores_what_was_delivered_and_what_was_sent(worker: Worker) -> None:
    to = connect(worker)
    send(worker, to, 3)
    tick_after(worker, CONFIRM_SECONDS + 1)
    send(worker, to, 7)
    worker.ledger.close(to, 9)
    worker.ledger.flush()
    assert stored(worker) == (3, 7, LIVE)


def test_at_an_end_with_nothing_unconfirmed_what_was_dropped_counts_as_delivered(
    worker: Worker,
) -> None:
    to = connect(worker)
    send(worker, to, 3)
    tick_after(worker, CONFIRM_SECONDS + 1)
    worker.ledger.close(to, 9)
    worker.ledger.flush()
    assert stored(worker) == (9, 9, LIVE)


def test_a_keep_alive_that_says_nothing_new_leaves_nothing_to_confirm(worker: Worker) -> None:
    """Else a client that leaves within its confirmation would not have heard what was dropped."""
    to = connect(worker)
    send(worker, to, 0, change=False)
    assert to.written == ()
    worker.ledger.close(to, 9)
    worker.ledger.flush()
    assert stored(worker) == (9, 9, LIVE)


def test_at_an_end_in_the_middle_of_a_write_nothing_more_counts(worker: Worker) -> None:
    to = connect(worker)
    send(worker, to, 3)
    tick_after(worker, CONFIRM_SECONDS + 1)
    to.sending(9)
    worker.ledger.close(to, 9)
    worker.ledger.flush()
    assert stored(worker) == (3, 9, LIVE)


@pytest.mark.parametrize(("takes", "state"), [(True, LIVE), (False, NEW)])
def test_an_end_right_after_subscribed_asks_the_peer(
    worker: Worker, *, takes: bool, state: str
) -> None:
    to = connect(worker, StubbornPeer(takes=takes), NEW)
    send(worker, to, 0, change=False)
    worker.ledger.close(to, 0)
    worker.ledger.flush()
    assert stored(worker)[2] == state


def test_an_end_before_subscribed_was_written_leaves_it_new(worker: Worker) -> None:
    to = connect(worker, state=NEW)
    to.sending(0)
    worker.ledger.close(to, 0)
    worker.ledger.flush()
    assert stored(worker)[2] == NEW


def test_an_end_that_must_start_afresh_is_stored_as_such(worker: Worker) -> None:
    to = connect(worker)
    to.state = FRESH
    worker.ledger.close(to, 0)
    worker.ledger.flush()
    assert stored(worker)[2] == FRESH


def test_a_second_close_changes_nothing(worker: Worker) -> None:
    to = connect(worker)
    worker.ledger.close(to, 3)
    worker.ledger.close(to, 99)
    worker.ledger.flush()
    assert stored(worker)[0] == 3


def test_while_the_database_is_away_standings_wait_and_the_newest_is_stored_later(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    to = connect(worker)
    worker.database.away = True
    for position in (3, 7):
        send(worker, to, position)
        assert tick_after(worker, CONFIRM_SECONDS + 1) == delivery.RETRY_SECONDS
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"
    worker.database.away = False
    assert worker.ledger.tick() == delivery.TICK_SECONDS
    assert stored(worker)[0] == 7
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_an_end_while_the_database_is_away_is_stored_later(worker: Worker) -> None:
    to = connect(worker)
    send(worker, to, 3)
    worker.database.away = True
    worker.ledger.close(to, 3)
    assert not worker.ledger.flush()
    worker.database.away = False
    assert worker.ledger.flush()
    assert stored(worker) == (0, 3, LIVE)


def test_only_the_newest_generation_moves_the_cursor(worker: Worker) -> None:
    """A late death of a half-open connection never disturbs the newer one."""
    older = connect(worker)
    newer = connect(worker)
    send(worker, older, 9)
    tick_after(worker, CONFIRM_SECONDS + 1)
    assert stored(worker)[0] == 0
    send(worker, newer, 5)
    tick_after(worker, CONFIRM_SECONDS + 1)
    worker.ledger.close(older, 9)
    worker.ledger.flush()
    assert stored(worker) == (5, None, newer.state)


def test_a_standing_from_before_a_restore_does_not_replace_one_from_after_it(
    worker: Worker,
) -> None:
    """The restored table gave the same generation to the client's next connection."""
    older = connect(worker)
    worker.database.write(lambda db: db.execute(schema.subscription.delete()))
    worker.database.write(lambda db: journal.raise_epoch(db, older.epoch))
    newer = connect(worker)
    assert newer.generation == older.generation
    worker.database.away = True
    worker.ledger.close(newer, 5)
    worker.ledger.close(older, 9)
    assert not worker.ledger.flush()
    worker.database.away = False
    worker.ledger.flush()
    assert stored(worker) == (5, 5, LIVE)


def test_more_standings_than_one_statement_takes_are_all_stored(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FLUSH_MARKS", 2)
    clients = [f"{number:08}{CLIENT[8:]}" for number in range(5)]
    for client_id in clients:
        start = subscriptions.connect(
            worker.database, watcher(client_id=client_id), None, PACE.limits
        )
        key = subscriptions.key_of(watcher(client_id=client_id))
        assert key is not None
        assert start.generation is not None
        to = Delivery(key, start.epoch, start.generation, StubbornPeer(), 0, LIVE)
        worker.ledger.open(to)
        worker.ledger.close(to, 4)
    assert worker.ledger.flush()
    assert [worker.subscription(client_id).position for client_id in clients] == [4] * 5


def test_a_standing_that_comes_while_an_older_one_is_being_stored_is_stored_too(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends while its last tick waits for the database."""
    to = connect(worker)
    send(worker, to, 3)
    worker.clock.now += CONFIRM_SECONDS + 1
    write = worker.database.write

    def write_and_close(work: Callable[[Connection], object]) -> object:
        found = write(work)
        worker.ledger.close(to, 9)
        return found

    monkeypatch.setattr(worker.database, "write", write_and_close)
    worker.ledger.tick()
    assert stored(worker) == (9, 9, LIVE)


def test_a_connection_that_ends_during_a_look_at_many_keeps_its_last_standing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at ten thousand lets streams run in between, and one of them may end."""
    monkeypatch.setattr(delivery, "DELIVERIES_IN_PASS", 1)
    first, second = connect(worker), connect(worker)
    for to in (first, second):
        send(worker, to, 7)
    monkeypatch.setattr("events_app.passes.pause", lambda: worker.ledger.close(second, 9))
    tick_after(worker, CONFIRM_SECONDS + 1)
    assert stored(worker) == (0, 7, LIVE)

"""One connection's life, frame by frame, on a clock that the test owns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from events_app import ending, journal, resumption, schema, sse, stream, subscriptions
from events_app.event import Cursor
from events_app.window import Window
from tests.worker import CLIENT, OTHER, PACE, Connected, StubbornPeer, Worker, make, watcher


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = make(request)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ends come at the earliest moment they may."""
    monkeypatch.setattr(random, "uniform", lambda least, _: least)


def position(cursor: str | None) -> int:
    found = Cursor.parse(cursor or "")
    assert found is not None, cursor
    return found.point.position


def forget_window(worker: Worker) -> None:
    """Make every stream read by SQL."""
    worker.tailer._window = Window(worker.tailer.end)


def known_client(worker: Worker, client_id: str = CLIENT, path: str = "/") -> None:
    """Connect once, so that the client has a past."""
    first = worker.stream(watcher(path, client_id))
    first.expect("subscribed")
    first.expect("keep-alive")
    first.close()


# -- the first frame -----------------------------------------------------------------------------


def test_the_first_frame_is_there_at_once_and_says_subscribed(worker: Worker) -> None:
    worker.commit("create", "/before")
    reader = worker.stream()
    first = reader.expect("subscribed")
    assert reader.age == 0
    assert first.data == "[]"
    assert position(first.id) == worker.tailer.end.position


def test_only_the_frame_that_begins_says_how_long_to_wait(worker: Worker) -> None:
    """Every client that goes by the standard knows it from then on."""
    worker.database.away = True
    reader = worker.stream(debounce=0)
    reader.expect("keep-alive")
    worker.database.away = False
    worker.later(1.5, "create", "/a")
    worker.clock.at(worker.clock.now + 2, reader.stream.stop)
    written = list(reader.frames)
    assert [frame.split(b"\n")[0] for frame in written] == [
        b"event: subscribed",
        b"event: event",
        b"event: reconnect-required",
    ]
    assert [frame.count(b"\nretry: 1000\n") for frame in written] == [1, 0, 0]
    assert b"".join(written).count(b"retry") == 1


def test_without_a_client_id_nothing_is_remembered(worker: Worker) -> None:
    for _ in range(2):
        reader = worker.stream(watcher(client_id=None))
        reader.expect("subscribed")
        reader.expect("keep-alive")
        reader.close()


def test_a_known_client_resumes_with_what_it_missed(worker: Worker) -> None:
    known_client(worker)
    worker.commit("create", "/missed")
    reader = worker.stream()
    reader.expect("resumed")
    worker.clock.now += 5
    assert reader.told() == [("create", "/missed", "")]


def test_last_event_id_resumes_exactly_and_renames_are_renames(worker: Worker) -> None:
    known_client(worker)
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    worker.commit("create", "/a", file_id="1")
    seen = reader.expect("event")
    worker.commit("rename", "/a", "/b", file_id="1")
    reader.expect("event")
    reader.close()
    again = worker.stream(last_event_id=seen.id, debounce=0)
    assert again.expect("resumed").id == seen.id
    assert again.told() == [("rename", "/a", "/b")]


@pytest.mark.parametrize("text", ["garbage", "AQAAAABlU_EAAAAAAAAAAQLerb7vYWJjZGVmZ2g"])
def test_a_last_event_id_that_is_none_of_ours_starts_afresh(worker: Worker, text: str) -> None:
    """It wins over a stored cursor that would have resumed: the client says where it is."""
    known_client(worker)
    worker.stream(last_event_id=text).expect("subscribed")


def test_a_cursor_of_another_folder_or_user_starts_afresh(worker: Worker) -> None:
    cursor = worker.stream().expect("subscribed").id
    worker.stream(watcher("/docs"), cursor).expect("subscribed")
    worker.stream(watcher(user_id="43"), cursor).expect("subscribed")
    worker.stream(watcher(client_id=OTHER), cursor).expect("resumed")


# -- settle --------------------------------------------------------------------------------------


def test_a_run_is_sent_when_it_was_quiet_for_the_debounce(worker: Worker) -> None:
    reader = worker.stream()
    reader.expect("subscribed")
    worker.later(1, "create", "/a")
    worker.later(4, "modify", "/b")
    assert reader.told() == [("create", "/a", ""), ("modify", "/b", "")]
    assert reader.age == pytest.approx(9, abs=0.5)


def test_constant_activity_never_starves_a_client(worker: Worker) -> None:
    reader = worker.stream()
    reader.expect("subscribed")
    for second in range(1, 40):
        worker.later(second, "modify", f"/{second}")
    frame = reader.expect("keep-alive")
    assert position(frame.id) == 0, "the run still waits"
    told = reader.told()
    assert reader.age == pytest.approx(31, abs=0.5)
    assert len(told) in {30, 31}


def test_rows_that_are_old_already_go_out_at_once(worker: Worker) -> None:
    known_client(worker)
    worker.commit("create", "/missed")
    worker.clock.now += 60
    reader = worker.stream()
    reader.expect("resumed")
    assert reader.told() == [("create", "/missed", "")]
    assert reader.age == 0


def test_without_a_debounce_a_change_goes_out_at_once(worker: Worker) -> None:
    reader = worker.stream(debounce=0)
    reader.expect("subscribed")
    worker.later(3, "create", "/a")
    reader.expect("event")
    assert reader.age == 3


# -- ids -----------------------------------------------------------------------------------------


def test_no_id_passes_a_row_that_waits(worker: Worker) -> None:
    """Keep-alives while a run settles repeat the place before it."""
    reader = worker.stream(debounce=100, debounce_max=100)
    begin = reader.expect("subscribed").id
    worker.commit("create", "/a")
    worker.commit("create", "/theirs", user_id="43")
    assert [reader.expect("keep-alive").id for _ in range(3)] == [begin] * 3
    assert position(reader.expect("event").id) == 2
    reader.close()
    again = worker.stream(last_event_id=begin)
    again.expect("resumed")
    assert again.told() == [("create", "/a", "")]


def test_a_keep_alive_carries_the_newest_place_of_a_silent_folder(worker: Worker) -> None:
    reader = worker.stream(watcher("/docs"))
    reader.expect("subscribed")
    worker.commit("create", "/elsewhere")
    worker.commit("create", "/theirs", user_id="43")
    worker.commit("create", "/docs/mine", client_id=CLIENT)
    assert position(reader.expect("keep-alive").id) == 3
    assert reader.age == 25


def test_what_was_folded_away_is_passed(worker: Worker) -> None:
    reader = worker.stream()
    reader.expect("subscribed")
    worker.commit("create", "/a", file_id="1")
    worker.commit("delete", "/a", file_id="1")
    assert position(reader.expect("keep-alive").id) == 2


def test_of_a_split_batch_only_the_last_frame_moves_the_id(worker: Worker) -> None:
    reader = worker.stream(debounce=0)
    begin = reader.expect("subscribed").id
    write_large_batch(worker)
    frames = [reader.expect("event") for _ in range(3)]
    assert [position(frame.id) for frame in frames[:-1]] == [position(begin)] * 2
    assert position(frames[-1].id) == worker.tailer.end.position
    assert sum(len(frame.changes) for frame in frames) == LARGE
    again = worker.stream(last_event_id=frames[1].id, debounce=0)
    again.expect("resumed")
    assert again.expect("event").data == frames[0].data, "the batch comes again, whole"


def test_in_object_mode_only_the_last_change_of_a_batch_moves_the_id(worker: Worker) -> None:
    reader = worker.stream(payload="object")
    begin = reader.expect("subscribed").id
    worker.commit("create", "/a")
    worker.commit("create", "/b")
    first, second = reader.expect("event"), reader.expect("event")
    assert (position(first.id), position(second.id)) == (position(begin), 2)
    assert first.data == '{"type":"create","file_id":"f-/a","from":"/a","to":""}'


def test_a_part_of_a_batch_repeats_the_id_that_the_client_has(worker: Worker) -> None:
    """What is none of its business moved the place since; the client would take half for all."""
    reader = worker.stream(watcher("/docs"), payload="object")
    begin = reader.expect("subscribed").id
    worker.commit("create", "/elsewhere")
    worker.commit("create", "/docs/a")
    worker.commit("create", "/docs/b")
    parts = [reader.expect("event").id for _ in range(2)]
    assert parts[0] == begin
    worker.commit("create", "/elsewhere/too")
    worker.commit("create", "/docs/c")
    worker.commit("create", "/docs/d")
    assert reader.expect("event").id == parts[1]
    reader.close()


# Of 4,000 bytes each: two and a half frames of them.
LARGE = 20


def write_large_batch(worker: Worker) -> None:
    for number in range(LARGE):
        worker.write("create", f"/{number:04000}", file_id=str(number))
    worker.turn()


# -- own changes and others' ---------------------------------------------------------------------


def test_own_changes_are_left_out_and_the_others_stay_in_order(worker: Worker) -> None:
    reader = worker.stream()
    reader.expect("subscribed")
    worker.commit("create", "/1", client_id=OTHER)
    worker.commit("create", "/2", client_id=CLIENT)
    worker.commit("create", "/3", client_id=CLIENT, actor_id="7")
    worker.commit("create", "/4")
    assert reader.told() == [("create", f"/{number}", "") for number in (1, 3, 4)]


def test_two_folders_of_one_client_are_two_streams(worker: Worker) -> None:
    docs, pictures = worker.stream(watcher("/docs")), worker.stream(watcher("/pictures"))
    docs.expect("subscribed")
    pictures.expect("subscribed")
    worker.commit("rename", "/docs/a", "/pictures/b")
    assert docs.told() == [("delete", "/a", "")]
    assert pictures.told() == [("create", "/b", "")]


# -- pages ---------------------------------------------------------------------------------------


def test_a_stream_behind_the_window_reads_pages_and_goes_live_without_gap_or_repeat(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PAGE_ROWS", 3)
    known_client(worker)
    for number in range(10):
        worker.commit("create", f"/{number}")
    forget_window(worker)
    worker.clock.now += 60
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    worker.later(1, "create", "/10")
    paths: list[str] = []
    while len(paths) < 11:
        paths += [path for _, path, _ in reader.told()]
    assert paths == [f"/{number}" for number in range(11)]


def test_a_replay_that_pruning_overtook_ends_and_the_next_connect_is_subscribed(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PAGE_ROWS", 3)
    known_client(worker)
    for number in range(10):
        worker.commit("create", f"/{number}")
    forget_window(worker)
    worker.clock.now += 60
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    assert [path for _, path, _ in reader.told()] == ["/0", "/1", "/2"]
    worker.database.write(lambda db: journal.prune(db, -1))
    ended_by_fresh_start(worker, reader)


# -- a second delivery ---------------------------------------------------------------------------


def test_what_may_come_a_second_time_has_no_renames(worker: Worker) -> None:
    known_client(worker)
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    worker.commit("rename", "/a", "/b", file_id="1")
    assert reader.told() == [("rename", "/a", "/b")]
    reader.close()
    worker.commit("rename", "/b", "/c", file_id="1")
    again = worker.stream(debounce=0)
    again.expect("resumed")
    assert again.told() == [("delete", "/a", ""), ("create", "/b", ""), ("rename", "/b", "/c")]


def test_after_a_crash_everything_up_to_the_connect_may_come_a_second_time(worker: Worker) -> None:
    known_client(worker)
    crashed = worker.stream(debounce=0)
    crashed.expect("resumed")
    worker.commit("rename", "/a", "/b", file_id="1")
    worker.commit("rename", "/b", "/c", file_id="1")
    again = worker.stream(debounce=0)
    again.expect("resumed")
    told = again.told()
    assert ("rename", "/b", "/c") not in told
    assert told[-1] == ("create", "/c", "")


def test_a_short_connection_does_not_make_a_second_delivery_a_first_one(worker: Worker) -> None:
    """What the connection before it sent may still have arrived."""
    known_client(worker)
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    worker.commit("rename", "/a", "/b", file_id="1")
    assert reader.told() == [("rename", "/a", "/b")]
    reader.close()
    short = worker.stream()
    short.expect("resumed")
    short.close()
    again = worker.stream(debounce=0)
    again.expect("resumed")
    assert again.told() == [("delete", "/a", ""), ("create", "/b", "")]


def test_a_part_of_a_batch_may_have_arrived_without_its_end(worker: Worker) -> None:
    known_client(worker)
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    worker.write("rename", "/a", "/b", file_id="r")
    write_large_batch(worker)
    assert ("rename", "/a", "/b") in reader.told()
    reader.close()
    again = worker.stream(debounce=0)
    again.expect("resumed")
    assert again.told()[:2] == [("delete", "/a", ""), ("create", "/b", "")]


def test_an_id_before_the_end_of_a_second_delivery_says_that_it_is_one(worker: Worker) -> None:
    """The client has the rename from an earlier connection, and comes back with a later id."""
    known_client(worker)
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    worker.commit("rename", "/a", "/b", file_id="1")
    assert reader.told() == [("rename", "/a", "/b")]
    reader.close()
    resumed = worker.stream().expect("resumed")
    again = worker.stream(last_event_id=resumed.id, debounce=0)
    again.expect("resumed")
    assert again.told() == [("delete", "/a", ""), ("create", "/b", "")]


# -- nothing is lost with a connection -----------------------------------------------------------


def test_a_frame_that_could_not_be_written_is_not_delivered(worker: Worker) -> None:
    """Everything before it was confirmed long ago, and then the write of a change fails."""
    known_client(worker)
    reader = worker.stream(debounce=0, keep_alive=1_000)
    reader.expect("resumed")
    worker.clock.at(worker.clock.now + 40, worker.ledger.tick)
    worker.later(50, "create", "/a")
    reader.expect("event")
    assert not delivery_of(worker).written, "everything before was confirmed"
    reader.close()
    again = worker.stream(debounce=0)
    again.expect("resumed")
    assert again.told() == [("create", "/a", "")]


def delivery_of(worker: Worker) -> Any:
    (found,) = worker.ledger._deliveries.values()
    return found


def test_what_could_not_be_made_a_frame_is_not_delivered(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was folded already when it failed."""
    known_client(worker)
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    worker.commit("create", "/a")

    def fail(*arguments: Any) -> Any:
        raise MemoryError(f"no room for {len(arguments)} things")

    with monkeypatch.context() as patched:
        patched.setattr(sse, "event_frames", fail)
        with pytest.raises(MemoryError):
            reader.frame()
    reader.close()
    again = worker.stream(debounce=0)
    again.expect("resumed")
    assert again.told() == [("create", "/a", "")]


def test_a_client_whose_subscribed_never_arrived_is_subscribed_again(worker: Worker) -> None:
    """Else it would never list."""
    reader = worker.stream(peer=StubbornPeer(takes=False))
    reader.expect("subscribed")
    reader.expect("keep-alive")
    reader.close()
    assert worker.subscription().state == schema.NEW
    worker.stream().expect("subscribed")


@pytest.mark.parametrize("count", range(1, 9))
def test_wherever_a_stream_breaks_off_nothing_is_left_behind_and_nothing_is_lost(
    worker: Worker, count: int
) -> None:
    known_client(worker)
    worker.commit("create", "/missed")
    reader = worker.stream(debounce=0)
    worker.later(1, "create", "/1")
    worker.clock.at(worker.clock.now + 2, lambda: write_large_batch(worker))
    worker.later(3, "create", "/3")
    frames = [reader.frame() for _ in range(count)]
    reader.close()
    assert worker.holds_nothing()
    heard = {path for frame in frames[:-1] for path in paths_of(frame)}
    again = worker.stream(debounce=0)
    again.expect("resumed")
    while again.age < 60:
        heard |= set(paths_of(again.frame()))
    again.close()
    assert worker.holds_nothing()
    assert heard == set(worker.database.read(journal_paths))
    assert len(heard) == LARGE + 3


def journal_paths(connection: Any) -> list[str]:
    return [row.from_path for row in journal.after(connection, 0, 1_000)]


def paths_of(frame: Any) -> list[str]:
    return [each["from"] for each in frame.changes] if frame.name == "event" else []


def test_a_stream_that_was_never_read_leaves_nothing_behind(worker: Worker) -> None:
    worker.stream().close()
    assert worker.holds_nothing()
    assert worker.subscription() is None


def test_a_stream_ends_at_once_when_its_peer_has_closed(worker: Worker) -> None:
    reader = worker.stream()
    reader.expect("subscribed")
    worker.clock.at(worker.clock.now + 3, reader.stream.peer_closed)
    assert reader.rest() == []
    assert reader.age == 3
    assert worker.holds_nothing()


def test_a_part_of_a_batch_that_arrived_does_not_move_the_stored_cursor(worker: Worker) -> None:
    known_client(worker)
    reader = worker.stream(debounce=0)
    reader.expect("resumed")
    write_large_batch(worker)
    first = reader.expect("event")
    reader.expect("event")
    worker.clock.now += 40
    worker.ledger.tick()
    assert worker.subscription().position == 0
    reader.close()
    again = worker.stream(debounce=0)
    again.expect("resumed")
    assert again.expect("event").data == first.data


# -- ends ----------------------------------------------------------------------------------------


def fresh(cursor: str | None) -> Cursor:
    found = Cursor.parse(cursor or "")
    assert found is not None
    return found.fresh()


def ended_by_fresh_start(worker: Worker, reader: Connected, who: Any = None) -> None:
    """Keep-alives until ten seconds are over, then the end; what follows is `subscribed`."""
    *held, last = reader.rest()
    assert {frame.name for frame in held} <= {"keep-alive"}
    assert last.name == "reconnect-required"
    assert last.data == "[]"
    assert reader.age == ending.LEAST_LIFE_SECONDS
    worker.ledger.flush()
    assert worker.holds_nothing()
    assert worker.subscription().state == schema.FRESH
    assert Cursor.parse(last.id or "") == fresh(last.id)
    worker.stream(who, last.id).expect("subscribed")
    worker.stream(who).expect("subscribed")


@pytest.mark.parametrize(
    ("kind", "path", "to_path"),
    [("delete", "/docs", None), ("rename", "/x", "/docs"), ("create", "/a/../b", None)],
    ids=["root gone", "root replaced", "rejected row"],
)
def test_a_stream_that_cannot_go_on_tells_what_came_before_and_then_asks_to_come_back(
    worker: Worker, kind: str, path: str, to_path: str | None
) -> None:
    docs = watcher("/docs")
    known_client(worker, path="/docs")
    reader = worker.stream(docs, keep_alive=3)
    reader.expect("resumed")
    worker.commit("create", "/docs/before")
    worker.commit(kind, path, to_path)
    worker.commit("create", "/docs/after")
    assert reader.told() == [("create", "/before", "")]
    assert reader.age == 0, "what was pending does not wait"
    ended_by_fresh_start(worker, reader, docs)


def test_an_old_stream_ends_at_once_when_its_root_goes(worker: Worker) -> None:
    reader = worker.stream(watcher("/docs"))
    reader.expect("subscribed")
    worker.later(15, "delete", "/docs")
    assert [frame.name for frame in reader.rest()] == ["reconnect-required"]
    assert reader.age == 15


def test_a_raised_epoch_ends_every_stream(worker: Worker) -> None:
    known_client(worker)
    reader = worker.stream()
    reader.expect("resumed")
    epoch = worker.tailer.epoch
    assert epoch is not None
    worker.database.write(lambda db: journal.raise_epoch(db, epoch))
    worker.turn()
    ended_by_fresh_start(worker, reader)


@pytest.mark.parametrize(("token_seconds", "age"), [(40.0, 40), (3.0, 10), (-50.0, 10)])
def test_a_stream_ends_with_its_token_but_not_within_ten_seconds(
    worker: Worker, token_seconds: float, age: float
) -> None:
    reader = worker.stream(token_seconds=token_seconds)
    begin = reader.expect("subscribed").id
    *_, last = reader.rest()
    assert (last.name, last.id) == ("reconnect-required", begin), "which resumes"
    assert reader.age == age
    worker.ledger.flush()
    worker.stream().expect("resumed")


def test_a_stream_whose_token_was_revoked_ends_at_once_and_loses_nothing(worker: Worker) -> None:
    reader = worker.stream()
    begin = reader.expect("subscribed").id
    worker.commit("create", "/a")
    worker.clock.at(worker.clock.now + 2, reader.stream.revoke)
    (last,) = reader.rest()
    assert (last.name, last.id) == ("reconnect-required", begin), "which resumes, before the change"
    assert reader.age == 2
    reader.close()
    assert worker.tally.ended == {"token_revoked": 1}
    assert worker.holds_nothing()
    again = worker.stream()
    again.expect("resumed")
    assert again.told() == [("create", "/a", "")]


@pytest.mark.parametrize("end", ["revoke", "stop"])
def test_who_reads_more_slowly_than_changes_come_is_ended_too(worker: Worker, end: str) -> None:
    """There is always something to be told when a frame has been taken."""
    reader = worker.stream(debounce=0, drain=0)
    reader.expect("subscribed")
    for name in ("/a", "/b", "/c"):
        worker.commit("create", name)
        told = reader.expect("event")
    worker.commit("create", "/d")
    getattr(reader.stream, end)()
    last = reader.expect("reconnect-required")
    assert last.id == told.id
    again = worker.stream(last_event_id=last.id, debounce=0)
    again.expect("resumed")
    assert again.told() == [("create", "/d", "")]


def test_who_sends_no_more_and_reads_on_slowly_is_not_told_for_ever(worker: Worker) -> None:
    reader = worker.stream(debounce=0)
    reader.expect("subscribed")
    worker.commit("create", "/a")
    reader.expect("event")
    worker.commit("create", "/b")
    reader.stream.peer_closed()
    assert reader.rest() == []


def test_a_held_stream_whose_token_was_revoked_ends_too(worker: Worker) -> None:
    worker.database.away = True
    reader = worker.stream()
    reader.expect("keep-alive")
    reader.stream.revoke()
    assert [frame.name for frame in reader.rest()] == ["reconnect-required"]


def test_a_token_without_end_keeps_its_stream(worker: Worker) -> None:
    reader = worker.stream(token_seconds=float("inf"))
    reader.expect("subscribed")
    for _ in range(100):
        reader.expect("keep-alive")


@pytest.mark.parametrize(("lifetime", "age"), [(60.0, 60), (2.0, 10), (90_000.0, 86_400)])
def test_a_stream_ends_after_its_lifetime(worker: Worker, lifetime: float, age: float) -> None:
    reader = worker.stream(lifetime=lifetime)
    names = [frame.name for frame in reader.rest()]
    assert names[0] == "subscribed"
    assert names[-1] == "reconnect-required"
    assert set(names[1:-1]) <= {"keep-alive"}
    assert reader.age == age


def test_tokens_that_expire_together_end_their_streams_apart(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = []
    for share in (0.0, 0.5, 1.0):
        monkeypatch.setattr(random, "uniform", lambda _, most, share=share: share * most)
        reader = worker.stream(token_seconds=40)
        reader.rest()
        ages.append(reader.age)
    assert ages == [40, 42.5, 45]


def test_at_shutdown_the_ends_are_spread_over_the_drain(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [worker.stream(watcher(client_id=None), drain=5) for _ in range(6)]
    for reader in readers:
        reader.expect("subscribed")
    shares = iter([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    monkeypatch.setattr(random, "uniform", lambda _, most: next(shares) * most)
    for reader in readers:
        reader.stream.stop()
        reader.stream.stop()
    ages = []
    for reader in readers:
        assert [frame.name for frame in reader.rest()] == ["reconnect-required"]
        ages.append(reader.age)
    assert ages == [0, 1, 2, 3, 4, 5]


def test_what_waits_at_shutdown_is_not_lost(worker: Worker) -> None:
    known_client(worker)
    reader = worker.stream()
    begin = reader.expect("resumed").id
    worker.commit("create", "/a")
    reader.stream.stop()
    (last,) = reader.rest()
    assert (last.name, last.id) == ("reconnect-required", begin)
    worker.ledger.flush()
    again = worker.stream(debounce=0)
    again.expect("resumed")
    assert again.told() == [("create", "/a", "")]


@pytest.mark.parametrize("stop_first", [True, False])
def test_a_stream_whose_root_is_gone_ends_in_time_at_shutdown(
    worker: Worker, *, stop_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ten seconds do not count at shutdown: the worker would be killed meanwhile."""
    monkeypatch.setattr(random, "uniform", lambda _, most: most)
    reader = worker.stream(watcher("/docs"), drain=2, keep_alive=1)
    reader.expect("subscribed")
    if stop_first:
        reader.stream.stop()
    worker.commit("delete", "/docs")
    reader.expect("keep-alive")
    if not stop_first:
        reader.stream.stop()
    stopped_at = 0 if stop_first else reader.age
    *_, last = reader.rest()
    assert reader.age == pytest.approx(stopped_at + 2)
    worker.stream(watcher("/docs"), last.id).expect("subscribed")


# -- held ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("last_event_id", [None, "AQAAAABlU_EAAAAAAAAAAQLerb7vYWJjZGVmZ2g"])
def test_while_the_database_is_away_a_stream_is_held_on_keep_alives(
    worker: Worker, last_event_id: str | None
) -> None:
    worker.database.away = True
    reader = worker.stream(last_event_id=last_event_id, keep_alive=3)
    held = [reader.expect("keep-alive")]
    assert reader.age < 1
    held += [reader.expect("keep-alive") for _ in range(3)]
    assert [frame.id for frame in held] == [last_event_id] * 4, "its own, or none"
    worker.database.away = False
    reader.expect("subscribed")
    assert reader.age <= 0.8 + 3 * 3 + stream.RETRY_SECONDS


def test_a_client_that_was_held_resumes_when_the_database_is_back(worker: Worker) -> None:
    known_client(worker)
    worker.commit("create", "/missed")
    worker.database.away = True
    reader = worker.stream(debounce=0)
    reader.expect("keep-alive")
    worker.database.away = False
    reader.expect("resumed")
    assert reader.told() == [("create", "/missed", "")]


def test_the_log_tells_the_life_of_a_stream_under_one_correlation_id(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """What it waits for is said once, not with every try."""
    caplog.set_level("INFO", "events_app.chronicle")
    worker.database.away = True
    reader = worker.stream(keep_alive=3)
    for _ in range(3):
        reader.expect("keep-alive")
    worker.database.away = False
    reader.expect("subscribed")
    reader.stream.peer_closed()
    assert reader.rest() == []
    assert [record.message for record in caplog.records] == [
        "a stream waits for the database",
        "a stream begins",
        "a stream ends",
    ]
    told = [vars(record)["fields"] for record in caplog.records]
    assert len({(each["correlation_id"], each["user_id"], each["client_id"]) for each in told}) == 1
    assert (told[0]["user_id"], told[0]["client_id"]) == ("42", CLIENT)
    assert (told[1]["event"], told[1]["reason"]) == ("subscribed", "first connection")
    assert (told[2]["reason"], told[2]["seconds"]) == ("client_left", reader.age)


def test_a_held_stream_asks_the_database_once_a_second(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def connect(*_: Any) -> resumption.Start:
        asked.append(worker.clock.now)
        raise RuntimeError("away, by an error nobody foresaw")

    monkeypatch.setattr(subscriptions, "connect", connect)
    reader = worker.stream()
    reader.expect("keep-alive")
    reader.expect("keep-alive")
    assert reader.age == pytest.approx(25.8)
    assert len(asked) == 26


def test_a_held_stream_ends_with_its_token_and_says_its_own_id(worker: Worker) -> None:
    worker.database.away = True
    reader = worker.stream(last_event_id="theirs", token_seconds=12)
    *_, last = reader.rest()
    assert (last.name, last.id) == ("reconnect-required", "theirs")
    assert reader.age == 12


def test_a_stream_that_ends_before_it_could_begin_says_its_own_id(worker: Worker) -> None:
    """Its subscription was taken while a keep-alive was written; nothing has been told yet."""
    waiting: list[Callable[[], None]] = []
    around = worker.around(keep_alive=3)._replace(run_aside=waiting.append)
    request = stream.Request(watcher(), "theirs", "array", 10)
    reader = Connected(worker, stream.Stream(around, request, StubbornPeer()))
    for _ in range(4):
        assert reader.expect("keep-alive").id == "theirs"
    assert reader.age > 9
    worker.clock.now = reader.opened_at + 10
    waiting.pop()()
    last = reader.expect("reconnect-required")
    assert last.id == "theirs"
    assert reader.rest() == []


def test_while_a_backlog_is_moved_new_streams_are_held(worker: Worker) -> None:
    known_client(worker)
    worker.tailer.backlogged = True
    reader = worker.stream(keep_alive=3)
    assert reader.expect("keep-alive").id is None
    assert reader.age < 1
    reader.expect("keep-alive")
    assert worker.subscription().generation == 1, "it has not connected yet"
    worker.tailer.backlogged = False
    reader.expect("resumed")


def test_while_the_journal_cannot_be_followed_new_streams_are_held(worker: Worker) -> None:
    worker.tailer.trouble = "the database that came back is another one"
    reader = worker.stream(keep_alive=3)
    reader.expect("keep-alive")
    assert worker.subscription() is None, "it has not connected yet"
    worker.tailer.trouble = None
    reader.expect("subscribed")


def test_an_open_stream_lives_through_the_database_being_away(worker: Worker) -> None:
    reader = worker.stream(debounce=0)
    begin = reader.expect("subscribed").id
    worker.commit("create", "/a")
    forget_window(worker)
    worker.database.away = True
    assert reader.expect("keep-alive").id == begin
    worker.database.away = False
    assert reader.told() == [("create", "/a", "")]
    assert reader.age <= 25 + stream.RETRY_SECONDS


def test_a_stream_that_waits_for_a_page_keeps_alive(worker: Worker) -> None:
    """The page is read in another greenlet, which may take its time."""
    known_client(worker)
    worker.commit("create", "/missed")
    forget_window(worker)
    waiting: list[Callable[[], None]] = []
    around = worker.around(debounce=0)._replace(run_aside=waiting.append)
    request = stream.Request(watcher(), None, "array", 86_400)
    reader = Connected(worker, stream.Stream(around, request, StubbornPeer()))
    reader.expect("keep-alive")
    waiting.pop()()
    reader.expect("resumed")
    reader.expect("keep-alive")
    assert len(waiting) == 1, "one at a time"
    waiting.pop()()
    assert reader.told() == [("create", "/missed", "")]


def test_a_greenlet_that_begins_after_its_stream_ended_does_nothing(worker: Worker) -> None:
    """The client may be back already: a late connect would take the cursor from it."""
    waiting: list[Callable[[], None]] = []
    around = worker.around()._replace(run_aside=waiting.append)
    request = stream.Request(watcher(), None, "array", 86_400)
    reader = Connected(worker, stream.Stream(around, request, StubbornPeer()))
    reader.expect("keep-alive")
    reader.close()
    waiting.pop()()
    assert worker.holds_nothing()
    assert worker.subscription() is None


def test_every_name_that_a_stream_uses_is_one_of_the_five() -> None:
    assert {sse.SUBSCRIBED, sse.RESUMED, sse.EVENT, sse.KEEP_ALIVE, sse.RECONNECT_REQUIRED} == {
        "subscribed",
        "resumed",
        "event",
        "keep-alive",
        "reconnect-required",
    }


def test_streams_that_fall_silent_together_keep_alive_one_by_one(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them in one turn of the loop would stop it."""
    silences = []
    for share in (0, 0.5, 1):
        monkeypatch.setattr(random, "uniform", lambda _, most, share=share: share * most)
        reader = worker.stream(watcher(client_id=None))
        reader.expect("subscribed")
        reader.expect("keep-alive")
        silent_since = worker.clock.now
        reader.expect("keep-alive")
        silences.append(worker.clock.now - silent_since)
        reader.close()
    assert silences == [
        PACE.keep_alive * (1 - share * stream.KEEP_ALIVE_SPREAD) for share in (0, 0.5, 1)
    ]

"""A position moving along the journal: what was read, what waits, what may be claimed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from events_app import follower, journal, scope, window
from events_app.event import Point
from events_app.follower import Follower
from events_app.window import Window
from tests.worker import CLIENT, OTHER, Worker, make, watcher


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = make(request)
    yield made
    made.close()


def follow(
    worker: Worker,
    path: str = "/",
    start: Point | None = None,
    repeated_upto: int = 0,
    most: int = follower.RUN_CHANGES,
) -> Follower:
    assert worker.tailer.epoch is not None
    return Follower(
        worker.tailer,
        worker.database,
        worker.clock,
        watcher(path),
        worker.tailer.epoch,
        start or worker.tailer.end,
        repeated_upto,
        most,
    )


def read_all(reader: Follower) -> None:
    """Read until there is nothing more, by SQL where it must be."""
    while reader.advance() or reader.needs_page():
        if reader.needs_page():
            reader.fetch_page()


def is_due(worker: Worker, reader: Follower) -> bool:
    due_at = reader.due_at(5, 30)
    return due_at is not None and due_at <= worker.clock.now


def taken(reader: Follower) -> list[tuple[str, str, str]]:
    return [(each.type, each.from_path, each.to_path) for each in reader.take_run().changes]


def test_what_may_be_claimed_stays_before_a_run_that_waits(worker: Worker) -> None:
    reader = follow(worker, "/docs")
    worker.commit("create", "/elsewhere")
    read_all(reader)
    assert reader.read == reader.safe == worker.tailer.end
    before = reader.safe
    worker.commit("create", "/docs/a")
    worker.commit("create", "/elsewhere/b")
    read_all(reader)
    assert reader.read == worker.tailer.end
    assert reader.safe == before
    assert reader.take_run().after == worker.tailer.end
    assert reader.safe == worker.tailer.end


def test_own_changes_alone_make_no_run(worker: Worker) -> None:
    reader = follow(worker)
    worker.commit("create", "/mine", client_id=CLIENT)
    read_all(reader)
    assert reader.due_at(5, 30) is None
    assert reader.safe == worker.tailer.end


def test_own_changes_do_not_put_off_what_waits(worker: Worker) -> None:
    reader = follow(worker)
    worker.commit("create", "/a", client_id=OTHER)
    read_all(reader)
    due_at = reader.due_at(5, 30)
    worker.clock.now += 3
    worker.commit("create", "/mine", client_id=CLIENT)
    read_all(reader)
    assert reader.due_at(5, 30) == due_at
    assert taken(reader) == [("create", "/a", "")]


def test_another_users_rows_are_passed_and_not_told(worker: Worker) -> None:
    reader = follow(worker)
    worker.commit("create", "/theirs", user_id="43")
    read_all(reader)
    assert reader.due_at(5, 30) is None
    assert reader.safe == worker.tailer.end


def test_behind_the_window_it_reads_pages_until_it_has_caught_up(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PAGE_ROWS", 3)
    reader = follow(worker)
    for number in range(8):
        worker.commit("create", f"/{number}", user_id="42" if number != 4 else "43")
    worker.tailer._window = Window(worker.tailer.end)
    pages = []
    while reader.needs_page():
        reader.fetch_page()
        assert not reader.needs_page(), "one page at a time"
        assert reader.advance()
        pages.append(reader.read.position)
    assert pages == [3, 7, 8]
    assert reader.read == worker.tailer.end
    assert [path for _, path, _ in taken(reader)] == [
        f"/{number}" for number in (0, 1, 2, 3, 5, 6, 7)
    ]


def test_a_page_that_pruning_overtook_is_the_end(worker: Worker) -> None:
    """The rows it lacks are gone for good: only a fresh listing helps."""
    reader = follow(worker)
    for number in range(3):
        worker.commit("create", f"/{number}")
    worker.tailer._window = Window(worker.tailer.end)
    worker.clock.now += 1
    worker.database.write(lambda db: journal.prune(db, -1))
    reader.fetch_page()
    assert not reader.advance()
    assert reader.end is scope.End.OTHER_HISTORY
    assert reader.due_at(5, 30) is None


def test_a_page_of_another_epoch_is_the_end(worker: Worker) -> None:
    reader = follow(worker)
    worker.commit("create", "/a")
    worker.tailer._window = Window(worker.tailer.end)
    epoch = worker.tailer.epoch
    assert epoch is not None
    worker.database.write(lambda db: journal.raise_epoch(db, epoch))
    reader.fetch_page()
    assert not reader.advance()
    assert reader.end is scope.End.OTHER_HISTORY


def test_a_tailer_in_a_later_epoch_is_the_end(worker: Worker) -> None:
    reader = follow(worker)
    assert worker.tailer.epoch is not None
    worker.tailer.epoch += 1
    assert not reader.advance()
    assert reader.end is scope.End.OTHER_HISTORY


@pytest.mark.parametrize("epoch", [None, 1])
def test_a_tailer_that_is_not_there_yet_is_waited_for(worker: Worker, epoch: int | None) -> None:
    reader = follow(worker)
    worker.commit("create", "/a")
    present, worker.tailer.epoch = worker.tailer.epoch, epoch
    assert not reader.advance()
    assert not reader.needs_page()
    assert reader.end is None
    worker.tailer.epoch = present
    assert reader.advance()


@pytest.mark.parametrize(
    ("kind", "path", "columns", "end"),
    [
        ("delete", "/docs", {}, scope.End.ROOT_GONE),
        ("rename", "/docs", {"to_path": "/x"}, scope.End.ROOT_GONE),
        ("create", "/../x", {}, scope.End.ROW_REJECTED),
    ],
)
def test_what_came_before_the_end_is_told_and_nothing_after_it(
    worker: Worker, kind: str, path: str, columns: dict[str, Any], end: scope.End
) -> None:
    reader = follow(worker, "/docs")
    worker.commit("create", "/docs/before")
    before_the_end = worker.tailer.end
    worker.write(kind, path, **columns)
    worker.write("create", "/docs/after")
    worker.turn()
    read_all(reader)
    assert reader.end is end
    assert is_due(worker, reader), "at once: nothing better will come"
    assert taken(reader) == [("create", "/before", "")]
    assert reader.safe == before_the_end
    assert not reader.advance()


@pytest.mark.parametrize("by", ["window", "pages"])
def test_a_run_that_grows_too_long_is_due_as_it_is(
    worker: Worker, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded; the next run begins where this one ends, not a row later."""
    start = worker.tailer.end
    for number in range(5):
        worker.commit("create", f"/{number}")
    if by == "pages":
        monkeypatch.setattr(worker.tailer, "rows_after", lambda *_: None)
    reader = follow(worker, start=start, most=3)
    read_all(reader)
    assert is_due(worker, reader)
    assert not reader.advance(), "first this run must go"
    assert not reader.needs_page()
    assert taken(reader) == [("create", f"/{number}", "") for number in range(3)]
    read_all(reader)
    assert taken(reader) == [("create", f"/{number}", "") for number in range(3, 5)]


@pytest.mark.parametrize("by", ["window", "pages"])
def test_a_run_of_long_paths_is_due_as_it_is(
    worker: Worker, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand of 4 KB each would be 80 MB, for each of a user's streams."""
    monkeypatch.setattr(follower, "RUN_CHARACTERS", 30)
    start = worker.tailer.end
    paths = [f"/{number:09}" for number in range(4)]
    for path in paths:
        worker.commit("create", path)
    worker.commit("rename", paths[3], "/" + "x" * 20, file_id=f"f-{paths[3]}")
    if by == "pages":
        monkeypatch.setattr(worker.tailer, "rows_after", lambda *_: None)
    reader = follow(worker, start=start)
    read_all(reader)
    assert is_due(worker, reader)
    assert reader.is_full
    assert not reader.advance(), "first this run must go"
    assert not reader.needs_page()
    assert taken(reader) == [("create", path, "") for path in paths[:3]]
    assert not reader.is_full
    read_all(reader)
    assert reader.is_full
    assert taken(reader) == [("create", "/" + "x" * 20, "")]


def test_only_what_may_be_a_second_delivery_is_told_as_one(worker: Worker) -> None:
    start = worker.tailer.end
    worker.commit("create", "/a", file_id="1")
    worker.commit("rename", "/a", "/b", file_id="1")
    sent_upto = worker.tailer.end.position
    worker.commit("rename", "/b", "/c", file_id="1")
    reader = follow(worker, start=start, repeated_upto=sent_upto)
    read_all(reader)
    assert taken(reader) == [
        ("delete", "/a", ""),
        ("create", "/b", ""),
        ("rename", "/b", "/c"),
    ]


def test_the_age_of_a_row_counts_from_the_move(worker: Worker) -> None:
    """Rows that are older than the quiet time are due at once: a replay does not wait."""
    reader = follow(worker)
    worker.commit("create", "/a")
    worker.clock.now += 20
    read_all(reader)
    assert reader.due_at(5, 30) == pytest.approx(worker.clock.now - 15, abs=1)


def test_the_window_is_as_large_as_a_run_may_be() -> None:
    """What a stream that keeps up takes at once is bounded by the window."""
    assert window.WINDOW_ROWS <= follower.RUN_CHANGES

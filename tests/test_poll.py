"""Pages of changes: what a stream tells, told to clients that ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from events_app import errors, follower
from events_app.event import Cursor
from events_app.poll import Page, Poll
from tests.worker import CLIENT, OTHER, PACE, Worker, make, watcher

SETTLED = PACE.debounce


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = make(request)
    yield made
    assert made.holds_nothing()
    made.close()


def now(worker: Worker, path: str = "/") -> str:
    """Return the cursor "from now"."""
    return worker.poll(who=watcher(path)).page().cursor


def told(page: Page) -> list[tuple[str, str, str]]:
    return [(each.type, each.from_path, each.to_path) for each in page.changes]


def refused(poll: Poll) -> dict[str, object]:
    with pytest.raises(errors.CannotResume) as refusal:
        poll.page()
    assert refusal.value.data is not None
    return refusal.value.data


def test_without_a_cursor_one_is_given_and_nothing_is_told(worker: Worker) -> None:
    worker.commit("create", "/before")
    page = worker.poll().page()
    assert (page.changes, page.more) == ([], False)
    worker.commit("create", "/after")
    worker.clock.now += SETTLED
    assert told(worker.poll(page.cursor).page()) == [("create", "/after", "")]


def test_a_first_poll_is_answered_at_once_whatever_it_would_wait(worker: Worker) -> None:
    """Its cursor is for the listing that comes next; changes are waited for from there."""
    began = worker.clock.now
    page = worker.poll(wait_seconds=40).page()
    assert worker.clock.now == began
    assert Cursor.parse(page.cursor) is not None


def test_a_run_is_told_when_it_has_settled_and_the_cursor_stays_before_it_till_then(
    worker: Worker,
) -> None:
    first = now(worker)
    worker.commit("create", "/a.tmp", file_id="1")
    worker.clock.now += SETTLED - 1
    page = worker.poll(first).page()
    assert (page.changes, page.cursor) == ([], first)
    worker.commit("rename", "/a.tmp", "/a", file_id="1")
    worker.clock.now += SETTLED
    page = worker.poll(page.cursor).page()
    assert told(page) == [("create", "/a", "")]
    assert worker.poll(page.cursor).page() == Page([], page.cursor, more=False)


def test_an_answer_that_never_arrived_is_given_again(worker: Worker) -> None:
    first = now(worker)
    worker.commit("create", "/a")
    worker.clock.now += SETTLED
    assert worker.poll(first).page() == worker.poll(first).page()


def test_what_is_none_of_its_business_moves_the_cursor(worker: Worker) -> None:
    first = now(worker, "/docs")
    worker.commit("create", "/elsewhere")
    worker.commit("create", "/docs/mine", client_id=CLIENT)
    worker.commit("create", "/docs/theirs", user_id="43")
    page = worker.poll(first, watcher("/docs")).page()
    assert page.changes == []
    assert page.cursor != first


def test_a_wait_ends_when_a_run_settles(worker: Worker) -> None:
    first, began = now(worker), worker.clock.now
    worker.later(10, "create", "/a")
    page = worker.poll(first, wait_seconds=40).page()
    assert told(page) == [("create", "/a", "")]
    assert worker.clock.now - began == pytest.approx(10 + SETTLED, abs=1)


def test_a_wait_ends_in_time_with_nothing(worker: Worker) -> None:
    first, began = now(worker), worker.clock.now
    worker.later(38, "create", "/not settled by then")
    page = worker.poll(first, wait_seconds=40).page()
    assert page == Page([], first, more=False)
    assert worker.clock.now - began == pytest.approx(40)


def test_a_wait_for_a_place_is_part_of_the_wait(worker: Worker) -> None:
    """Else an answer would come when the client has given up, or its token has expired."""
    first, began = now(worker), worker.clock.now
    poll = worker.poll(first, wait_seconds=40)
    worker.clock.now += 10
    assert poll.page() == Page([], first, more=False)
    assert worker.clock.now - began == pytest.approx(40)


def test_what_folds_away_does_not_end_a_wait(worker: Worker) -> None:
    first = now(worker)
    worker.later(5, "create", "/a", file_id="1")
    worker.later(6, "delete", "/a", file_id="1")
    worker.later(20, "create", "/b")
    page = worker.poll(first, wait_seconds=40).page()
    assert told(page) == [("create", "/b", "")]


@pytest.mark.parametrize("end", ["stop", "give_up"])
def test_a_wait_ends_at_once_when_the_worker_stops_or_the_client_is_gone(
    worker: Worker, end: str
) -> None:
    first, began = now(worker), worker.clock.now
    poll = worker.poll(first, wait_seconds=40)
    worker.clock.at(began + 7, getattr(poll, end))
    assert poll.page() == Page([], first, more=False)
    assert worker.clock.now - began == pytest.approx(7)


def test_a_limit_cuts_what_is_folded_at_once_and_says_that_there_is_more(worker: Worker) -> None:
    first = now(worker)
    for number in range(5):
        worker.commit("create", f"/{number}")
    worker.clock.now += SETTLED
    pages = []
    more, cursor = True, first
    while more:
        page = worker.poll(cursor, rows=2).page()
        pages.append([each.from_path for each in page.changes])
        more, cursor = page.more, page.cursor
    assert pages == [["/0", "/1"], ["/2", "/3"], ["/4"]]


def test_long_paths_cut_a_page_too(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is left need not be waited for."""
    monkeypatch.setattr(follower, "RUN_CHARACTERS", 3)
    first = now(worker)
    for number in range(3):
        worker.commit("create", f"/{number}")
    worker.clock.now += SETTLED
    page = worker.poll(first, rows=1_000).page()
    assert ([each.from_path for each in page.changes], page.more) == (["/0", "/1"], True)
    page = worker.poll(page.cursor, rows=1_000).page()
    assert ([each.from_path for each in page.changes], page.more) == (["/2"], False)


def test_a_stream_goes_on_from_a_page_and_a_page_from_a_stream(worker: Worker) -> None:
    cursor = now(worker)
    heard = []
    for number in range(4):
        worker.commit("create", f"/{number}")
        worker.clock.now += SETTLED
        if number % 2:
            page = worker.poll(cursor).page()
            heard += told(page)
            cursor = page.cursor
            continue
        reader = worker.stream(last_event_id=cursor)
        reader.expect("resumed")
        frame = reader.expect("event")
        heard += [(each["type"], each["from"], each["to"]) for each in frame.changes]
        assert frame.id is not None
        cursor = frame.id
        reader.close()
    assert heard == [("create", f"/{number}", "") for number in range(4)]


def test_an_id_in_the_middle_of_a_second_delivery_is_one_for_pages_too(worker: Worker) -> None:
    """A renaming that may have been heard comes as what can be repeated."""
    start = worker.stream()
    start.expect("subscribed")
    worker.commit("rename", "/a", "/b", file_id="1")
    worker.clock.now += SETTLED
    start.expect("event")
    start.close()
    again = worker.stream()
    cursor = again.expect("resumed").id
    again.close()
    assert told(worker.poll(cursor).page()) == [("delete", "/a", ""), ("create", "/b", "")]


@pytest.mark.parametrize("text", ["garbage", "AAAA", "0" * 40])
def test_a_cursor_that_is_none_of_ours_is_refused_with_a_fresh_one(
    worker: Worker, text: str
) -> None:
    data = refused(worker.poll(text))
    assert data["reason"] == "no cursor of ours"
    worker.commit("create", "/a")
    worker.clock.now += SETTLED
    assert told(worker.poll(str(data["cursor"])).page()) == [("create", "/a", "")]


@pytest.mark.parametrize("who", [watcher("/docs"), watcher(user_id="43")])
def test_a_cursor_of_another_folder_or_user_is_refused(worker: Worker, who: object) -> None:
    data = refused(worker.poll(now(worker), who))  # type: ignore[arg-type] # a parameter's type
    assert data["reason"] == "cursor of another user or folder"


def test_another_client_of_the_same_user_and_folder_may_go_on(worker: Worker) -> None:
    """A cursor says for whom and where, not by which client; own changes are each client's."""
    first = now(worker)
    worker.commit("create", "/a", client_id=CLIENT)
    worker.clock.now += SETTLED
    assert told(worker.poll(first).page()) == []
    assert told(worker.poll(first, watcher(client_id=OTHER)).page()) == [("create", "/a", "")]


def test_when_the_folder_goes_what_came_before_is_told_first(worker: Worker) -> None:
    first = now(worker, "/docs")
    worker.later(10, "create", "/docs/a")
    worker.later(11, "delete", "/docs")
    page = worker.poll(first, watcher("/docs"), wait_seconds=40).page()
    assert told(page) == [("create", "/a", "")]
    data = refused(worker.poll(page.cursor, watcher("/docs")))
    assert data["reason"] == "the watched folder was removed"


def test_a_folder_that_goes_while_its_client_waits_is_an_end_with_a_reason(worker: Worker) -> None:
    first = now(worker, "/docs")
    worker.later(10, "delete", "/docs")
    data = refused(worker.poll(first, watcher("/docs"), wait_seconds=40))
    assert data["reason"] == "the watched folder was removed"


def test_a_database_that_is_away_is_said_to_be_so(worker: Worker) -> None:
    first = now(worker)
    worker.database.away = True
    with pytest.raises(errors.DatabaseAway):
        worker.poll(first).page()
    worker.database.away = False
    assert worker.poll(first).page() == Page([], first, more=False)


def test_nothing_is_remembered(worker: Worker) -> None:
    worker.poll(now(worker)).page()
    assert worker.subscription() is None

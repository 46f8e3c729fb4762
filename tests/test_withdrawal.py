"""What is watched through a grant, and how it ends when the grant does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, exc, text, update

from events_app import errors, scope, sharing, uri, withdrawal
from events_app.admission import Admission, Caps
from events_app.schema import FRESH, grant
from tests import conftest, reused
from tests.worker import OTHER, Connected, Worker, make

CAPS = Caps(of_worker=10, of_user=10, of_subscription=None)


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = make(request)
    yield made
    assert made.holds_nothing()
    made.close()


def guest(share_id: str = "s1", path: str = "/", client_id: str | None = OTHER) -> scope.Watcher:
    return scope.Watcher.through("43", client_id, uri.Share(share_id, path))


def mounted(worker: Worker, who: scope.Watcher) -> scope.Watcher:
    found = worker.database.read(lambda db: sharing.resolve(db, who))
    assert found is not None
    return found


def admitted(worker: Worker, *readers: Connected) -> Admission:
    admission = Admission(CAPS, worker.clock, worker.tally)
    for each in readers:
        admission.enter(each.stream)
    return admission


def withdraw(worker: Worker) -> None:
    worker.database.write(lambda db: db.execute(delete(grant)))


def test_the_owners_changes_are_told_relative_to_the_share_and_nothing_else(
    worker: Worker,
) -> None:
    worker.grant()
    reader = worker.stream(guest())
    reader.expect("subscribed")
    worker.commit("create", "/private/x")
    worker.commit("create", "/docs/a", actor_id="42")
    worker.commit("create", "/docs/mine", client_id=OTHER, actor_id="43")
    worker.commit("rename", "/private/x", "/docs/x", file_id="f-/private/x")
    worker.commit("create", "/docs/b", user_id="43")
    assert reader.told() == [("create", "/a", ""), ("create", "/x", "")]
    reader.close()


def test_a_folder_below_a_share_is_watched_too(worker: Worker) -> None:
    worker.grant()
    reader = worker.stream(guest(path="/sub"))
    reader.expect("subscribed")
    worker.commit("create", "/docs/a")
    worker.commit("create", "/docs/sub/a")
    assert reader.told() == [("create", "/a", "")]
    reader.close()


def test_a_guest_resumes_where_it_stood(worker: Worker) -> None:
    worker.grant()
    first = worker.stream(guest())
    first.expect("subscribed")
    first.expect("keep-alive")
    first.close()
    worker.commit("create", "/docs/missed")
    again = worker.stream(guest())
    again.expect("resumed")
    assert again.told() == [("create", "/missed", "")]
    again.close()
    stored = worker.subscription(OTHER)
    assert (stored.user_id, stored.fs, stored.path) == ("43", "share", "/s1")


def test_a_cursor_of_a_share_is_of_no_use_for_the_owners_folder_of_that_path(
    worker: Worker,
) -> None:
    """Nor the other way round: the same path in two drives is two folders."""
    worker.grant()
    reader = worker.stream(guest())
    text = reader.expect("subscribed").id
    reader.close()
    own = scope.Watcher.of("43", None, uri.Folder("my", "/docs"))
    other = worker.stream(own, text)
    other.expect("subscribed")
    other.close()


def test_a_grant_that_is_gone_ends_the_stream_and_nothing_more_is_told(worker: Worker) -> None:
    worker.grant()
    reader = worker.stream(mounted(worker, guest()))
    last = reader.expect("subscribed").id
    admission = admitted(worker, reader)
    withdrawal.look(worker.database, admission)
    worker.commit("create", "/docs/secret")
    worker.clock.now += 30
    withdraw(worker)
    withdrawal.look(worker.database, admission)
    (end,) = reader.rest()
    assert end.name == "reconnect-required"
    assert end.id not in {None, last}
    assert reader.age == pytest.approx(30, abs=1), "at once"
    assert worker.tally.ended == {"permission_gone": 1}
    worker.ledger.flush()
    assert worker.subscription(OTHER).state == FRESH
    worker.grant()
    again = worker.stream(guest(), end.id)
    again.expect("subscribed")
    again.close()


@pytest.mark.parametrize(
    "columns", [{"path": "/elsewhere"}, {"owner_id": "44"}, {"is_folder": 0}, {"fs": "other"}]
)
def test_a_grant_that_permits_something_else_ends_the_stream_too(
    worker: Worker, columns: dict[str, object]
) -> None:
    worker.grant()
    reader = worker.stream(mounted(worker, guest()))
    reader.expect("subscribed")
    worker.database.write(lambda db: db.execute(update(grant).values(columns)))
    withdrawal.look(worker.database, admitted(worker, reader))
    reader.expect("reconnect-required")
    reader.close()


def test_other_streams_go_on(worker: Worker) -> None:
    worker.grant()
    worker.grant("s2", path="/other")
    first = worker.stream(mounted(worker, guest()))
    second = worker.stream(mounted(worker, guest("s2")))
    own = worker.stream()
    for each in (first, second, own):
        each.expect("subscribed")
    change = delete(grant).where(grant.c.share_id == "s1")
    worker.database.write(lambda db: db.execute(change))
    withdrawal.look(worker.database, admitted(worker, first, second, own))
    first.expect("reconnect-required")
    worker.commit("create", "/other/a")
    assert second.told() == [("create", "/a", "")]
    assert own.told() == [("create", "/other/a", "")]
    for each in (first, second, own):
        each.close()


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_grants_that_a_database_refuses_to_tell_permit_nothing(
    request: pytest.FixtureRequest, engine: str
) -> None:
    """A view that lost a column, a right that was taken away: the journal is read as before."""
    conftest.need(engine)
    worker = Worker(reused.url(request, engine))
    worker.grant()
    reader, own = worker.stream(mounted(worker, guest())), worker.stream()
    for each in (reader, own):
        each.expect("subscribed")
    admission = admitted(worker, reader, own)
    hide, show = (
        text(f"ALTER TABLE {before} RENAME TO {after}")
        for before, after in ((grant.name, "hidden"), ("hidden", grant.name))
    )
    worker.database.write(lambda db: db.execute(hide))
    try:
        withdrawal.look(worker.database, admission)
    finally:
        worker.database.write(lambda db: db.execute(show))
    worker.commit("create", "/docs/secret")
    assert [each.name for each in reader.rest()] == ["reconnect-required"]
    assert own.told() == [("create", "/docs/secret", "")]
    own.close()
    worker.close()


def test_while_the_database_is_away_nothing_ends(worker: Worker) -> None:
    worker.grant()
    reader = worker.stream(mounted(worker, guest()))
    reader.expect("subscribed")
    worker.database.away = True
    with pytest.raises(exc.OperationalError):
        withdrawal.look(worker.database, admitted(worker, reader))
    reader.expect("keep-alive")
    reader.close()


def test_who_was_held_while_the_grant_went_is_told_nothing(worker: Worker) -> None:
    worker.grant()
    worker.database.away = True
    reader = worker.stream(guest())
    reader.expect("keep-alive")
    worker.database.away = False
    withdraw(worker)
    assert reader.expect("reconnect-required").id is not None
    assert reader.rest() == []
    assert worker.subscription(OTHER) is None


def test_who_was_held_is_served_when_the_grant_is_there(worker: Worker) -> None:
    worker.grant()
    worker.database.away = True
    reader = worker.stream(guest())
    reader.expect("keep-alive")
    worker.database.away = False
    reader.expect("subscribed")
    worker.commit("create", "/docs/a")
    assert reader.told() == [("create", "/a", "")]
    reader.close()


def test_a_moved_share_ends_as_any_watched_folder_that_goes(worker: Worker) -> None:
    worker.grant()
    reader = worker.stream(guest())
    reader.expect("subscribed")
    worker.commit("rename", "/docs", "/papers")
    (end,) = reader.rest()
    assert end.name == "reconnect-required"
    worker.ledger.flush()


def test_a_poll_that_waits_ends_when_the_grant_does(worker: Worker) -> None:
    worker.grant()
    who = mounted(worker, guest())
    first = worker.poll(who=who).page().cursor
    waiting = worker.poll(first, who, wait_seconds=40)
    admission = Admission(CAPS, worker.clock, worker.tally)
    admission.enter(waiting)

    def lose() -> None:
        worker.commit("create", "/docs/secret")
        withdraw(worker)
        withdrawal.look(worker.database, admission)

    worker.clock.at(worker.clock.now + 10, lose)
    with pytest.raises(errors.ForeignFolder):
        waiting.page()
    admission.leave(waiting)
    assert admission.through_shares() == []

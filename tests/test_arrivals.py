"""Connections that begin at the same time; on every engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gevent
import pytest
from gevent.lock import BoundedSemaphore
from sqlalchemy import exc, select

from events_app import event, subscriptions, uri
from events_app.arrivals import COMPANY_SECONDS, MOST_TOGETHER, Arrivals
from events_app.clock import Bell
from events_app.database import Database
from events_app.resumption import Start
from events_app.schema import FRESH, subscription
from events_app.scope import Watcher
from events_app.subscriptions import Arrival
from tests import kept, reused, statements
from tests.manual_clock import ManualClock
from tests.subscribed import (
    LIMITS,
    OTHER,
    connect,
    count,
    cursor,
    live_at,
    mark,
    move,
    seen,
    stored,
    watcher,
)

url = reused.on_each_engine


@pytest.fixture
def arrivals(database: Database) -> Arrivals:
    return Arrivals(database, ManualClock(), LIMITS, BoundedSemaphore(12))


def never() -> bool:
    return False


def come(arrivals: Arrivals, *coming: Arrival) -> list[Start | None]:
    """Let all of them come before the first is answered."""
    greenlets = [gevent.spawn(arrivals.connect, each, never) for each in coming]
    return [each.get(timeout=20) for each in greenlets]


# What becomes of one is what would become of it alone.


def client(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def nine_rows_and_many_clients(database: Database) -> list[Arrival]:
    """Make one of each kind of client that comes back, or comes for the first time."""
    kept.keep_run(database, 1, 9)
    shared = Watcher.of("43", client(20), uri.Folder("my", "/docs", "42"), uri.Share("s1", "/"))
    known = {name: watcher(client=client(n)) for n, name in enumerate(KNOWN)}
    known["elsewhere"] = watcher("/docs/a", client=client(9))
    known["shared"] = shared
    for name, who in known.items():
        live_at(database, 9 if name == "up to date" else 5, who)
    move(database, mark(connect(database, known["afresh"]), 9, standing=FRESH, who=known["afresh"]))
    connect(database, known["never heard"])
    end = mark(live_at(database, 5, known["noticed"]), 5, sent=7, who=known["noticed"])
    move(database, end)
    kept.keep(
        database,
        [
            kept.row(10, user_id="43"),
            kept.row(11, type="rename", from_path="/docs", to_path="/old"),
            kept.row(12, user_id="44", rejected="why"),
        ],
    )
    forbidden, nobody = watcher(client=OTHER, user="44"), watcher(client=None)
    unknown = watcher(client=OTHER)
    return [
        *(Arrival(who, None) for who in known.values()),
        Arrival(known["brings one"], cursor(database, 8).text()),
        Arrival(watcher("/docs", client=client(1)), cursor(database, 8, watcher("/docs")).text()),
        Arrival(watcher("/x", client=client(1)), cursor(database, 2, watcher("/x")).text()),
        Arrival(forbidden, cursor(database, 11, forbidden).text()),
        Arrival(unknown, "garbage"),
        Arrival(watcher("/new", client=OTHER), cursor(database, 5).text()),
        Arrival(nobody, None),
        Arrival(nobody, cursor(database, 9).text()),
        Arrival(nobody, cursor(database, 9)._replace(partly=True).text()),
        Arrival(nobody, cursor(database, 9)._replace(point=event.Point(9, 7)).text()),
    ]


KNOWN = ("up to date", "behind", "afresh", "never heard", "noticed", "brings one")


def rows_of(database: Database) -> list[Any]:
    columns = [column for column in subscription.c if column.name not in {"created_at", "seen_at"}]
    query = select(*columns).order_by(*subscription.primary_key.columns)
    return [tuple(row) for row in database.read(lambda db: db.execute(query).all())]


def distinct(coming: Sequence[Arrival]) -> list[Arrival]:
    """Leave out those whose subscription another one of them takes later."""
    last = {subscriptions.key_of(each.watcher) or object(): each for each in coming}
    return list(last.values())


def test_what_becomes_of_each_is_what_would_become_of_it_alone(
    database: Database, url: str
) -> None:
    limits = LIMITS._replace(replay_rows=8, subscriptions_per_user=100)
    alone = [
        connect(database, *each, limits) for each in distinct(nine_rows_and_many_clients(database))
    ]
    after = rows_of(database)
    reused.empty(url)
    coming = distinct(nine_rows_and_many_clients(database))
    together = database.write(lambda db: subscriptions.connect_all(db, coming, limits))
    assert together == alone
    assert rows_of(database) == after
    reasons = {start.reason for start in alone}
    assert len(reasons) >= 8, reasons
    assert sum(start.resumed for start in alone) >= 4


def test_those_who_come_together_make_room_as_one_by_one(database: Database, url: str) -> None:
    """A new id pushes an older new one, and those of one group push each other."""
    limits = LIMITS._replace(subscriptions_per_user=3)

    def prepare() -> list[Arrival]:
        for number in range(3):
            live_at(database, 0, watcher(client=client(number)))
            seen(database, 100 - number, watcher(client=client(number)))
        connect(database, watcher(client=client(2)))
        new = [Arrival(watcher(client=client(number)), None) for number in (7, 8, 9)]
        return [*new, Arrival(watcher(client=client(7), user="another"), None)]

    alone = [connect(database, *each, limits) for each in prepare()]
    after = rows_of(database)
    reused.empty(url)
    coming = prepare()
    together = database.write(lambda db: subscriptions.connect_all(db, coming, limits))
    assert rows_of(database) == after
    gone = [[sum(each.displaced) for each in starts if each] for starts in (alone, together)]
    assert gone == [[1, 1, 1, 0], [0, 0, 3, 0]]


# Who is taken with whom.


def test_all_who_wait_are_taken_in_one_transaction(database: Database, arrivals: Arrivals) -> None:
    run = statements.watch(database.engine)
    starts = come(arrivals, *(Arrival(watcher(f"/{n}"), None) for n in range(5)))
    assert [start.generation for start in starts if start] == [1] * 5
    assert run.count(statements.COMMIT) == 1
    assert database.read(count) == 5


def test_no_group_is_larger_than_it_may_be(database: Database, arrivals: Arrivals) -> None:
    run = statements.watch(database.engine)
    many = [Arrival(watcher(client=None), None)] * (MOST_TOGETHER + 1)
    assert len(come(arrivals, *many)) == len(many)
    assert run.count(statements.COMMIT) == 2


class Meeting(ManualClock):
    """A clock by which others come while somebody waits for company."""

    def __init__(self) -> None:
        super().__init__()
        self.coming: list[Callable[[], gevent.Greenlet[..., Start | None]]] = []
        self.came: list[gevent.Greenlet[..., Start | None]] = []
        self.waited: list[float] = []

    def wait(self, bell: Bell, timeout: float) -> None:
        for come_in in self.coming:
            self.came.append(come_in())
            gevent.sleep(0)
        self.coming.clear()
        before = self.now
        super().wait(bell, timeout)
        self.waited.append(round(self.now - before, 6))


@pytest.mark.parametrize(("others", "waited"), [(3, COMPANY_SECONDS), (MOST_TOGETHER, 0)])
def test_who_comes_just_behind_a_group_waits_for_company(
    database: Database, others: int, waited: float
) -> None:
    """Until as many are there as are taken at once; the one who came first waited for nobody."""
    clock = Meeting()
    arrivals = Arrivals(database, clock, LIMITS, BoundedSemaphore(12))
    run = statements.watch(database.engine)
    one = Arrival(watcher(client=None), None)
    clock.coming = [lambda: gevent.spawn(arrivals.connect, one, never)] * others
    assert arrivals.connect(one, never) is not None
    assert (run.count(statements.COMMIT), clock.waited) == (1, [])
    while len(clock.came) < others:
        gevent.sleep(0)
    assert all(each.get(timeout=20) for each in clock.came)
    assert run.count(statements.COMMIT) == 2
    assert clock.waited[0] == waited


def test_of_two_of_one_subscription_the_later_one_has_the_later_generation(
    database: Database, arrivals: Arrivals
) -> None:
    again, other = Arrival(watcher(), None), Arrival(watcher("/other"), None)
    starts = come(arrivals, again, again, other, again)
    assert [start.generation for start in starts if start] == [1, 2, 1, 3]
    assert stored(database).generation == 3


def test_who_has_left_takes_nothing_and_holds_nobody_up(
    database: Database, arrivals: Arrivals
) -> None:
    left = gevent.spawn(arrivals.connect, Arrival(watcher(), None), lambda: True)
    (start,) = come(arrivals, Arrival(watcher("/other"), None))
    assert (start is not None, left.get(timeout=20)) == (True, None)
    assert database.read(count) == 1


def test_who_leaves_while_the_database_is_waited_for_takes_nothing(database: Database) -> None:
    """Its client is back at another worker by then, whose connection would lose the cursor."""
    turns = BoundedSemaphore(1)
    arrivals = Arrivals(database, ManualClock(), LIMITS, turns)
    left: list[str] = []
    with turns:
        leaving = gevent.spawn(arrivals.connect, Arrival(watcher(), None), lambda: bool(left))
        staying = gevent.spawn(arrivals.connect, Arrival(watcher("/other"), None), never)
        gevent.idle()
        again = connect(database)
        left.append("before it was its turn")
    assert leaving.get(timeout=20) is None
    assert staying.get(timeout=20).generation == 1
    assert stored(database).generation == again.generation == 1


def test_for_those_who_have_all_left_there_is_no_transaction(
    database: Database, arrivals: Arrivals
) -> None:
    run = statements.watch(database.engine)
    assert arrivals.connect(Arrival(watcher(), None), lambda: True) is None
    gevent.sleep(0)
    assert (run, arrivals._is_taking) == ([], False)


# What goes wrong.


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_who_is_overtaken_fails_nobody(
    database: Database, arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker inserts the row of one of them first: the group's INSERT fails for all."""
    look = subscriptions._there

    def be_overtaken(*arguments: Any) -> Any:
        found = look(*arguments)
        monkeypatch.undo()
        connect(database)
        return found

    monkeypatch.setattr(subscriptions, "_there", be_overtaken)
    starts = come(arrivals, *(Arrival(watcher(path), None) for path in ("/a", "/", "/b")))
    assert [start.generation for start in starts if start] == [1, 2, 1]


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_who_cannot_be_stored_fails_nobody_else(database: Database, arrivals: Arrivals) -> None:
    coming = [Arrival(watcher(client=each), None) for each in (OTHER, "x" * 40, client(1))]
    first, bad, last = (gevent.spawn(arrivals.connect, each, never) for each in coming)
    gevent.joinall([first, bad, last], timeout=20)
    assert isinstance(bad.exception, exc.DBAPIError)
    assert [each.get().generation for each in (first, last)] == [1, 1]
    assert database.read(count) == 2


class Failing(Database):
    """A database in which transactions fail as the test says."""

    error: Exception
    tries = 0

    def write(self, work: Callable[[Any], Any]) -> Any:
        del work
        self.tries += 1
        raise self.error


def test_what_everybody_would_meet_is_met_once(sqlite_url: str) -> None:
    """Each of them alone would wait as long as all of them together."""
    database = Failing(sqlite_url)
    database.error = exc.TimeoutError("the pool has no connection")
    arrivals = Arrivals(database, ManualClock(), LIMITS, BoundedSemaphore(12))
    coming = [Arrival(watcher(f"/{n}"), None) for n in range(3)]
    waiting = [gevent.spawn(arrivals.connect, each, never) for each in coming]
    gevent.joinall(waiting, timeout=20)
    assert [each.exception for each in waiting] == [database.error] * 3
    assert database.tries == 1
    database.error = RuntimeError("nobody foresaw it")
    waiting = [gevent.spawn(arrivals.connect, each, never) for each in coming]
    gevent.joinall(waiting, timeout=20)
    assert [each.exception for each in waiting] == [database.error] * 3
    assert database.tries == 1 + 1 + 3, "together, and then each of them"
    database.close()

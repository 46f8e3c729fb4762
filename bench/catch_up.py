"""How fast a client that was away long is brought up to date."""

from __future__ import annotations

import time

from sqlalchemy import Connection

from bench import inside as patched
from bench import places, rows
from bench.table import SPREAD, Table, spread
from events_app import uri
from events_app.clock import SystemClock
from events_app.database import Database
from events_app.event import Point
from events_app.follower import Follower
from events_app.scope import Watcher
from events_app.sequencer import Mover
from events_app.tailer import Tailer

USER = "user-0"
POLL_SECONDS = 0.25

HOW = (
    "Journal rows of one user divided by the seconds in which one follower has read them by SQL,"
    " scoped and folded them, page by page, in a process that gevent has patched like a worker."
    " The client watches its whole tree, so none of the rows is dropped. Writing frames is not in"
    " it."
)


def measure(*, quick: bool) -> Table:
    """Measure each database."""
    count, rounds = (5_000, 1) if quick else (100_000, 3)
    found = []
    for engine in places.engines():
        with places.database(engine) as url:
            samples = patched.run("bench.catch_up", url, count, rounds)
        found.append((places.TITLES[engine], *spread(samples, more_is_better=True)))
    columns = (f"rows per second, {count:,} rows behind", *SPREAD)
    return Table("Catch-up", HOW, columns, found)


def inside(url: str, count: int, rounds: int) -> list[float]:
    """Return the rows per second of each round."""
    database = Database(url)
    database.write(lambda connection: _fill(connection, count))
    mover = Mover(database)
    while (done := mover.step()) is not None and done.moved:
        pass
    tailer = Tailer(database, SystemClock(), POLL_SECONDS)
    tailer.turn()
    rates = [_rate(database, tailer, count) for _ in range(rounds)]
    database.close()
    return rates


def _fill(connection: Connection, count: int) -> None:
    rows.fill_outbox(connection, count, USER)


def _rate(database: Database, tailer: Tailer, count: int) -> float:
    watcher = Watcher.of(USER, None, uri.Folder("my", "/"))
    if tailer.epoch is None:
        raise ValueError("the tailer has not read the journal")
    start = Point(0, 0)
    clock = SystemClock()
    follower = Follower(tailer, database, clock, watcher, tailer.epoch, start, repeated_upto=0)
    before = time.monotonic()
    while follower.safe.position < count:
        while follower.advance():
            pass
        if follower.due_at(0, 0) is not None:
            follower.take_run()
        if follower.needs_page():
            follower.fetch_page()
    return count / (time.monotonic() - before)

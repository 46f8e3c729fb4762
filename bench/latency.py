"""How long a committed change takes to reach a client."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import random
import statistics
import time
import uuid
from typing import NamedTuple

import sqlalchemy

from bench import clients, places, worker
from bench.table import Table, number
from events_app import outbox

WORKERS = 2
STREAMS = 8
# After a change the pauses of an idle tailer take 0.31 s to grow back to 0.25: the shortest gap is
# above the first, and the gaps vary by the second, so that no phase of it is met more often.
SHORTEST_GAP_SECONDS = 0.35
GAP_VARIES_SECONDS = 0.25
# Nobody listens at this port.
NO_LISTEN = {"EVENTS_LISTEN_URL": "postgresql://127.0.0.1:1/none"}
PERCENTILES = (50, 95, 99)

HOW = (
    "From the moment when COMMIT returns to the writer, until the frame has come to a client:"
    f" debounce 0, the default poll interval of 0.25 s, {WORKERS} workers, {STREAMS} streams of"
    " one user spread over them, each change told to all; changes come one at a time, 0.35 to"
    " 0.6 s apart, so that the tailers have slowed down to their full interval. The databases are"
    " measured at the same time, each with its own gunicorn. *Polling only*: the same with LISTEN"
    " made to fail. *COMMIT* is how long it took itself, before that."
)


class Place(NamedTuple):
    """Where a change is committed and how workers hear of it."""

    title: str
    engine: str
    settings: dict[str, str]


def measure(*, quick: bool) -> Table:
    """Measure all databases, side by side."""
    changes = 20 if quick else 160
    found = [Place(places.TITLES[name], name, {}) for name in places.engines()]
    if "postgresql" in places.engines():
        found.append(Place("PostgreSQL, polling only", "postgresql", NO_LISTEN))
    with contextlib.ExitStack() as databases:
        urls = [databases.enter_context(places.database(place.engine)) for place in found]
        with concurrent.futures.ThreadPoolExecutor(len(found)) as threads:
            rows = list(threads.map(_row, found, urls, itertools.repeat(changes)))
    names = [f"p{percentile}" for percentile in PERCENTILES]
    columns = ("ms from commit to frame", *names, "longest", "samples", "COMMIT p50")
    return Table("Latency", HOW, columns, rows)


def _row(place: Place, url: str, changes: int) -> tuple[str, ...]:
    with (
        worker.Worker(worker.OURS, url, place.settings, WORKERS).running() as running,
        clients.crowd() as crowd,
    ):
        crowd.watch()
        crowd.open(running, STREAMS, users=1, first=uuid.uuid4().int >> 8)
        time.sleep(1)
        committed = _commit(url, changes)
        crowd.wait(changes * STREAMS)
        heard = crowd.heard()
    waits = [1000 * (at - committed[number][1]) for number, at in heard]
    commits = [1000 * (after - before) for before, after in committed.values()]
    cuts = statistics.quantiles(waits, n=100)
    cells = [number(cuts[percentile - 1]) for percentile in PERCENTILES]
    median = number(statistics.median(commits))
    return place.title, *cells, number(max(waits)), str(len(waits)), median


def _commit(url: str, changes: int) -> dict[int, tuple[float, float]]:
    """Commit changes one by one; return for each when COMMIT was called and when it returned."""
    engine = sqlalchemy.create_engine(url)
    times = {}
    with engine.connect() as connection:
        for this in range(changes):
            time.sleep(SHORTEST_GAP_SECONDS + random.uniform(0, GAP_VARIES_SECONDS))
            path = f"/documents/report {this}.odt"
            outbox.append(connection, "user-0", "create", f"number-{this}", path)
            before = time.monotonic()
            connection.commit()
            times[this] = before, time.monotonic()
    engine.dispose()
    return times

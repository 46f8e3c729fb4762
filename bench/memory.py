"""What an idle stream costs in the worker's memory."""

from __future__ import annotations

import time

from bench import clients, places, worker
from bench.table import SPREAD, Table, ratio, spread

STREAMS_OF_USER = 4
# Cursors are stored and what the requests left behind is let go.
SETTLE_SECONDS = 2
WARM_UP_STREAMS = 20

HOW = (
    "Growth of the worker's proportional set size (`Pss` of `/proc/PID/smaps_rollup`; what streams"
    f" add is never shared) by idle streams of distinct client ids, {STREAMS_OF_USER} to a user,"
    f" {SETTLE_SECONDS} s after the last has heard `subscribed`; each round is a fresh worker with"
    f" {WARM_UP_STREAMS} streams open before. Memory of the kernel's sockets is not in it. Beside"
    " it, on the same gunicorn settings, generators that only wait for one shared event: no token,"
    " no subscription."
)


def measure(*, quick: bool) -> Table:
    """Measure ours on each database, and two rivals."""
    count, rounds = (200, 1) if quick else (1_000, 3)
    flask = [_rival(worker.RIVAL_FLASK, count) for _ in range(rounds)]
    plain = [_rival(worker.RIVAL_PLAIN, count) for _ in range(rounds)]
    rows = []
    for engine in places.engines():
        ours = [_ours(engine, count) for _ in range(rounds if engine == "sqlite" else 1)]
        title = f"events-app on {places.TITLES[engine]}"
        rows.append((title, *_cells(ours), ratio(ours, flask), ratio(ours, plain)))
    rows.append(("bare Flask generator", *_cells(flask), "1", ratio(flask, plain)))
    rows.append(("plain WSGI generator", *_cells(plain), ratio(plain, flask), "1"))
    columns = (f"KB a stream, {count:,} streams", *SPREAD, "beside Flask", "beside WSGI")
    return Table("Memory of an idle stream", HOW, columns, rows)


def _cells(samples: list[float]) -> list[str]:
    return spread(samples, more_is_better=False)


def _ours(engine: str, count: int) -> float:
    with places.database(engine) as url:
        return _grown(worker.Worker(worker.OURS, url), count)


def _rival(served: worker.Served, count: int) -> float:
    return _grown(worker.Worker(served), count)


def _grown(served: worker.Worker, count: int) -> float:
    """Return the kilobytes that each of `count` streams adds."""
    with served.running() as running, clients.crowd() as crowd:
        users = max(1, count // STREAMS_OF_USER)
        crowd.open(running, WARM_UP_STREAMS, users)
        time.sleep(SETTLE_SECONDS)
        before = running.memory_kilobytes()
        crowd.open(running, count, users, first=WARM_UP_STREAMS)
        time.sleep(SETTLE_SECONDS)
        return (running.memory_kilobytes() - before) / count

"""How many streams a worker can open: what bounds a storm of reconnecting clients."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import clients, places, worker
from bench.table import SPREAD, Table, spread

USERS = 250
# The cursor of a new stream is stored as delivered at once, but in another greenlet.
STORE_SECONDS = 1.5

HOW = (
    "Streams opened, from the TCP connect to the first frame, divided by the seconds of user and"
    " system time of the one worker; the storing of the subscription is in it. *New*: a client id"
    " that the database does not know. *Resumed*: the same clients again, by their client ids"
    " alone, with nothing missed. The database server's own time is not in it."
)


def measure(*, quick: bool) -> Table:
    """Measure new and resumed connects on each database."""
    count, rounds = (100, 2) if quick else (500, 3)
    rows = []
    for engine in places.engines():
        with places.database(engine) as url:
            pairs = list(_rounds(url, count, rounds))
        for name, samples in zip(("new", "resumed"), zip(*pairs, strict=True), strict=True):
            cells = spread(samples, more_is_better=True)
            rows.append((f"{places.TITLES[engine]}, {name}", *cells))
    columns = ("connects per CPU-second", *SPREAD)
    return Table("Connects", HOW, columns, rows)


def _rounds(url: str, count: int, rounds: int) -> Iterator[tuple[float, float]]:
    """Yield the rates of new and of resumed connects."""
    with worker.Worker(worker.OURS, url).running() as running, clients.crowd() as crowd:
        crowd.open(running, 20, USERS)
        for number in range(1, rounds + 1):
            first = number * count
            new = _rate(running, crowd, count, first)
            crowd.close()
            time.sleep(STORE_SECONDS)
            yield new, _rate(running, crowd, count, first)
            crowd.close()
            time.sleep(STORE_SECONDS)


def _rate(running: worker.Worker, crowd: clients.Clients, count: int, first: int) -> float:
    before = running.cpu_seconds()
    crowd.open(running, count, USERS, first)
    time.sleep(STORE_SECONDS)
    return count / (running.cpu_seconds() - before)

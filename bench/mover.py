"""How fast the mover works off an outbox."""

from __future__ import annotations

import time

from bench import inside as patched
from bench import places, rows
from bench.table import SPREAD, Table, spread
from events_app.database import Database
from events_app.sequencer import Mover

HOW = (
    "Rows in the outbox divided by the seconds until steps of one mover have emptied it, in a"
    " process that gevent has patched like a worker; the first step takes 500 rows, later ones up"
    " to 10,000. A mix of all kinds of changes, paths of about 40 characters, half of the rows"
    " with a client id, none with an `event_key`."
)


def measure(*, quick: bool) -> Table:
    """Measure each database."""
    count, rounds = (5_000, 1) if quick else (50_000, 3)
    found = []
    for engine in places.engines():
        with places.database(engine) as url:
            samples = patched.run("bench.mover", url, count, rounds)
        found.append((places.TITLES[engine], *spread(samples, more_is_better=True)))
    columns = (f"rows per second, outbox of {count:,} rows", *SPREAD)
    return Table("Mover", HOW, columns, found)


def inside(url: str, count: int, rounds: int) -> list[float]:
    """Return the rows per second of each round."""
    database = Database(url)
    rates = []
    for _ in range(rounds):
        database.write(rows.empty)
        database.write(lambda connection: rows.fill_outbox(connection, count))
        rates.append(_rate(database, count))
    database.close()
    return rates


def _rate(database: Database, count: int) -> float:
    mover = Mover(database)
    before = time.monotonic()
    moved = 0
    while (done := mover.step()) is not None and done.moved:
        moved += done.moved
    if moved != count:
        raise ValueError(f"{moved} rows were moved instead of {count}")
    return count / (time.monotonic() - before)

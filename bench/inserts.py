"""What the outbox costs the app: its INSERT beside the same one into a bare table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import Column, Engine, Identity, MetaData, Table, insert

from bench import places, rows, worker
from bench import table as output
from events_app import schema
from events_app.columns import BigInt

BLOCK = 50
STATEMENTS_IN_BLOCK = 500
LOOK_SECONDS = 0.02

HOW = (
    "One INSERT of six columns by one writer, into the outbox and into a table of the same columns"
    " with a primary key and nothing else (no CHECK, no default), in turns of 50; a turn's figure"
    " is its median. *Statement*: many INSERTs in one transaction, without the COMMIT. *With"
    " COMMIT*: each in its own transaction. *While rows are moved*: the same with a worker that"
    " moves the rows as they come; its turn with the bare table begins when the outbox is empty."
)

Append = Callable[[Engine, Table, int], Iterator[float]]


class Pair(NamedTuple):
    """The two tables that are compared."""

    bare: Table
    outbox: Table


def measure(*, quick: bool) -> output.Table:
    """Measure each database."""
    turns = 2 if quick else 7
    found: list[tuple[str, ...]] = []
    for engine in places.engines():
        found += _of_engine(engine, turns)
    columns = ("microseconds per INSERT (medians)", "bare table", "outbox", "ratio")
    return output.Table("The app's INSERT", HOW, columns, found)


def _of_engine(name: str, turns: int) -> Iterator[tuple[str, ...]]:
    with places.database(name) as url:
        engine = sqlalchemy.create_engine(url)
        pair = _tables(engine)
        title = places.TITLES[name]
        yield f"{title}, statement", *_compare(engine, pair, turns, _statements)
        yield f"{title}, with COMMIT", *_compare(engine, pair, turns, _transactions)
        with worker.Worker(worker.OURS, url).running():
            _wait_until_moved(engine)
            cells = _compare(engine, pair, turns, _transactions_moved)
            yield f"{title}, with COMMIT, while rows are moved", *cells
        engine.dispose()


def _tables(engine: Engine) -> Pair:
    copied = [Column(c.name, c.type) for c in schema.outbox.c if c.name != "id"]
    key = Column("id", BigInt, Identity(cache=1), primary_key=True)
    bare = Table("bare", MetaData(), key, *copied, sqlite_autoincrement=True, **schema.INNODB)
    bare.create(engine)
    return Pair(bare, schema.outbox)


def _compare(engine: Engine, pair: Pair, turns: int, append: Append) -> tuple[str, ...]:
    """Let both tables take turns; return the cells of a row."""
    samples: dict[str, list[float]] = {"bare": [], "outbox": []}
    for turn in range(turns):
        for name, target in zip(samples, pair, strict=True):
            times = sorted(append(engine, target, turn))
            samples[name].append(1e6 * times[len(times) // 2])
    bare, outbox = (sorted(found)[len(found) // 2] for found in samples.values())
    ratio = output.ratio(samples["outbox"], samples["bare"])
    return output.number(bare), output.number(outbox), ratio


def _statements(engine: Engine, target: Table, turn: int) -> Iterator[float]:
    statement = insert(target)
    with engine.begin() as connection:
        for number in range(STATEMENTS_IN_BLOCK):
            values: dict[str, Any] = rows.named(turn * STATEMENTS_IN_BLOCK + number)
            before = time.perf_counter()
            connection.execute(statement, values)
            yield time.perf_counter() - before


def _transactions(engine: Engine, target: Table, turn: int) -> Iterator[float]:
    statement = insert(target)
    with engine.connect() as connection:
        for number in range(BLOCK):
            values: dict[str, Any] = rows.named(turn * BLOCK + number)
            before = time.perf_counter()
            connection.execute(statement, values)
            connection.commit()
            yield time.perf_counter() - before


def _transactions_moved(engine: Engine, target: Table, turn: int) -> Iterator[float]:
    yield from _transactions(engine, target, turn)
    _wait_until_moved(engine)


def _wait_until_moved(engine: Engine) -> None:
    query = sqlalchemy.select(sqlalchemy.func.count()).select_from(schema.outbox)
    while True:
        with engine.connect() as connection:
            if not connection.scalar(query):
                return
        time.sleep(LOOK_SECONDS)

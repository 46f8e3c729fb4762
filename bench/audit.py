"""How long an auditor waits for a page of each question, and what the indexes cost the mover."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, insert, text

from bench import inside as patched
from bench import places, rows
from bench.table import SPREAD, Table, number, ratio, spread
from events_app import history, schema
from events_app.database import Database

HOW = (
    "A journal of {count:,} rows of {users} users over {days} days, a mix of all kinds of changes,"
    " six rows to a path, a tenth done by somebody else; the engine has counted its rows (ANALYZE)."
    " Each question is asked {rounds} times, of another user, path or day each time, a page of"
    " {page} rows, by the views; the last two are what a page of the history door and of"
    " `flask events audit` does. Milliseconds until all rows are there."
)
COST = (
    "As under *Mover*: one process, rounds with and without the indexes that are there for auditors"
    " alone, in turn on the same database."
)

PAGE = 100
SECONDS_BETWEEN = 2.6
START = datetime(2026, 10, 1, tzinfo=UTC)
# Rows that are recorded in one step of the mover have one time.
STEP = 50
BATCH = 20_000

BY_PATH = (
    "SELECT * FROM file_event_audit_by_path WHERE user_id = :user AND path = :path"
    " ORDER BY position DESC LIMIT 100"
)
BY_ACTOR = (
    "SELECT * FROM file_event_audit_by_actor WHERE actor = :user AND recorded_at >= :since"
    " AND recorded_at < :until ORDER BY position DESC LIMIT 100"
)
LAST = "SELECT * FROM file_event_audit ORDER BY position DESC LIMIT 100"

INDEXES = ("user_time", "actor_time", "user_from", "user_to", "user_long")
ANALYZE = {
    "sqlite": "ANALYZE",
    "postgresql": "VACUUM ANALYZE file_event_journal",
    "mysql": "ANALYZE TABLE file_event_journal",
}


def measure(*, quick: bool) -> Table:
    """Measure each question on each database."""
    count, rounds = (20_000, 5) if quick else (1_000_000, 50)
    found = []
    for engine in places.engines():
        with places.database(engine) as url:
            database = Database(url)
            _fill(database, count)
            found += [
                (f"{places.TITLES[engine]}, {question}", *spread(samples, more_is_better=False))
                for question, samples in _ask(database, count, rounds).items()
            ]
            database.close()
    days = round(count * SECONDS_BETWEEN / 86_400, 1)
    how = HOW.format(count=count, users=rows.USERS, days=days, rounds=rounds, page=PAGE)
    return Table("Audit", how, ("milliseconds", *SPREAD), found)


def _fill(database: Database, count: int) -> None:
    for start in range(0, count, BATCH):
        database.write(partial(_append, numbers=range(start, min(start + BATCH, count))))
    database.write(lambda db: db.execute(schema.state.update().values(last_position=count)))
    with database.engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.execute(text(ANALYZE[connection.dialect.name]))


def _append(connection: Connection, numbers: range) -> None:
    connection.execute(insert(schema.journal), [_row(each) for each in numbers])


def _row(each: int) -> dict[str, Any]:
    when = START + timedelta(seconds=SECONDS_BETWEEN * (each // STEP * STEP))
    others = {"actor_id": None if each % 10 else f"user-{each // 10 % rows.USERS}"}
    nothing = dict.fromkeys(("event_key", "meta", "rejected"))
    return (
        rows.named(each)
        | {"position": each + 1, "fs": "my", "is_folder": 0, "tag": each}
        | {"created_at": when, "recorded_at": when}
        | others
        | nothing
    )


def _ask(database: Database, count: int, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for subject in _subjects(count, rounds):
        for question, read in _questions(subject).items():
            before = time.perf_counter()
            database.read(read)
            found.setdefault(question, []).append(1_000 * (time.perf_counter() - before))
    return found


def _questions(subject: dict[str, Any]) -> dict[str, Callable[[Connection], object]]:
    folder = history.Question(subject["user"], "my", subject["folder"])
    deletes = history.Question(types=("delete",))
    return {
        "who touched this path": lambda db: _all(db, BY_PATH, subject),
        "what did this user do that day": lambda db: _all(db, BY_ACTOR, subject),
        "the last 100 changes": lambda db: _all(db, LAST, {}),
        "the history of a folder": lambda db: history.page(db, folder, history.END, PAGE),
        "everything of a type": lambda db: history.page(db, deletes, history.END, PAGE),
    }


def _subjects(count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Choose a row here and there, its user and path, and the day in which it came."""
    for each in range(count // rounds // 2, count, count // rounds):
        row = _row(each)
        since = row["recorded_at"].replace(hour=0, minute=0, second=0, microsecond=0)
        folder = str(row["from_path"]).rpartition("/")[0]
        yield {
            "user": row["user_id"],
            "path": row["from_path"],
            "folder": folder,
            "since": str(since.replace(tzinfo=None)),
            "until": str((since + timedelta(days=1)).replace(tzinfo=None)),
        }


def _all(connection: Connection, question: str, subject: dict[str, Any]) -> object:
    return connection.execute(text(question), subject).all()


def measure_cost(*, quick: bool) -> Table:
    """Measure the mover with and without the indexes for auditors."""
    count, rounds = (5_000, 1) if quick else (50_000, 3)
    found = []
    for engine in places.engines():
        with places.database(engine) as url, places.database(engine) as bare_url:
            _drop_indexes(bare_url)
            kept: list[float] = []
            bare: list[float] = []
            for _ in range(rounds):
                kept += patched.run("bench.mover", url, count, 1)
                bare += patched.run("bench.mover", bare_url, count, 1)
        samples = spread(kept, more_is_better=True)
        without = number(sorted(bare)[len(bare) // 2])
        found.append((places.TITLES[engine], *samples, without, ratio(kept, bare)))
    columns = (
        f"rows per second, outbox of {count:,} rows",
        *SPREAD,
        "without, median",
        "beside it",
    )
    return Table("What the indexes for auditors cost the mover", COST, columns, found)


def _drop_indexes(url: str) -> None:
    database = Database(url)
    indexes = [one for one in schema.journal.indexes if str(one.name)[19:] in INDEXES]
    only = database.engine.dialect.name

    def drop(connection: Connection) -> None:
        for index in indexes:
            if index.info.get("only") in {None, only}:
                index.drop(connection)

    database.write(drop)
    database.close()

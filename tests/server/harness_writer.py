"""An app that commits files: a program of its own, with nothing of ours but the table's name.

Run with one argument, a JSON document of `Orders`; prints a JSON document of `Outcome`.
SIGTERM asks for an early end, between two transactions.
"""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import sqlite3
import sys
import time
from typing import Any

import psycopg
import pymysql

FOLDERS = ("/a", "/b/c", "/Übersicht 1")

_INSERTS = (
    "INSERT INTO app_change (user_id, file_id) VALUES (?, ?)",
    (
        "INSERT INTO file_event_outbox (user_id, type, file_id, from_path, client_id)"
        " VALUES (?, ?, ?, ?, ?)"
    ),
)


@dataclasses.dataclass(frozen=True)
class Orders:
    """What a writer does: where, as which writer, and for how long (seconds).

    `held_seconds` is the longest that a transaction is held open, `held_share` how many are.
    """

    engine: str
    address: dict[str, Any]
    number: int
    seconds: float
    held_seconds: float
    held_share: float
    pause_seconds: float
    users: list[str]
    client_ids: list[str]


@dataclasses.dataclass
class Outcome:
    """What it did: the (type, file id) of each committed row in its order, and counts."""

    committed: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    rolled_back: int = 0
    held: int = 0


class Writer:
    """One connection, one transaction after the other, at random; the seed is its number."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.outcome = Outcome()
        self._random = random.Random(orders.number)  # noqa: S311 -- guards nothing
        self._connection = _connect(orders.engine, orders.address)
        self._marks = "?" if orders.engine == "sqlite" else "%s"
        self._serial = 0
        self._transactions = 0
        self._files: list[tuple[str, str, str]] = []
        self._told_to_end = False

    def end(self, *_: object) -> None:
        """Begin no other transaction."""
        self._told_to_end = True

    def run(self) -> Outcome:
        deadline = time.monotonic() + self.orders.seconds
        while time.monotonic() < deadline and not self._told_to_end:
            self._transaction()
            time.sleep(self._pause())
        self._connection.close()
        return self.outcome

    def _pause(self) -> float:
        """Bursts: mostly short pauses, now and then a long one."""
        longest = self.orders.pause_seconds * (10 if self._random.random() < 0.05 else 1)
        return self._random.uniform(0, longest)

    def _transaction(self) -> None:
        cursor = self._connection.cursor()
        if self.orders.engine == "sqlite":
            cursor.execute("BEGIN IMMEDIATE")
        rows = [self._change() for _ in range(self._random.choice([1, 1, 1, 2, 3, 8]))]
        self._transactions += 1
        # Each kind at least once, however slow the machine: the chance alone would promise nothing.
        held = self._transactions == 5 or self._random.random() < self.orders.held_share
        undone = self._transactions == 7 or self._random.random() < 0.1
        for number, (user, kind, file_id, path) in enumerate(rows):
            self._insert(cursor, user, kind, file_id, path)
            if held and number == 0:
                longest = self.orders.held_seconds
                time.sleep(self._random.uniform(longest / 5, longest))
        self.outcome.held += held
        if undone:
            self._connection.rollback()
            self.outcome.rolled_back += 1
            return
        self._connection.commit()
        self.outcome.committed += [(kind, file_id) for _, kind, file_id, _ in rows]
        self._files += [(user, file_id, path) for user, kind, file_id, path in rows]
        del self._files[:-20]

    def _change(self) -> tuple[str, str, str, str]:
        if self._files and self._random.random() < 0.3:
            user, file_id, path = self._random.choice(self._files)
            return user, "modify", file_id, path
        self._serial += 1
        file_id = f"w{self.orders.number}-{self._serial}"
        folder = self._random.choice(FOLDERS)
        return self._random.choice(self.orders.users), "create", file_id, f"{folder}/{file_id}.txt"

    def _insert(self, cursor: Any, user: str, kind: str, file_id: str, path: str) -> None:
        maker = self._random.choice(self.orders.client_ids) if self._random.random() < 0.1 else None
        own_table, outbox = (insert.replace("?", self._marks) for insert in _INSERTS)
        cursor.execute(own_table, (user, file_id))
        cursor.execute(outbox, (user, kind, file_id, path, maker))


def _connect(engine: str, address: dict[str, Any]) -> Any:
    """Connect as any app does, in the engine's own default isolation."""
    if engine == "postgresql":
        return psycopg.connect(**address)
    if engine == "mariadb":
        return pymysql.connect(**address, ssl_disabled=True)
    return sqlite3.connect(address["database"], timeout=60, isolation_level=None)


if __name__ == "__main__":
    writer = Writer(Orders(**json.loads(sys.argv[1])))
    signal.signal(signal.SIGTERM, writer.end)
    done = writer.run()
    sys.stdout.write(json.dumps(dataclasses.asdict(done)))

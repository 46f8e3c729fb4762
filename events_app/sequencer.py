"""The mover: gives committed outbox rows their positions, in one short transaction a step.

Theory of operation
    An auto-increment id is handed out before its transaction commits, so nobody may read the
    outbox by `id > n`: a row with a lower id can appear later. Instead one mover takes what is
    committed, lowest id first, appends it to the journal at the next positions, and deletes it
    from the outbox, all in one transaction. Positions are dense and in the order of commits, so a
    reader of the journal can use `position > p`. The lock on the one row of `file_event_state` is
    the election: any worker may step, the one that gets the row does.

Rules
    - READ COMMITTED; the lock is a statement of its own. Lock and pick in one statement would let
      the second waiter pick from a snapshot taken before the first one committed.
    - The pick is a plain, non-locking SELECT from the very beginning of the outbox. By `id > hint`
      a late low id would fall behind a later delete of the same file.
    - DML by primary keys only: ranges would lock what the app inserts into.
    - What was inserted and what was deleted must count what was picked, or nothing happens.
    - A row that cannot be told is journalled as rejected; it never stops the line.
    - The app pays for nothing: no trigger, no lock, no NOTIFY on its side.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Text,
    any_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql

from events_app import errors, event, failures, intake
from events_app.columns import parts, readable_time, utc_now
from events_app.database import Database
from events_app.journal import positions_of_keys
from events_app.schema import journal, outbox, state

log = logging.getLogger(__name__)

BATCH_ROWS = 500
# A 10,000-row fetch holds the loop for some 16 ms; only a backlog is worth that.
BACKLOG_BATCH_ROWS = 10_000
# Well below what any of the drivers allows as parameters of one statement.
KEYS_PER_STATEMENT = 1_000

CHANNEL = "file_event_journal"

Values = dict[str, Any]

_LOCK_STATE = (
    select(state.c.last_position, utc_now().label("now"))
    .where(state.c.id == 1)
    .with_for_update(skip_locked=True, of=state)
)
_PICK = (
    select(
        *(column for column in outbox.c if column.name not in {"meta", "created_at"}),
        # No more of one that is too long than shows it: a batch of them must fit into memory.
        func.substr(cast(outbox.c.meta, Text), 1, intake.MAX_META_CHARACTERS + 1).label("meta"),
        readable_time(outbox.c.created_at).label("created_at"),
    )
    .order_by(outbox.c.id)
    .limit(bindparam("rows"))
)
_APPEND = insert(journal)
_DELETE = delete(outbox).where(outbox.c.id.in_(bindparam("ids", expanding=True)))
# As single parameters the driver would parse thousands of placeholders.
_DELETE_ON_POSTGRESQL = delete(outbox).where(
    outbox.c.id == any_(bindparam("ids", type_=postgresql.ARRAY(BigInteger)))
)
# Given a list, InnoDB's optimizer reads a small table from end to end, and a DELETE that does so
# waits for every row that an app has not committed yet. Joined so, each key is looked up by itself.
_DELETE_ON_MYSQL = text(
    "DELETE o FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id BIGINT PATH '$')) p "
    f"STRAIGHT_JOIN {outbox.name} o FORCE INDEX (PRIMARY) ON o.id = p.id"
)
_ADVANCE = (
    update(state)
    .where(state.c.id == 1, state.c.last_position == bindparam("from_position"))
    .values(last_position=bindparam("to_position"), updated_at=utc_now())
)


class Step(NamedTuple):
    """What one step did: rows moved, how many of them as rejected, the new last position."""

    moved: int
    rejected: int
    last_position: int


class Mover:
    """Steps with a batch size that follows the work: larger under backlog, halved by a bad row."""

    def __init__(self, database: Database) -> None:
        """Move rows in `database`."""
        self._database = database
        self._rows = BATCH_ROWS

    def step(self) -> Step | None:
        """Move one batch. None: another worker, or on SQLite any other writer, is at it.

        Raises what the database raises, and `MoveMismatch`; nothing has happened then.
        """
        while True:
            try:
                done = self._database.write(lambda connection: move(connection, self._rows))
            except errors.EventsError:
                raise
            except Exception as error:
                if failures.is_locked(error):
                    return None
                if self._rows == 1 or not failures.is_bad_value(error):
                    raise
                self._rows = max(1, self._rows // 2)
            else:
                self._grow(done)
                return done

    @property
    def batch_rows(self) -> int:
        """How many rows the next step takes at the most."""
        return self._rows

    def _grow(self, done: Step | None) -> None:
        if done is not None and done.moved == self._rows:
            self._rows = min(2 * self._rows, BACKLOG_BATCH_ROWS)
        elif done is not None:
            self._rows = BATCH_ROWS


def move(connection: Connection, rows: int) -> Step | None:
    """Run one step of at most `rows` rows over `connection`; None: another worker is at it.

    A step of a single row journals it as rejected when the database refuses its values.
    """
    locked = connection.execute(_LOCK_STATE).one_or_none()
    if locked is None:
        return None
    picked = connection.execute(_PICK, {"rows": rows}).mappings().all()
    if not picked:
        return Step(0, 0, locked.last_position)
    if rows > 1:
        return _journal(connection, locked, picked)
    return _journal_alone(connection, locked, dict(picked[0]))


def _journal_alone(connection: Connection, locked: Any, row: Mapping[str, Any]) -> Step:
    """Take one row into the journal: as it is, else as rejected, else so and without `meta`.

    MariaDB looks at JSON, and an app may have switched off that it does.
    """
    reason = None
    for _ in range(2):
        try:
            with connection.begin_nested():
                return _journal(connection, locked, [row], reason)
        except Exception as error:
            if not failures.is_bad_value(error):
                raise
            if reason is None:
                reason = failures.words_of(error)
                log.error("outbox row %d cannot be journalled: %s", row["id"], reason)
    return _journal(connection, locked, [{**row, "meta": None}], reason)


def _journal(
    connection: Connection, locked: Any, picked: Sequence[Any], reason: str | None = None
) -> Step:
    """Take the picked rows from the outbox into the journal; with `reason`, as rejected."""
    values = _journal_values(connection, picked, locked.last_position, locked.now, reason)
    _replace(connection, [row["id"] for row in picked], values)
    last = locked.last_position + len(picked)
    _advance(connection, locked.last_position, last)
    return Step(len(picked), sum(row["rejected"] is not None for row in values), last)


def _journal_values(
    connection: Connection,
    picked: Sequence[Any],
    last_position: int,
    now: datetime,
    reason: str | None,
) -> list[Values]:
    values = []
    for position, row in enumerate(picked, start=last_position + 1):
        raw = dict(row)
        del raw["id"]
        journalled = intake.reject(raw, reason, now) if reason else intake.clean(raw, now)
        journalled["position"] = position
        journalled["recorded_at"] = now
        journalled["tag"] = secrets.randbits(32)
        values.append(journalled)
    _reject_repeated_keys(connection, values)
    return values


def _reject_repeated_keys(connection: Connection, values: Sequence[Values]) -> None:
    """Journal a retry's second row, but keep it from the streams."""
    keyed = [row for row in values if row["event_key"] is not None]
    known = _known_keys(connection, [(row["user_id"], row["event_key"]) for row in keyed])
    for row in keyed:
        key = (row["user_id"], row["event_key"])
        if key in known:
            row["event_key"], row["rejected"] = None, event.DUPLICATE
        known.add(key)


def _known_keys(connection: Connection, keys: list[tuple[str, str]]) -> set[tuple[str, str]]:
    known: set[tuple[str, str]] = set()
    for part in parts(keys, KEYS_PER_STATEMENT):
        known.update(positions_of_keys(connection, part))
    return known


def _replace(connection: Connection, ids: list[int], values: list[Values]) -> None:
    appended = _append(connection, values)
    deleted = _delete(connection, ids)
    if not appended == deleted == len(ids):
        raise errors.MoveMismatch(
            f"picked {len(ids)} outbox rows, appended {appended}, deleted {deleted}: rolled back"
        )


def _append(connection: Connection, values: list[Values]) -> int:
    """Insert into the journal; return how many rows the database says it took.

    By COPY where there is one: psycopg sends many rows as many statements, which costs more than
    everything else in a step together.
    """
    if connection.dialect.name != "postgresql":
        return connection.execute(_APPEND, values).rowcount
    columns = values[0].keys()
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY {journal.name} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in values:
            copy.write_row([row[column] for column in columns])
    return int(cursor.rowcount)


def _delete(connection: Connection, ids: list[int]) -> int:
    """Delete from the outbox; return how many rows the database says went."""
    if connection.dialect.name == "postgresql":
        return connection.execute(_DELETE_ON_POSTGRESQL, {"ids": ids}).rowcount
    if connection.dialect.name in {"mysql", "mariadb"}:
        return connection.execute(_DELETE_ON_MYSQL, {"ids": json.dumps(ids)}).rowcount
    some = parts(ids, KEYS_PER_STATEMENT)
    return sum(connection.execute(_DELETE, {"ids": part}).rowcount for part in some)


def _advance(connection: Connection, before: int, after: int) -> None:
    moved = connection.execute(_ADVANCE, {"from_position": before, "to_position": after})
    if moved.rowcount != 1:
        raise errors.MoveMismatch(f"the state row left position {before} while it was locked")
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"NOTIFY {CHANNEL}"))

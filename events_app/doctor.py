"""What can be wrong with an installation, each as one line: ok, or what to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, Executable, delete, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from events_app import errors, failures, fitness, journal, settings
from events_app.columns import utc_now
from events_app.schema import grant, outbox, state, subscription
from events_app.schema import journal as journal_table
from events_app.sidecar import Sidecar


class Finding(NamedTuple):
    """One line: what was looked at, whether it is good, and what it says."""

    what: str
    ok: bool
    says: str


class _Untouched(Exception):
    """Carries the answer out of a transaction that must leave nothing behind."""


def examine(parts: Sidecar) -> list[Finding]:
    """Look at everything; what a failed look would only repeat is left out."""
    findings = [_look("settings", lambda: _settings(parts))]
    findings.append(_look("database", lambda: _database(parts)))
    if not findings[-1].ok:
        return findings
    findings.append(_look("isolation", lambda: _isolation(parts)))
    findings.append(_look("schema", lambda: _schema(parts)))
    if findings[-1].ok:
        findings.append(_look("role", lambda: _role(parts)))
        findings.append(_look("outbox", lambda: _outbox(parts)))
    findings.append(_look("driver", lambda: _driver(parts)))
    return findings


def _look(what: str, at: Callable[[], str]) -> Finding:
    try:
        return Finding(what, ok=True, says=at())
    except errors.EventsError as error:
        return Finding(what, ok=False, says=" ".join(error.message.split()))
    except SQLAlchemyError as error:
        return Finding(what, ok=False, says=failures.words_of(error))


def _settings(parts: Sidecar) -> str:
    settings.require_keys(parts.settings)
    return f"every EVENTS_ variable is good; {parts.settings.jwt_algorithm} tokens"


def _database(parts: Sidecar) -> str:
    product, version = parts.database.read(fitness.product_and_version)
    parts.database.read(fitness.refuse_unsupported)
    address = settings.safe_url(parts.settings.database_url)
    return f"{product} {'.'.join(map(str, version))} at {address}"


def _isolation(parts: Sidecar) -> str:
    if parts.database.is_sqlite:
        return parts.database.read(_sqlite_mode)
    return parts.database.read(lambda db: str(db.get_isolation_level()))


def _sqlite_mode(connection: Connection) -> str:
    mode = connection.scalar(text("PRAGMA journal_mode"))
    if mode != "wal":
        raise errors.UnsupportedDatabase(
            f"the file is in {mode} mode, where a reader stops the app's writes; "
            "run: sqlite3 FILE 'PRAGMA journal_mode = WAL'"
        )
    return "WAL; one writer at a time"


def _schema(parts: Sidecar) -> str:
    version = parts.database.read(fitness.check_schema)
    head = parts.database.read(journal.head)
    return f"version {version}; positions {head.floor_position + 1} to {head.last_position}"


def _role(parts: Sidecar) -> str:
    """Try every right the sidecar needs, on no row, and roll back."""
    nothing = journal_table.c.position < 0
    statements: dict[str, list[Executable]] = {
        "SELECT, UPDATE on file_event_state": [
            select(state.c.epoch).with_for_update(),
            update(state).where(state.c.id < 0).values(updated_at=utc_now()),
        ],
        "SELECT, DELETE on file_event_outbox": [delete(outbox).where(outbox.c.id < 0)],
        "SELECT, INSERT, DELETE on file_event_journal": [
            delete(journal_table).where(nothing),
            insert(journal_table).from_select(
                journal_table.c.keys(), select(journal_table).where(nothing)
            ),
        ],
        "SELECT, INSERT, UPDATE, DELETE on file_event_subscription": [
            delete(subscription).where(subscription.c.generation < 0),
            update(subscription).where(subscription.c.generation < 0).values(generation=0),
            insert(subscription).from_select(
                subscription.c.keys(), select(subscription).where(subscription.c.generation < 0)
            ),
        ],
        "SELECT on file_event_grant": [select(grant.c.share_id).limit(1)],
    }
    for right, tries in statements.items():
        for statement in tries:
            try:
                parts.database.write(partial(_rolled_back, statement=statement))
            except _Untouched:
                continue
            except SQLAlchemyError as error:
                if not failures.is_denied(error):
                    raise
                reason = failures.words_of(error)
                raise errors.DatabaseError(
                    f"the role lacks {right}; GRANT it ({reason})"
                ) from error
    return "it may do all that the sidecar does"


def _rolled_back(connection: Connection, statement: Executable) -> None:
    connection.execute(statement)
    raise _Untouched


def _outbox(parts: Sidecar) -> str:
    head = parts.database.read(journal.head)
    if head.waiting_since is None:
        return "empty: everything committed has its position"
    age = (head.now - head.waiting_since).total_seconds()
    if age > 60:  # noqa: PLR2004 -- a minute: any running worker would have moved it
        raise errors.DatabaseError(
            f"its oldest row waits for {age:.0f} s: is a worker running? See its log and /readyz"
        )
    return "rows wait to be moved"


def _driver(parts: Sidecar) -> str:
    if parts.database.is_sqlite:
        return "sqlite3 in a thread of its own"
    name = parts.database.engine.dialect.driver
    return f"{name}; it cooperates with gevent where gunicorn.conf.py patches first"

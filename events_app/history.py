"""What happened: the journal as auditors and users ask for it, newest first, in bounded pages.

Theory of operation
    A question about a path or a span of time has an index. As long as that names only a few
    positions (`FEW`), they are collected by it, and their rows are read. Everything else is a walk
    from the newest row to the oldest, a user's own rows or all of them, that looks at no more than
    `LOOK_ROWS` rows before it says how far it has come.

Rules
    No statement here reads more than so many rows, whoever asks for whatever. Every page is a
    transaction of its own: a long one would hold back the vacuum of the outbox.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    cast,
    func,
    or_,
    select,
    true,
)

from events_app import uri
from events_app.columns import parts
from events_app.schema import INDEXED_PATH_CHARACTERS, IS_LONG, IS_SHORT, journal, state

LOOK_ROWS = 10_000
FEW = 2_000
# Positions named in one statement.
KEYS = 1_000

_FIRST_SURROGATE, _LAST_SURROGATE = 0xD800, 0xDFFF

# Below every position's successor: where the newest page begins.
END = 2**63 - 1


class Question(NamedTuple):
    """What is asked for; None: whatever it is. A path stands for itself and all below it.

    `since` is in it, `until` is not; both are the journal's time, not the app's. `told` leaves out
    what was rejected, and only what stands after the position `after` counts.
    """

    user_id: str | None = None
    fs: str | None = None
    path: str | None = None
    file_id: str | None = None
    actor: str | None = None
    types: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    told: bool = False
    after: int = 0


class Entry(NamedTuple):
    """A row of the journal with all that it tells an auditor; `meta` is JSON as text."""

    position: int
    recorded_at: datetime
    created_at: datetime | None
    user_id: str
    actor_id: str | None
    type: str
    file_id: str
    fs: str
    is_folder: int
    from_path: str
    to_path: str | None
    client_id: str | None
    event_key: str | None
    meta: str | None
    rejected: str | None

    @property
    def actor(self) -> str:
        """Who did it, named or not."""
        return self.actor_id or self.user_id


class Page(NamedTuple):
    """Entries, newest first; `next` is what the next page comes before. None: that was all."""

    entries: list[Entry]
    next: int | None


_COLUMNS: list[ColumnElement[Any]] = [
    cast(journal.c.meta, Text).label("meta") if name == "meta" else journal.c[name]
    for name in Entry._fields
]
_ENTRIES = select(*_COLUMNS).order_by(journal.c.position.desc())
_ENDS = select(state.c.floor_position, state.c.last_position).where(state.c.id == 1)


def ends(connection: Connection) -> tuple[int, int]:
    """Read the position before the oldest row, and the newest one."""
    floor, last = connection.execute(_ENDS).one()
    return floor, last


def begun(connection: Connection, user_id: str, fs: str, path: str) -> int:
    """Return the position after which the folder at `path` is the present one; 0: always was.

    There it was made or came to its place, or what stood there before went, or a folder above it.
    """
    above = uri.ancestors(path)
    kinds = {"from_path": ("create", "rename", "delete"), "to_path": ("rename",)}
    newest = 0
    for name, types in kinds.items():
        for indexed in _indexed(name, connection.dialect.name):
            query = select(func.max(journal.c.position)).where(
                journal.c.user_id == user_id,
                journal.c.fs == fs,
                journal.c[name].in_(above),
                journal.c.type.in_(types),
                or_(journal.c.to_path.is_(None), journal.c.to_path != journal.c.from_path),
                journal.c.rejected.is_(None),
                *indexed,
            )
            newest = max(newest, connection.scalar(query) or 0)
    return newest


def _indexed(name: str, dialect: str) -> Sequence[Sequence[ColumnElement[bool]]]:
    """Say what must be added, by turns, so that an index over the paths serves: see `schema`."""
    return [[IS_SHORT[name]], [IS_LONG]] if dialect == "postgresql" else [[]]


def page(connection: Connection, question: Question, before: int, rows: int) -> Page:
    """Read at most `rows` entries below the position `before`."""
    positions = _positions(connection, question)
    if positions is None:
        return _walk(connection, question, before, rows)
    query = _ENTRIES.where(*_conditions(question))
    found: list[Entry] = []
    older = sorted((each for each in positions if each < before), reverse=True)
    for some in parts(older, KEYS):
        read = query.where(journal.c.position.in_(some)).limit(rows - len(found))
        found += map(Entry._make, connection.execute(read))
        if len(found) == rows:
            return Page(found, found[-1].position)
    return Page(found, None)


def _walk(connection: Connection, question: Question, before: int, rows: int) -> Page:
    lowest = _lowest(connection, question.user_id, before)
    query = _along(_ENTRIES, question.user_id).where(
        *_conditions(question), journal.c.position < before
    )
    if lowest is not None:
        query = query.where(journal.c.position >= lowest)
    found = [Entry._make(row) for row in connection.execute(query.limit(rows))]
    return Page(found, found[-1].position if len(found) == rows else lowest)


def _lowest(connection: Connection, user_id: str | None, before: int) -> int | None:
    """Return the position down to which one page looks; None: to the very first row."""
    if user_id is None:
        return _lowest_of_all(connection, before)
    query = _along(select(journal.c.position), user_id).where(
        journal.c.user_id == user_id, journal.c.position < before
    )
    query = query.order_by(journal.c.position.desc()).offset(LOOK_ROWS - 1).limit(1)
    lowest: int | None = connection.scalar(query)
    return lowest


def _lowest_of_all(connection: Connection, before: int) -> int | None:
    """Count, since there are no holes."""
    floor, last = ends(connection)
    lowest = min(before, last + 1) - LOOK_ROWS
    return lowest if lowest > floor + 1 else None


def _along(query: Select[Any], user_id: str | None) -> Select[Any]:
    """Hold MariaDB and MySQL to the order of positions: they may think that a sort is cheaper."""
    index = "PRIMARY" if user_id is None else "file_event_journal_user_position"
    for dialect in ("mysql", "mariadb"):
        query = query.with_hint(journal, f"FORCE INDEX ({index})", dialect)
    return query


def _conditions(question: Question) -> Iterator[ColumnElement[bool]]:
    for name in ("user_id", "fs", "file_id"):
        if (value := getattr(question, name)) is not None:
            yield journal.c[name] == value
    if question.types is not None:
        yield journal.c.type.in_(question.types)
    if question.actor is not None:
        yield func.coalesce(journal.c.actor_id, journal.c.user_id) == question.actor
    if question.told:
        yield journal.c.rejected.is_(None)
    if question.after:
        yield journal.c.position > question.after
    yield from _in_time(question)
    if question.path not in {None, "/"}:
        yield _touched(str(question.path))


def _in_time(question: Question) -> Iterator[ColumnElement[bool]]:
    if question.since is not None:
        yield journal.c.recorded_at >= question.since
    if question.until is not None:
        yield journal.c.recorded_at < question.until


def _touched(path: str) -> ColumnElement[bool]:
    """Match what names the path or something below it, or takes a folder above it away."""
    above = uri.ancestors(path)[1:-1]
    names = (journal.c.from_path, journal.c.to_path)
    carried = and_(
        journal.c.type.in_(("rename", "delete")), or_(*(name.in_(above) for name in names))
    )
    return or_(*(name == path for name in names), *(_below(name, path) for name in names), carried)


def _below(name: ColumnElement[Any], path: str) -> ColumnElement[bool]:
    """Match by a span, which an index can serve: in order of bytes, 0 is what follows a slash."""
    return and_(name > f"{path}/", name < f"{path}0")


def _positions(connection: Connection, question: Question) -> set[int] | None:
    """Collect by an index where to look; None where there is none or it names too many."""
    found: set[int] = set()
    branches = _branches(question, connection.dialect.name)
    if not branches:
        return None
    for branch in branches:
        query = select(journal.c.position).where(branch).limit(FEW + 1)
        found.update(connection.scalars(query))
        if len(found) > FEW:
            return None
    return found


def _branches(question: Question, dialect: str) -> Sequence[ColumnElement[bool]]:
    """Say by which indexes the question can be answered: all of these together, or none."""
    if question.user_id is not None and question.path not in {None, "/"}:
        return _branches_of_path(question.user_id, str(question.path), dialect)
    span = and_(true(), *_in_time(question))
    if question.since is None and question.until is None:
        return ()
    if question.actor is not None:
        whose = (journal.c.actor_id, journal.c.user_id)
        return [and_(name == question.actor, span) for name in whose]
    return () if question.user_id is None else [and_(journal.c.user_id == question.user_id, span)]


def _branches_of_path(user_id: str, path: str, dialect: str) -> list[ColumnElement[bool]]:
    whose = journal.c.user_id == user_id
    found = []
    for name, is_short in IS_SHORT.items():
        indexed = [is_short] if dialect == "postgresql" else []
        found += [and_(whose, each, *indexed) for each in _near(journal.c[name], path, dialect)]
    if dialect == "postgresql":
        found.append(and_(whose, IS_LONG))
    return found


def _near(name: ColumnElement[Any], path: str, dialect: str) -> Sequence[ColumnElement[bool]]:
    """Match the path, what is below it and the folders above it, or more, by an index alone.

    Where it holds the beginnings of paths, all that begin alike are counted: else one would be
    looked for among any number of others.
    """
    above = uri.ancestors(path)[:-1]
    if dialect not in {"mysql", "mariadb"} or len(path) < INDEXED_PATH_CHARACTERS:
        return [name.in_(above), _below(name, path)]
    begins = path[:INDEXED_PATH_CHARACTERS]
    shorter = [each for each in above if len(each) < INDEXED_PATH_CHARACTERS]
    return [name.in_(shorter), and_(name >= begins, name < _behind(begins))]


def _behind(text: str) -> str:
    """Return the first text behind all that begin with `text`, which begins with a slash."""
    kept = text.rstrip(chr(sys.maxunicode))
    following = ord(kept[-1]) + 1
    # No text holds half of a surrogate pair.
    return kept[:-1] + chr(following if following != _FIRST_SURROGATE else _LAST_SURROGATE + 1)

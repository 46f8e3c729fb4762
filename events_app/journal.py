"""Every statement that reads or prunes the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    CompoundSelect,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from events_app import errors, event
from events_app.columns import filled, is_one_of, listed, parts, readable_time, utc_now
from events_app.schema import journal, outbox, state

# A page is read in one go: larger ones would hold the event loop for more than a few milliseconds.
PAGE_ROWS = 1_000
PRUNE_ROWS = 1_000
PRUNABLE_ROWS = 10_000
# Of one statement.
REPLAYS_AT_ONCE = 8
# The largest that a column holds: a forged one beyond it must not reach a statement.
LARGEST_POSITION = 2**63 - 1
KEYS_AT_ONCE = 50

_COLUMNS = [journal.c[name] for name in event.Row._fields]

_LAST_TAG = (
    select(journal.c.tag)
    .where(journal.c.position == state.c.last_position)
    .correlate(state)
    .scalar_subquery()
    .label("last_tag")
)
_HEAD = select(
    state.c.last_position,
    state.c.floor_position,
    state.c.epoch,
    utc_now().label("now"),
    select(readable_time(outbox.c.created_at))
    .order_by(outbox.c.id)
    .limit(1)
    .scalar_subquery()
    .label("oldest"),
    select(outbox.c.id).order_by(outbox.c.id).limit(1).scalar_subquery().label("first_id"),
    select(journal.c.tag)
    .where(journal.c.position == bindparam("seen"))
    .scalar_subquery()
    .label("seen_tag"),
    _LAST_TAG,
).where(state.c.id == 1)

_SEEN: BindParameter[Any] = bindparam("seen", expanding=True)
_ENDS = (
    select(
        state.c.last_position,
        state.c.floor_position,
        state.c.epoch,
        _LAST_TAG,
        journal.c.position,
        journal.c.tag,
    )
    .join_from(state, journal, journal.c.position.in_(_SEEN), isouter=True)
    .where(state.c.id == 1)
)

_AFTER = (
    select(*_COLUMNS)
    .where(journal.c.position > bindparam("after"), journal.c.position <= bindparam("upto"))
    .order_by(journal.c.position)
    .limit(bindparam("rows"))
)
_AFTER_OF_USER = _AFTER.where(journal.c.user_id == bindparam("user_id"))
_EVENT_KEY = (journal.c.user_id, journal.c.event_key)
_KEPT = select(*_EVENT_KEY, journal.c.position)
_OF_KEYS = _KEPT.where(tuple_(*_EVENT_KEY).in_(bindparam("keys", expanding=True)))
_TAG = select(journal.c.tag).where(journal.c.position == bindparam("position"))
_OUTBOX_HOLDS = select(outbox.c.id).order_by(outbox.c.id).offset(bindparam("rows")).limit(1)


def _past(number: int) -> Select[Any]:
    """Make the part of the statement of `pasts` that looks over the replay of this number."""
    folders: BindParameter[Any] = bindparam(f"folders_{number}", expanding=True)
    ended = and_(
        journal.c.fs == bindparam(f"fs_{number}"),
        or_(journal.c.to_path.is_(None), journal.c.to_path != journal.c.from_path),
        or_(
            and_(journal.c.type != "modify", journal.c.from_path.in_(folders)),
            journal.c.to_path.in_(folders),
        ),
    )
    rejected = and_(journal.c.rejected.is_not(None), journal.c.rejected != event.DUPLICATE)
    told = journal.c.rejected.is_(None)
    rows = (
        select(
            case((rejected, 1), else_=0).label("rejected"),
            case((and_(told, ended), 1), else_=0).label("root_ended"),
        )
        .where(
            journal.c.user_id == bindparam(f"user_{number}"),
            journal.c.position > bindparam(f"after_{number}"),
        )
        .order_by(journal.c.position)
        .limit(bindparam("rows"))
        .subquery()
    )
    return select(
        literal_column(str(number)).label("number"),
        func.count(),
        func.coalesce(func.sum(rows.c.rejected), 0),
        func.coalesce(func.sum(rows.c.root_ended), 0),
    ).select_from(rows)


@cache  # to make it takes as long as to run it
def _pasts(count: int) -> CompoundSelect[Any]:
    return union_all(*map(_past, range(count)))


_NO_STATE = "file_event_state has lost its row; restore it from a backup"


class Head(NamedTuple):
    """The state of the journal at one moment of the database's clock.

    `waiting_since` is when the oldest outbox row was created, by the app's clock; None: empty.
    `seen_tag` is the tag of the row at the position that was asked for, `last_tag` of that at
    `last_position`; None: no such row.
    """

    last_position: int
    floor_position: int
    epoch: int
    now: datetime
    waiting_since: datetime | None
    seen_tag: int | None
    last_tag: int | None

    @property
    def end(self) -> event.Point:
        """The last row."""
        return event.Point(self.last_position, self.last_tag or 0)


def head(connection: Connection, seen: int = 0) -> Head:
    """Read where the journal ends, what waits in the outbox, and the tag at position `seen`."""
    found = connection.execute(_HEAD, {"seen": seen}).one_or_none()
    if found is None:
        raise errors.SchemaError(_NO_STATE)
    last, floor, epoch, now, oldest, first_id, seen_tag, last_tag = found
    waiting_since = None if first_id is None else (oldest or now)
    return Head(last, floor, epoch, now, waiting_since, seen_tag, last_tag)


class Ends(NamedTuple):
    """Where the journal begins and ends; `tags` are those at the positions that were asked for."""

    floor_position: int
    epoch: int
    end: event.Point
    tags: Mapping[int, int]

    @property
    def last_position(self) -> int:
        """The position of the last row."""
        return self.end.position


def ends(connection: Connection, seen: Iterable[int]) -> Ends:
    """Read where the journal begins and ends, and the tags at the positions `seen`."""
    found = connection.execute(_ENDS, {"seen": sorted({0, *seen})}).all()
    if not found:
        raise errors.SchemaError(_NO_STATE)
    last, floor, epoch, last_tag, *_ = found[0]
    tags = {position: tag for *_, position, tag in found if position is not None}
    return Ends(floor, epoch, event.Point(last, last_tag or 0), tags)


def outbox_holds(connection: Connection, rows: int) -> bool:
    """Tell whether at least `rows` rows wait in the outbox."""
    return connection.scalar(_OUTBOX_HOLDS, {"rows": rows - 1}) is not None


def outbox_depth(connection: Connection, most: int) -> int:
    """Count the rows that wait in the outbox, up to `most`: counting more would itself be work."""
    waiting = select(outbox.c.id).limit(most).subquery()
    return connection.scalar(select(func.count()).select_from(waiting)) or 0


def after(connection: Connection, position: int, upto: int) -> list[event.Row]:
    """Read a page of all rows in (position, upto], in order."""
    found = connection.execute(_AFTER, {"after": position, "upto": upto, "rows": PAGE_ROWS})
    return [event.Row._make(row) for row in found.all()]


class Page(NamedTuple):
    """Rows of one user, complete up to `upto`; `head` was read after them."""

    rows: list[event.Row]
    upto: event.Point
    head: Head


def page_of_user(connection: Connection, user_id: str, position: int, upto: event.Point) -> Page:
    """Read a page of the user's rows in (position, upto].

    The head is read last: a floor or epoch that is still the old one proves the page whole.
    """
    values = {"user_id": user_id, "after": position, "upto": upto.position, "rows": PAGE_ROWS}
    rows = [event.Row._make(row) for row in connection.execute(_AFTER_OF_USER, values).all()]
    if len(rows) == PAGE_ROWS:
        upto = event.Point(rows[-1].position, rows[-1].tag)
    return Page(rows, upto, head(connection))


def tag_at(connection: Connection, position: int) -> int | None:
    """Return the tag of the row at `position`; None when there is no such row."""
    return connection.scalar(_TAG, {"position": position})


def positions_of_keys(
    connection: Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Return the position of each (user, event key) that has one, of at most `PAGE_ROWS`."""
    if connection.dialect.name != "sqlite":
        rows = connection.execute(_OF_KEYS, {"keys": keys}).all()
    else:
        few = parts(keys, KEYS_AT_ONCE)
        rows = [row for part in few for row in _of_few_keys(connection, part)]
    return {(user_id, key): position for user_id, key, position in rows}


def _of_few_keys(connection: Connection, keys: Sequence[tuple[str, str]]) -> Sequence[Any]:
    return connection.execute(_of_few(len(keys)), listed(_EVENT_KEY, keys)).all()


@cache
def _of_few(count: int) -> Select[Any]:
    """Make the statement for SQLite, which has no way to look up a list of pairs in an index."""
    return _KEPT.where(is_one_of(_EVENT_KEY, count))


class Replay(NamedTuple):
    """What one watcher would be told again: rows of a user after a position.

    `root` is the watched folder with every folder above it.
    """

    user_id: str
    fs: str
    position: int
    root: frozenset[str]


class Past(NamedTuple):
    """What a replay would have to go through: rows of the user, and what forbids it."""

    rows: int
    rejected: int
    root_ended: int


def pasts(connection: Connection, replays: Sequence[Replay], most: int) -> list[Past]:
    """Look over the rows of each replay, at most `most` + 1 of them."""
    some = parts(replays, REPLAYS_AT_ONCE)
    return [past for part in some for past in _look_over(connection, part, most)]


def _look_over(connection: Connection, replays: Sequence[Replay], most: int) -> list[Past]:
    values: dict[str, Any] = {"rows": most + 1}
    asked = filled(replays, REPLAYS_AT_ONCE)
    for number, each in enumerate(asked):
        values[f"user_{number}"] = each.user_id
        values[f"fs_{number}"] = each.fs
        # Those that only fill the statement go through nothing.
        values[f"after_{number}"] = each.position if number < len(replays) else LARGEST_POSITION
        values[f"folders_{number}"] = sorted(each.root)
    rows = connection.execute(_pasts(len(asked)), values).all()
    return [Past(*map(int, past)) for _, *past in sorted(rows)[: len(replays)]]


def raise_epoch(connection: Connection, seen_epoch: int, above: int = 0) -> bool:
    """Begin a new epoch, unless somebody has begun one after `seen_epoch`; tell whether we did.

    The new epoch is the time: it is above every one that a restored backup may bring back. It is
    above `above` in any case.
    """
    now = max(int(head(connection).now.timestamp()), above + 1)
    raised = connection.execute(
        update(state)
        .where(state.c.id == 1, state.c.epoch == seen_epoch)
        .values(
            epoch=case((state.c.epoch < now, literal(now)), else_=state.c.epoch + 1),
            updated_at=utc_now(),
        )
    )
    return raised.rowcount == 1


def prune(connection: Connection, age_seconds: float) -> int:
    """Remove a batch of the oldest rows that are older than `age_seconds`; return how many.

    A prefix of positions goes, and the floor rises with it in the same transaction.
    """
    current = connection.execute(
        select(state.c.floor_position, utc_now().label("now"))
        .where(state.c.id == 1)
        .with_for_update(of=state)
    ).one()
    limit = current.now - timedelta(seconds=age_seconds)
    oldest = connection.execute(
        select(journal.c.position, journal.c.recorded_at)
        .where(journal.c.position > current.floor_position)
        .order_by(journal.c.position)
        .limit(PRUNE_ROWS)
    ).all()
    expired = []
    for row in oldest:
        if row.recorded_at >= limit:
            break
        expired.append(row.position)
    if expired:
        connection.execute(delete(journal).where(journal.c.position.in_(expired)))
        connection.execute(update(state).where(state.c.id == 1).values(floor_position=expired[-1]))
    return len(expired)


def prunable(connection: Connection, floor: int, limit: datetime) -> int:
    """Count what pruning would take next after `floor`: rows from before `limit`, a look's worth.

    What is younger keeps all that is behind it, as in `prune`.
    """
    window = and_(journal.c.position > floor, journal.c.position <= floor + PRUNABLE_ROWS)
    kept = connection.scalar(
        select(func.min(journal.c.position)).where(window, journal.c.recorded_at >= limit)
    )
    if kept is not None:
        return int(kept) - floor - 1
    newest = connection.scalar(select(func.max(journal.c.position)).where(window))
    return 0 if newest is None else int(newest) - floor

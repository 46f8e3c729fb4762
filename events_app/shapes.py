"""The shape of each answer in JSON: the doors build their answers from it, and the document too.

Rules
    The keys go over the wire in the order that stands here. A key of UNSET is left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from events_app import event, history, moment

Type = Literal["create", "modify", "rename", "delete"]

_Position = Annotated[int, Meta(ge=1)]
_Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class Change(Struct, frozen=True, kw_only=True):
    """A change, as streams and pages tell it."""

    type: Type
    file_id: Annotated[
        str, Meta(description="The app's stable id of the file or folder; it survives renames.")
    ]
    from_path: Annotated[
        str,
        Meta(
            description="Relative to the watched folder, decoded, with one leading `/`; of a rename"
            " the old path.",
            extra_json_schema={"pattern": "^/[^/]"},
        ),
    ] = msgspec.field(name="from")
    to: Annotated[
        str,
        Meta(
            description='The new path of a rename, otherwise `""`.',
            extra_json_schema={"pattern": "^(/[^/]|$)"},
        ),
    ]


class PastChange(Change, frozen=True, kw_only=True):
    """A change as it stands in the journal, with when and by whom."""

    position: Annotated[_Position, Meta(description="Where it stands in the journal.")]
    created_at: Annotated[_Moment | None, Meta(description="The app's time, in UTC.")]
    recorded_at: Annotated[
        _Moment, Meta(description="The journal's time, in UTC; `since` and `until` go by it.")
    ]
    actor_id: Annotated[str | None, Meta(description="Who did it, where it was not the owner.")]
    client_id: Annotated[
        str | UnsetType | None,
        Meta(description="The client that did it. Missing in what somebody else shares."),
    ] = UNSET


class Page(Struct, frozen=True, kw_only=True):
    """Changes that have settled, in an order in which they can be applied."""

    events: list[Change]
    cursor: Annotated[
        str, Meta(description="The `cursor` of the next request. It moves also without changes.")
    ]
    more: Annotated[bool, Meta(description="The next page need not be waited for.")]


class Past(Struct, frozen=True, kw_only=True):
    """What happened, the newest first."""

    events: list[PastChange]
    next: Annotated[
        str | None,
        Meta(description="The `before` of the next page; null on the last one."),
    ]


class Accepted(Struct, frozen=True, kw_only=True):
    """The batch is committed."""

    accepted: Annotated[
        int,
        Meta(
            ge=1,
            description="How many changes of the batch are known to be stored: all of them,"
            " repetitions too.",
        ),
    ]
    first: Annotated[
        _Position | UnsetType,
        Meta(
            description="With `wait`: the lowest position in the journal at which they stand. What"
            " others wrote may stand between. Missing when they had not moved in time.",
        ),
    ] = UNSET
    last: Annotated[_Position | UnsetType, Meta(description="The highest one; as `first`.")] = UNSET


class FreshStart(Struct, frozen=True, kw_only=True):
    """Where to go on once the folder is listed."""

    cursor: Annotated[str, Meta(description="From before the answer: list, then go on from it.")]
    reason: str


class WrongChange(Struct, frozen=True, kw_only=True):
    """Which change of a body is wrong."""

    index: Annotated[
        int, Meta(ge=0, description="Counted from 0; in lines, blank ones do not count.")
    ]
    reason: str


class Problem(Struct, frozen=True, kw_only=True):
    """Why a request is not served."""

    code: Annotated[int, Meta(description="Tells apart what has the same status.")]
    msg: Annotated[str, Meta(description="The same for people.")]
    correlation_id: Annotated[
        str,
        Meta(
            description="The log of the server has the details under it.",
            extra_json_schema={"format": "uuid"},
        ),
    ]
    data: Annotated[
        dict[str, Any] | UnsetType, Meta(description="What a program needs to go on.")
    ] = UNSET


class Well(Struct, frozen=True, kw_only=True):
    """A worker that is alive, or ready."""

    status: Literal["ok"]


class NotReady(Struct, frozen=True, kw_only=True):
    """A worker that is not ready."""

    status: Literal["not ready"]
    reason: str


def change(told: event.Change) -> Change:
    """Make it of what a watcher is told."""
    return Change(
        type=cast("Type", told.type),
        file_id=told.file_id,
        from_path=told.from_path,
        to=told.to_path,
    )


def past_change(entry: history.Entry, told: event.Change, *, own: bool) -> PastChange:
    """Make it of a row of the journal, and of that row as its watcher may see it."""
    return PastChange(
        type=cast("Type", told.type),
        file_id=told.file_id,
        from_path=told.from_path,
        to=told.to_path,
        position=entry.position,
        created_at=moment.written(entry.created_at) if entry.created_at else None,
        recorded_at=moment.written(entry.recorded_at),
        actor_id=entry.actor_id,
        client_id=entry.client_id if own else UNSET,
    )

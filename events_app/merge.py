"""Fold a run of changes into the shortest one that leaves the client in the same state.

Theory of operation
    A run is what one stream has read and not sent, in the order of the journal. It is not merged
    change by change: whether two changes of a file may become one depends on all that happened
    between them to other files. So the run is read once into two trees (`forest`): what the client
    has, and what the server has. What differs between them is told (`telling`): one step for each
    entry, in an order in which every step can be done, with a step aside where entries are in each
    other's way (`rings`).
    It is safe because steps are not derived from changes but from places: whatever happened on the
    way, a step is said only when the client's tree, as the steps before have left it, has the entry
    where the step takes it from, and room where the step puts it.
    In a second delivery the client's tree is not known: then the last word on each path is told
    (`retelling`).

Rules
    When in doubt, send more. A change that cannot be, given those before it, ends what is folded
    together: what was before it is told, and all that was known is forgotten. A run for which no
    way is found, or only a longer one, is told as it is.
    The watcher's own changes are not told; they have moved the client's tree. A run with own
    changes that cannot be folded is told like a second delivery, for then a change that passes
    through could name what the client has moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from events_app import forest, retelling, rings, telling
from events_app.event import Change


def due_at(first: float, last: float, quiet: float, longest: float) -> float:
    """Tell when a run is sent: after `quiet` seconds without a change, `longest` at most.

    `first` and `last` are the times of its oldest and newest change, on any clock in seconds.
    """
    return min(last + quiet, first + longest)


def fold(
    run: Iterable[Change], *, repeated: bool = False, then: Iterable[Change] = ()
) -> list[Change]:
    """Fold `run` and what comes `then`; any input at all comes out as some list.

    `repeated` says that the client may already have a part of `run`; it has nothing of `then`.
    The watcher's own changes are not in the result.
    """
    if not repeated:
        return _fold([*run, *then])
    later = list(then)
    own = (change for change in later if change.own)
    return retelling.last_words([*run, *own]) + _fold(later)


def _fold(run: Sequence[Change]) -> list[Change]:
    has_own = any(change.own for change in run)
    if len(run) == 1 and not has_own:
        return list(run)
    told: list[Change] = []
    start = 0
    while start < len(run):
        read = forest.Forest()
        end = read.read(run, start)
        if end < len(run) and has_own:
            return retelling.last_words(run)
        if end == start:  # it cannot be, whatever was before it
            end += 1
            told.append(run[start])
        else:
            told += _told(read, run[start:end], has_own=has_own)
        start = end
    return told


def _told(read: forest.Forest, rows: Sequence[Change], *, has_own: bool) -> list[Change]:
    try:
        told = telling.tell(read, rows)
    except rings.NoWayOutError:
        return retelling.last_words(rows) if has_own else list(rows)
    return list(rows) if len(told) > len(rows) and not has_own else told

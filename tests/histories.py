"""Random valid histories: what an app does in a tree, and the rows it writes of it.

A few bytes stand for one step, so that a history is quick to draw, and a failing one shrinks by
leaving out steps and by making them simpler. A step that takes several rows may be left half done,
and go on when others have happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from typing import NamedTuple, Self

from hypothesis import settings
from hypothesis import strategies as st

from events_app.event import Change
from tests.app_steps import STEPS, Choice
from tests.client_tree import Tree
from tests.file_app import App

LONGEST = 40

# What a second or so on one core allows; a profile that asks for more gets more.
law = settings(max_examples=max(300, settings().max_examples))

# Numbers of rows, and where to cut a run into pages.
numbers = st.integers(0, LONGEST)
cuts = st.lists(numbers, max_size=4)


def pages(rows: list[Change], before: list[int]) -> list[list[Change]]:
    """Cut `rows` before the rows with these numbers; at the end if there are not so many."""
    ends = [0, *sorted(min(cut, len(rows)) for cut in before), len(rows)]
    return [rows[start:end] for start, end in pairwise(ends)]


class History(NamedTuple):
    """A tree and what happened in it.

    `heard`: up to where the watcher had been told everything, at some times.
    """

    before: Tree
    rows: list[Change]
    heard: list[int]

    def after(self) -> Tree:
        """Return the app's tree at the end."""
        return self.before.copy().apply(self.rows)

    def runs(self) -> list[list[Change]]:
        """Cut the rows at where the watcher had been told everything."""
        return pages(self.rows, self.heard)


# Of each step: which, three flags, and what it chooses. Not one large number: of those Hypothesis
# draws small ones mostly, while it shrinks bytes just as well.
_STEP_BYTES = 5
_STEP = st.binary(min_size=_STEP_BYTES, max_size=_STEP_BYTES)
# A list of lists, since Hypothesis draws mostly short ones of either, and can leave out any part.
_STEPS = st.lists(st.lists(_STEP, min_size=1, max_size=6), min_size=1, max_size=8)
_TREE = st.lists(st.binary(min_size=1, max_size=4), max_size=4)


class _Flags(NamedTuple):
    half_done: bool
    special: bool
    third: bool

    @classmethod
    def of(cls, number: int) -> Self:
        return cls(bool(number & 1), bool(number & 2), bool(number & 4))


def _told(_app: App, _flags: _Flags) -> None:
    pass


def _silent(app: App, flags: _Flags) -> None:
    """Leave out the `delete` of what is replaced by one step in two."""
    app.told = not flags.special


def _shared(app: App, flags: _Flags) -> None:
    """Let the watcher do one step in two itself, and hear of everything now and then."""
    app.own = flags.special
    if all(flags):
        app.hear()


Mood = Callable[[App, _Flags], None]


@st.composite
def _histories(draw: st.DrawFn, mood: Mood) -> History:
    app = App()
    for number in chain.from_iterable(draw(_TREE)):
        choice = Choice(number)
        folder = choice.of([True, False])
        app.new(choice.of(app.places()), folder=folder)
    before = app.begin()
    for _ in _done(app, mood, chain.from_iterable(draw(_STEPS))):
        if len(app.rows) >= LONGEST:
            break
    return History(before, app.rows[:LONGEST], app.heard)


def _done(app: App, mood: Mood, steps: Iterable[bytes]) -> Iterator[object]:
    """Do the steps; what was left half done goes on when the next one is."""
    half_done: list[Iterator[object]] = []
    for kind, bits, *choice in steps:
        flags = _Flags.of(bits)
        mood(app, flags)
        step = STEPS[kind % len(STEPS)](app, Choice(int.from_bytes(choice)))
        if flags.half_done:
            yield next(step, None)
            half_done.append(step)
        else:
            yield from step
        if len(half_done) > 1:
            yield from half_done.pop(0)
    for step in half_done:
        yield from step


told = _histories(_told)
silent = _histories(_silent)
shared = _histories(_shared)

"""What an app does with its files, in steps of one row or several.

A step is a generator that stops after each row, so that others can come in between. It does what
can still be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tests.file_app import App, Place

T = TypeVar("T")


class Choice:
    """A number that is used up by choosing: zero chooses the first of everything."""

    def __init__(self, number: int) -> None:
        self._left = number

    def of(self, options: Sequence[T]) -> T:
        self._left, index = divmod(self._left, len(options))
        return options[index]


Step = Callable[[App, Choice], Iterator[object]]


def _modify(app: App, choice: Choice) -> Iterator[object]:
    if files := app.files():
        yield app.modify(choice.of(files))


def _create(app: App, choice: Choice) -> Iterator[object]:
    yield app.new(choice.of(app.places()))


def _create_folder(app: App, choice: Choice) -> Iterator[object]:
    yield app.new(choice.of(app.places()), folder=True)


def _delete(app: App, choice: Choice) -> Iterator[object]:
    if entries := app.entries():
        yield app.delete(choice.of(entries))


def _rename(app: App, choice: Choice) -> Iterator[object]:
    if entries := app.entries():
        yield app.move(choice.of(entries), choice.of(app.places()))


def _touch(app: App, choice: Choice) -> Iterator[object]:
    """Modify anything, also a folder."""
    if entries := app.entries():
        yield app.modify(choice.of(entries))


def _restore(app: App, choice: Choice) -> Iterator[object]:
    """Bring something back from the bin: to where it was, or elsewhere."""
    if app.bin:
        file_id = choice.of(app.bin)
        place = choice.of([app.place(file_id), *app.places()])
        if app.create(file_id, place):
            app.bin.remove(file_id)
            yield True


def _delete_row_by_row(app: App, choice: Choice) -> Iterator[object]:
    """Delete a folder after everything that is in it."""
    if folders := app.folders():
        folder = choice.of(folders)
        for each in app.inside(folder):
            yield app.delete(each)
        yield app.delete(folder)


def _rename_over(app: App, choice: Choice) -> Iterator[object]:
    if entries := app.entries():
        yield app.move(choice.of(entries), app.place(choice.of(entries)))


def _rename_away_and_create(app: App, choice: Choice) -> Iterator[object]:
    if entries := app.entries():
        moved = choice.of(entries)
        place = app.place(moved)
        yield app.move(moved, choice.of(app.places()))
        yield app.new(place, folder=choice.of([False, True]))


def _delete_and_create(app: App, choice: Choice) -> Iterator[object]:
    if entries := app.entries():
        gone = choice.of(entries)
        place = app.place(gone)
        yield app.delete(gone)
        yield app.new(place, folder=choice.of([False, True]))


def _save_atomically(app: App, choice: Choice) -> Iterator[object]:
    if files := app.files():
        saved = choice.of(files)
        place = app.place(saved)
        written = app.new(choice.of(app.places()))
        yield app.modify(written)
        yield app.delete(saved)
        yield app.move(written, place)


def _ring(app: App, choice: Choice) -> Iterator[object]:
    """Let two entries or more change places, one of them through another place."""
    entries = app.entries()
    if len(entries) < 2:
        return
    count = choice.of([2, 3, 4])
    ring = [choice.of(entries) for _ in range(count)]
    places = [app.place(each) for each in ring]
    yield app.move(ring[0], choice.of(app.places()))
    for each, place in zip(ring[1:], places, strict=False):
        yield app.move(each, place)
    yield app.move(ring[0], places[-1])


def _ring_through_a_new_folder(app: App, choice: Choice) -> Iterator[object]:
    entries = app.entries()
    if len(entries) < 2:
        return
    one, other = choice.of(entries), choice.of(entries)
    place, others_place = app.place(one), app.place(other)
    made = app.new(choice.of(app.places()), folder=True)
    yield app.move(one, Place(made, "a"))
    yield app.move(other, place)
    yield app.move(one, others_place)
    yield app.delete(made)


def _turn_inside_out(app: App, choice: Choice) -> Iterator[object]:
    """Move a folder out of the one it is in, and that one into it."""
    if inner := [each for each in app.folders() if app.place(each).folder]:
        child = choice.of(inner)
        parent = app.place(child).folder
        place = app.place(parent)
        yield app.move(child, choice.of([place, *app.places()]))
        yield app.move(parent, Place(child, choice.of(["a", "b"])))


def _leave_and_come_back(app: App, choice: Choice) -> Iterator[object]:
    """Take something out of a folder and put it back when the folder has moved."""
    if inner := [each for each in app.entries() if app.place(each).folder]:
        child = choice.of(inner)
        place = app.place(child)
        yield app.move(child, choice.of(app.places()))
        yield app.move(place.folder, choice.of(app.places()))
        yield app.move(child, place)


def _rescue(app: App, choice: Choice) -> Iterator[object]:
    if inner := [each for each in app.entries() if app.place(each).folder]:
        child = choice.of(inner)
        folder = app.place(child).folder
        yield app.move(child, choice.of(app.places()))
        yield app.delete(folder)


def _bury(app: App, choice: Choice) -> Iterator[object]:
    if folders := app.folders():
        folder = choice.of(folders)
        yield app.move(choice.of(app.entries()), Place(folder, choice.of(["a", "b"])))
        yield app.delete(folder)


# The simple ones come first: a failing history shrinks towards them.
STEPS: list[Step] = [
    _modify,
    _create,
    _delete,
    _rename,
    _create_folder,
    _restore,
    _touch,
    _rename_over,
    _delete_and_create,
    _rename_away_and_create,
    _delete_row_by_row,
    _rescue,
    _bury,
    _leave_and_come_back,
    _save_atomically,
    _ring,
    _turn_inside_out,
    _ring_through_a_new_folder,
]

"""Every failure has its status, its code and its sentence."""

from __future__ import annotations

import inspect
import re

import pytest

from events_app import errors

# The protocol's table *Errors*, and nothing of ours.
TABLE = {
    "WrongTokenType": (401, 40020),
    "MissingScope": (403, 40089),
    "Unauthorized": (401, 401),
    "EventsDisabled": (403, 40019),
    "BadParameter": (400, 40001),
    "ForeignFolder": (403, 403),
    "ForeignUser": (403, 403),
    "CannotResume": (410, 410),
    "TooLarge": (413, 413),
    "UnsupportedBody": (415, 415),
    "TooManyStreams": (429, 429),
    "DatabaseAway": (503, 503),
    "Unforeseen": (500, 50005),
}
CLASSES: dict[str, type[errors.EventsError]] = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, errors.EventsError)
}


@pytest.mark.parametrize("name", TABLE)
def test_a_request_error_has_the_protocols_status_and_code(name: str) -> None:
    cls = CLASSES[name]
    assert issubclass(cls, errors.RequestError), name
    assert (cls.status, cls.code) == TABLE[name]


def test_no_request_error_is_missing_from_the_table() -> None:
    answered = {name for name, cls in CLASSES.items() if issubclass(cls, errors.RequestError)}
    assert answered - {"RequestError"} == set(TABLE)


def test_what_passes_by_itself_says_when_to_come_back() -> None:
    waits = {name: getattr(CLASSES[name], "retry_after_seconds", None) for name in TABLE}
    said = {name: seconds for name, seconds in waits.items() if seconds is not None}
    assert said == {"TooManyStreams": 30, "DatabaseAway": 5}


def test_an_error_tells_which_change_is_the_reason() -> None:
    error = errors.BadParameter("it is odd").at(3)
    assert (error.message, error.data) == (
        "change 3: it is odd",
        {"index": 3, "reason": "it is odd"},
    )
    assert errors.BadParameter().data is None


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_its_docstring_unless_it_is_given_a_detail(name: str) -> None:
    cls = CLASSES[name]
    sentence = vars(cls)["__doc__"]
    assert re.match(r"[A-Z].+\.$", sentence)
    assert str(cls()) == cls().message == sentence
    assert str(cls("the detail")) == cls("the detail").message == "the detail"


def test_the_tree_at_the_top_of_the_file_shows_every_class_below_its_parent() -> None:
    tree = re.findall(r"^([ │├└─]*)([A-Z][A-Za-z]+)", errors.__doc__ or "", re.MULTILINE)
    drawn = {name for _, name in tree if name in CLASSES}
    assert drawn == set(CLASSES)
    parents: list[tuple[int, str]] = []
    for indent, name in tree:
        if name in CLASSES:
            parents = [parent for parent in parents if parent[0] < len(indent)]
            if parents:
                assert CLASSES[name].__base__ is CLASSES[parents[-1][1]], name
            parents.append((len(indent), name))

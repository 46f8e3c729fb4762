"""What a worker says that cannot start."""

from __future__ import annotations

import pytest

from events_app import errors, start

REASON = "EVENTS_JWT_PUBLIC_KEY_FILE holds no public key in PEM form"


def said_in_a_terminal() -> SystemExit:
    end = SystemExit(f"events-app does not start.\n{REASON}")
    end.__cause__ = errors.SettingsError(REASON)
    return end


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (errors.SettingsError(REASON), REASON),
        (said_in_a_terminal(), REASON),
        (SystemExit(2), "the application ends itself: 2"),
        (SystemExit("no licence"), "the application ends itself: no licence"),
        (ModuleNotFoundError("No module named 'x'"), "ModuleNotFoundError: No module named 'x'"),
    ],
    ids=["ours", "ours in a terminal", "a number", "a text", "unforeseen"],
)
def test_the_reason_is_said_whoever_gives_it(fault: BaseException, words: str) -> None:
    assert start.words_of(fault) == words


def test_the_first_one_ends_the_service_until_one_has_served() -> None:
    """Two workers of one master, in memory that they share."""
    memory = start.shared_memory()
    one, other = start.Service(memory), start.Service(memory)
    assert (other.has_served, other.ends) == (False, False)
    one.end()
    assert (other.has_served, other.ends) == (False, True)
    one.forget_end()
    assert (other.has_served, other.ends) == (False, False)
    one.begin()
    other.forget_end()
    assert (other.has_served, other.ends) == (True, False)

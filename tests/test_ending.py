"""When a stream ends, and why: the first of its ends counts, and chance spreads what is common."""

from __future__ import annotations

import random

import pytest

from events_app import ending
from events_app.ending import Ending, Reason
from events_app.scope import End

NOW = 1_000.0


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ends come at the earliest moment they may."""
    monkeypatch.setattr(random, "uniform", lambda least, _: least)


def by_chance(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Let chance give this share of what it may."""
    monkeypatch.setattr(random, "uniform", lambda least, most: least + share * (most - least))


def opened(token_seconds: float = 3_600, lifetime_seconds: float | None = None) -> Ending:
    return Ending(NOW, token_seconds, lifetime_seconds)


@pytest.mark.parametrize(
    ("token_seconds", "lifetime_seconds", "after", "reason"),
    [
        (40, None, 40, Reason.TOKEN_EXPIRED),
        (-50, None, 10, Reason.TOKEN_EXPIRED),
        (40, 90, 40, Reason.TOKEN_EXPIRED),
        (90, 40, 40, Reason.LIFETIME),
        (90, 2, 10, Reason.LIFETIME),
        (float("inf"), None, float("inf"), Reason.TOKEN_EXPIRED),
    ],
)
def test_token_or_lifetime_whichever_ends_first_but_never_within_ten_seconds(
    token_seconds: float, lifetime_seconds: float | None, after: float, reason: Reason
) -> None:
    planned = opened(token_seconds, lifetime_seconds)
    assert (planned.at, planned.reason) == (NOW + after, reason)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_chance_spreads_the_return_of_clients(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    by_chance(monkeypatch, share)
    assert ending.return_seconds() == 1 + 4 * share


def test_it_is_due_from_its_moment_on() -> None:
    planned = opened(40)
    assert [planned.is_due(NOW + after) for after in (39.9, 40, 41)] == [False, True, True]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_chance_spreads_what_expires_together(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    by_chance(monkeypatch, share)
    assert opened(40).at == NOW + 40 + share * ending.EXPIRY_JITTER_SECONDS


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_chance_spreads_a_shutdown_over_the_drain(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Also within the first ten seconds: the worker would be killed meanwhile."""
    planned = opened()
    by_chance(monkeypatch, share)
    assert planned.stop(NOW + 1, 4, late=False)
    assert (planned.at, planned.reason) == (NOW + 1 + 4 * share, Reason.SHUTDOWN)


def test_a_second_stop_is_no_news_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = opened()
    by_chance(monkeypatch, 1.0)
    planned.stop(NOW, 4, late=False)
    assert not planned.stop(NOW + 3, 4, late=True)
    assert planned.at == NOW + 4


@pytest.mark.parametrize(("drain", "after"), [(0, 1.5), (1, 1.5), (5, 5)])
def test_who_comes_to_a_stopping_worker_stays_a_moment(drain: float, after: float) -> None:
    planned = opened()
    planned.stop(NOW, drain, late=True)
    assert planned.at == NOW + after


@pytest.mark.parametrize(("age", "after"), [(0, 10), (9, 10), (15, 15)])
def test_what_cannot_go_on_ends_at_once_but_not_within_ten_seconds(
    age: float, after: float
) -> None:
    planned = opened()
    planned.give_up(NOW + age, End.ROOT_GONE)
    assert (planned.at, planned.reason) == (NOW + after, End.ROOT_GONE)


@pytest.mark.parametrize("age", [0.0, 3.0, 39.0])
def test_a_revoked_token_ends_at_once(age: float) -> None:
    """Also within the first ten seconds: somebody may have stolen it."""
    planned = opened(40)
    planned.revoke(NOW + age)
    assert (planned.at, planned.reason) == (NOW + age, Reason.TOKEN_REVOKED)


def test_a_token_that_is_revoked_when_its_end_has_come_changes_nothing() -> None:
    planned = opened(40)
    planned.revoke(NOW + 41)
    assert (planned.at, planned.reason) == (NOW + 40, Reason.TOKEN_EXPIRED)


def test_what_is_withdrawn_ends_at_once_whatever_else_is_to_end_it() -> None:
    """With another reason it would be told where to go on, and what came in the meantime."""
    planned = opened()
    planned.withdraw(NOW + 3)
    assert not planned.stop(NOW + 3, 5, late=False)
    planned.give_up(NOW + 3, End.ROOT_GONE)
    planned.revoke(NOW + 3)
    assert (planned.at, planned.reason) == (NOW + 3, Reason.PERMISSION_GONE)


def test_no_end_moves_to_later() -> None:
    """Not by a second word about the same end, and not by another end that comes after it."""
    planned = opened(40)
    planned.stop(NOW + 38, 0, late=True)
    planned.give_up(NOW + 39, End.ROW_REJECTED)
    planned.give_up(NOW + 39.2, End.ROW_REJECTED)
    assert (planned.at, planned.reason) == (NOW + 39, End.ROW_REJECTED)
    stopped = opened(40)
    stopped.give_up(NOW + 20, End.ROOT_GONE)
    stopped.stop(NOW + 20, 5, late=True)
    assert stopped.at == NOW + 20

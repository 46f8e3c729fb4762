"""Tokens that were revoked: who is asked, how often, and what it means when no answer comes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gevent
import pytest
from flask import Flask

from events_app import auth, errors, revocation, sidecar
from events_app.revocation import Hook, Revocation
from tests import tokens
from tests.tokens import bearer, token

CLAIMS = {"sub": "42", "exp": 99_999_999_999, "jti": "one"}


class Register:
    """What an app keeps: the ids of revoked tokens. It can fail in every way."""

    def __init__(self, *revoked: str) -> None:
        self.revoked = set(revoked)
        self.asked: list[str] = []
        self.fault: Any = None

    def __call__(self, claims: Mapping[str, Any]) -> str | None:
        self.asked.append(claims["jti"])
        if self.fault == "hangs":
            gevent.sleep(3_600)
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault is not None:
            return self.fault  # type: ignore[no-any-return] # a wrong type, which is the fault
        return "it was revoked" if claims["jti"] in self.revoked else None


class Open:
    """A stream, as far as its token goes."""

    def __init__(self) -> None:
        self.ended = False

    def revoke(self) -> None:
        self.ended = True


def watched(asked: Revocation, *ids: str) -> list[Open]:
    """Open a stream for each token id."""
    streams = [Open() for _ in ids]
    for stream, jti in zip(streams, ids, strict=True):
        asked.watch(stream, asked.admit(CLAIMS | {"jti": jti}))
    return streams


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hangs here hangs for an hour."""
    monkeypatch.setattr(revocation, "PATIENCE_SECONDS", 0.01)


FAULTS = [ValueError("no database"), "hangs", True, 0, False, ["it was revoked"]]


# -- at a request --------------------------------------------------------------------------------


def app_that_asks(*hooks: Hook) -> Flask:
    app = tokens.app()
    parts = sidecar.of(app)
    parts.revocation = Revocation(hooks, 60)
    return app


def asked(app: Flask, text: str) -> auth.Identity:
    with app.test_request_context("/", headers=bearer(text)):
        return auth.authenticate(sidecar.of(app).settings, auth.READ_SCOPE)


def test_a_revoked_token_is_401_with_the_reason() -> None:
    app = app_that_asks(Register("gone"))
    assert asked(app, token(jti="good")).user_id == "42"
    with pytest.raises(errors.Unauthorized, match="revoked: it was revoked"):
        asked(app, token(jti="gone"))


def test_every_function_is_asked_until_one_refuses() -> None:
    registers = Register(), Register("gone"), Register()
    app = app_that_asks(*registers)
    assert asked(app, token(jti="good")).user_id == "42"
    with pytest.raises(errors.Unauthorized):
        asked(app, token(jti="gone"))
    assert [each.asked for each in registers] == [["good", "gone"], ["good", "gone"], ["good"]]


@pytest.mark.parametrize(
    "text",
    [
        token("another secret of more than 32 bytes", jti="x"),
        token(jti="x", exp=1),
        token(jti="x", token_type="refresh"),
        token(jti="x", client_id="app"),
        token(jti="x", sub=""),
    ],
)
def test_nobody_is_asked_about_a_token_that_is_refused_anyway(text: str) -> None:
    register = Register()
    with pytest.raises(errors.RequestError):
        asked(app_that_asks(register), text)
    assert register.asked == []


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_where_no_answer_comes_a_request_fails_without_blame_on_its_token(
    fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    register = Register()
    register.fault = fault
    with pytest.raises(errors.Unforeseen):
        asked(app_that_asks(register), token(jti="one"))
    assert "unknown" in caplog.text


def test_without_a_function_nothing_is_kept() -> None:
    nobody = Revocation((), 60)
    assert nobody.admit(CLAIMS) == ""
    nobody.watch(Open(), "")
    assert not nobody._open
    assert asked(tokens.app(), token(jti="one")).claims == ""


# -- of open streams -----------------------------------------------------------------------------


def test_a_round_ends_the_streams_whose_token_was_revoked_and_no_others() -> None:
    register = Register()
    rounds = Revocation((register,), 60)
    streams = watched(rounds, "one", "two", "one")
    rounds.go_round()
    assert [each.ended for each in streams] == [False, False, False]
    register.revoked = {"one"}
    rounds.go_round()
    assert [each.ended for each in streams] == [True, False, True]


def test_a_token_with_many_streams_is_asked_about_once_a_round() -> None:
    register = Register()
    rounds = Revocation((register,), 60)
    watched(rounds, *["one"] * 10)
    register.asked.clear()
    rounds.go_round()
    assert register.asked == ["one"]


def test_nobody_is_asked_about_a_stream_that_has_ended() -> None:
    register = Register()
    rounds = Revocation((register,), 60)
    (stream,) = watched(rounds, "one")
    rounds.forget(stream)
    rounds.forget(stream)
    register.asked.clear()
    rounds.go_round()
    assert register.asked == []


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_where_no_answer_comes_open_streams_stay(
    fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    register = Register()
    rounds = Revocation((register,), 60)
    streams = watched(rounds, "one", "two", "three", "four")
    register.asked.clear()
    register.fault = fault
    rounds.go_round()
    assert not any(each.ended for each in streams)
    assert register.asked == ["one", "two", "three"], "then the round is put off"
    assert len(caplog.records) == 1
    register.fault = None
    register.revoked = {"two"}
    rounds.go_round()
    assert [each.ended for each in streams] == [False, True, False, False]


def test_tokens_that_make_a_function_fail_protect_no_other() -> None:
    """Only failures in a row put a round off: then it is the function, and not the tokens."""
    register = Register("gone")

    def fails_for_some(claims: Mapping[str, Any]) -> str | None:
        return register({"jti": {"good": "good", "gone": "gone"}[claims["jti"]]})

    rounds = Revocation((fails_for_some,), 60)
    ids = ["bad 1", "bad 2", "good", "bad 3", "bad 4", "gone"]
    streams = [Open() for _ in ids]
    for stream, jti in zip(streams, ids, strict=True):
        rounds.watch(stream, json.dumps({"jti": jti}))
    rounds.go_round()
    assert [each.ended for each in streams] == [False] * 5 + [True]


# -- what is installed ---------------------------------------------------------------------------


class Point:
    """An entry point of an installed package."""

    name = "files"

    def __init__(self, target: object) -> None:
        self._target = target

    def load(self) -> object:
        if isinstance(self._target, Exception):
            raise self._target
        return self._target


@pytest.mark.parametrize("target", [ImportError("no module"), RuntimeError("x"), "a text", None])
def test_a_package_that_cannot_be_asked_stops_the_start(target: object) -> None:
    """Tokens would pass that it is to refuse."""
    with pytest.raises(errors.SettingsError, match=r"files of events_app\.tokens"):
        revocation._load(Point(target))


def test_nothing_is_installed_here() -> None:
    assert revocation.installed() == ()

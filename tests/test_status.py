"""Alive and ready."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from events_app import sidecar
from tests import reused, tokens


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """Give an app on an empty journal; no greenlet of it runs."""
    made = tokens.app(reused.url(request, "sqlite"))
    yield made
    sidecar.of(made).close()


def readiness(app: Flask) -> tuple[int, dict[str, str]]:
    answer = app.test_client().get("/readyz")
    return answer.status_code, answer.get_json()


def test_a_worker_is_alive_whatever_its_database_does(app: Flask) -> None:
    sidecar.of(app).tailer.trouble = "the database is away"
    answer = app.test_client().get("/healthz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok"})


def test_a_worker_is_ready_once_it_has_read_the_journal(app: Flask) -> None:
    status, document = readiness(app)
    assert (status, document["status"]) == (503, "not ready")
    assert document["reason"] == "the journal has not been read yet"
    sidecar.of(app).tailer.turn()
    assert readiness(app) == (200, {"status": "ok"})


def test_what_keeps_a_worker_from_being_ready_is_said(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    tailer = sidecar.of(app).tailer
    tailer.turn()
    tailer.backlogged = True
    assert readiness(app)[0] == 503
    assert "backlog" in readiness(app)[1]["reason"]
    tailer.trouble = "HoleInJournal: position 7 is missing"
    assert readiness(app)[1]["reason"] == tailer.trouble
    tailer.trouble, tailer.backlogged = None, False
    turned_at = tailer.last_turn_at
    monkeypatch.setattr(sidecar.of(app).clock, "monotonic", lambda: turned_at + 31)
    assert "stuck" in readiness(app)[1]["reason"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_these_pages_need_no_token_and_name_no_user(app: Flask, path: str) -> None:
    tokens.write(app, "/secret-name")
    sidecar.of(app).tailer.turn()
    assert "secret-name" not in app.test_client().get(path).text

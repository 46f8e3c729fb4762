"""Alive, ready, and the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import Connection, exc

from events_app import outbox, sidecar
from tests import reused, tokens
from tests.tokens import EVENTS_PATH, bearer, token


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """Give an app on an empty journal; no greenlet of it runs."""
    made = tokens.app(reused.url(request, "sqlite"))
    yield made
    sidecar.of(made).close()


def write(app: Flask, *paths: str) -> None:
    def append(connection: Connection) -> None:
        for path in paths:
            outbox.append(connection, "42", "create", path, path)

    sidecar.of(app).database.write(append)


def readiness(app: Flask) -> tuple[int, dict[str, str]]:
    answer = app.test_client().get("/readyz")
    return answer.status_code, answer.get_json()


def numbers(app: Flask) -> dict[str, float]:
    answer = app.test_client().get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=")
    lines = re.findall(r'^(\w+)\{worker="\d+"\} (\S+)$', answer.text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


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


def test_the_numbers_follow_what_happens(app: Flask) -> None:
    before = numbers(app)
    assert before["events_ready"] == 0
    write(app, "/a", "/b", "relative")
    assert numbers(app)["events_outbox_rows"] == 3
    assert 0 <= numbers(app)["events_outbox_age_seconds"] < 60
    sidecar.of(app).tailer.turn()
    answer = app.test_client().get(EVENTS_PATH, headers=bearer(token()))
    after = numbers(app)
    assert after == {
        "events_streams": 1,
        "events_streams_waiting": 0,
        "events_ready": 1,
        "events_last_position": 3,
        "events_moved_rows_total": 3,
        "events_rejected_rows_total": 1,
        "events_outbox_rows": 0,
        "events_outbox_age_seconds": 0,
    }
    answer.close()
    assert numbers(app)["events_streams"] == 0


def test_the_numbers_of_the_worker_are_there_while_the_database_is_away(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise exc.OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(sidecar.of(app).database, "read", away)
    assert numbers(app).keys() == {
        "events_streams",
        "events_streams_waiting",
        "events_ready",
        "events_last_position",
        "events_moved_rows_total",
        "events_rejected_rows_total",
    }


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_these_pages_need_no_token_and_name_no_user(app: Flask, path: str) -> None:
    write(app, "/secret-name")
    sidecar.of(app).tailer.turn()
    assert "secret-name" not in app.test_client().get(path).text

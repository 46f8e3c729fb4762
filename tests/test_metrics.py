"""The numbers: each follows what it says, and is where the documents say."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import exc, update

from events_app import admission, errors, metrics, schema, sidecar
from events_app.jwks import Fetched
from events_app.revocation import Revocation
from tests import reused, tokens
from tests.databases import ROOT
from tests.manual_clock import ManualClock
from tests.tokens import EVENTS_PATH, bearer, token

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"

Labels = tuple[str, ...]


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """Give an app on an empty journal; no greenlet of it runs but those that a stream needs."""
    made = tokens.app(
        reused.url(request, "sqlite"), DEBOUNCE="0", DRAIN="0", MAX_STREAMS_PER_USER="2"
    )
    yield made
    sidecar.of(made).close()


def numbers(app: Flask) -> dict[str | tuple[str, ...], float]:
    """Read every number by its name, or by its name and the values of its labels."""
    answer = app.test_client().get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=")
    found: dict[str | tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("worker") == str(os.getpid())
            found[(sample.name, *labels.values()) if labels else sample.name] = sample.value
    return found


def turn(app: Flask) -> None:
    while sidecar.of(app).tailer.turn():
        pass


def test_the_mover_and_the_outbox(app: Flask) -> None:
    before = numbers(app)
    assert before["events_ready"] == 0
    assert before["events_mover_last_success_timestamp_seconds"] == 0
    tokens.write(app, "/a", "/b", "relative")
    assert numbers(app)["events_outbox_rows"] == 3
    assert 0 <= numbers(app)["events_outbox_age_seconds"] < 60
    turn(app)
    after = numbers(app)
    assert after["events_ready"] == 1
    assert after["events_last_position"] == after["events_moved_rows_total"] == 3
    assert after["events_rejected_rows_total"] == 1
    assert after["events_outbox_rows"] == after["events_outbox_age_seconds"] == 0
    moved_at = after["events_mover_last_success_timestamp_seconds"]
    assert moved_at == pytest.approx(time.time(), abs=60)


def test_a_hole_is_an_alarm_once(app: Flask) -> None:
    parts = sidecar.of(app)
    turn(app)
    parts.database.write(lambda db: db.execute(update(schema.state).values(last_position=7)))
    for _ in range(3):
        parts.tailer._next_pause(1)
    assert numbers(app)["events_alarms_total", "HoleInJournal"] == 1


def test_the_life_of_a_stream_in_numbers(app: Flask) -> None:
    turn(app)
    headers = bearer(token()) | {"X-Cr-Client-Id": CLIENT}
    answer = app.test_client().get(EVENTS_PATH, headers=headers)
    frames = answer.iter_encoded()
    first = next(frames)
    tokens.write(app, "/a", "/b", "/a")
    turn(app)
    assert numbers(app)["events_lag_positions"] == 3, "it has not looked yet"
    second = next(frames)
    during = numbers(app)
    assert during["events_streams"] == 1
    assert during["events_streams_begun_total", "subscribed", "first connection"] == 1
    assert during["events_frames_total", "subscribed"] == 1
    assert during["events_sent_bytes_total"] == len(first), "the second is being written"
    assert during["events_unconfirmed_age_seconds"] == 0
    sidecar.of(app).admission.stop()
    last = b"".join(frames)
    answer.close()
    after = numbers(app)
    assert after["events_frames_total", "event"] == 1
    assert after["events_frames_total", "reconnect-required"] == 1
    assert after["events_sent_bytes_total"] == len(first) + len(second) + len(last)
    assert after["events_folded_rows_total"] == 3
    assert after["events_told_changes_total"] == 2
    assert after["events_streams_ended_total", "shutdown"] == 1
    assert after["events_streams"] == after["events_lag_positions"] == 0
    assert after["events_cursors_waiting"] == 1
    sidecar.of(app).ledger.flush()
    assert numbers(app)["events_cursors_waiting"] == 0


def test_who_hangs_up_is_counted_too(app: Flask) -> None:
    turn(app)
    for _ in range(2):
        answer = app.test_client().get(EVENTS_PATH, headers=bearer(token()))
        next(answer.iter_encoded())
        answer.close()
    assert numbers(app)["events_streams_ended_total", "dropped"] == 2
    assert numbers(app)["events_streams_begun_total", "subscribed", "no client id"] == 2


def test_requests_are_counted_by_their_door(app: Flask) -> None:
    """What is no door has one name: there is no end of those that anybody makes up."""
    client = app.test_client()
    client.get(EVENTS_PATH)
    client.get(f"{EVENTS_PATH}/changes", headers=bearer(token()))
    for path in ("/a", "/b"):
        client.get(path)
    client.open("/healthz", method="BREW")
    found = numbers(app)
    assert found["events_requests_total", f"GET {EVENTS_PATH}", "401"] == 1
    assert found["events_requests_total", f"GET {EVENTS_PATH}/changes", "200"] == 1
    assert found["events_requests_total", "none", "404"] == 2
    assert found["events_requests_total", "none", "405"] == 1


def test_appended_changes_are_counted_when_they_are_committed(app: Flask) -> None:
    change = {"type": "create", "file_id": "1", "from": "/a"}
    for changes in ([change, change], [change, {}]):
        app.test_client().post(EVENTS_PATH, headers=bearer(token()), json=changes)
    assert numbers(app)["events_appended_changes_total"] == 2


def test_what_is_asked_in_vain_is_counted(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> str | None:
        raise OSError("the register is away")

    parts = sidecar.of(app)
    keys = Fetched(lambda: b"no document", "RS256", ManualClock())
    monkeypatch.setattr(parts, "keys", keys)
    monkeypatch.setattr(parts, "revocation", Revocation((fails,), 60))
    with pytest.raises(errors.KeysAway):
        keys.fitting("one")
    with pytest.raises(errors.Unforeseen), app.app_context():
        parts.revocation.admit({})
    assert numbers(app)["events_keys_fetch_failures_total"] == 1
    assert numbers(app)["events_revocation_unanswered_total"] == 1


def test_refusals_are_counted_by_their_cap(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_WAITING", 0)
    turn(app)
    headers = bearer(token()) | {"X-Cr-Client-Id": CLIENT}
    streams = [app.test_client().get(EVENTS_PATH, headers=headers) for _ in range(2)]
    app.test_client().get(EVENTS_PATH, headers=headers)
    assert numbers(app)["events_streams_refused_total", "user"] == 1
    for each in streams:
        each.close()


@pytest.mark.parametrize("count", [3, 2 * admission.STREAMS_IN_PASS])
def test_who_lags_most_is_found_among_all(app: Flask, count: int) -> None:
    class Lagging:
        def __init__(self, positions: int) -> None:
            self.lag_positions = positions

    parts = sidecar.of(app)
    parts.admission._streams = {Lagging(number) for number in range(count)}  # type: ignore[misc]
    assert parts.admission.furthest_behind() == count - 1
    parts.admission._streams = set()


def test_the_numbers_of_the_worker_are_there_while_the_database_is_away(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise exc.OperationalError("SELECT", {}, Exception("away"))

    there = numbers(app).keys()
    monkeypatch.setattr(sidecar.of(app).database, "read", away)
    missing = there - numbers(app).keys()
    assert missing == {"events_outbox_rows", "events_outbox_age_seconds"}


def test_every_number_is_in_the_documents(app: Flask) -> None:
    page = (ROOT / "docs/how-to/operate.md").read_text()
    documented = set(re.findall(r"^\| `(events_[a-z_]+)", page, re.MULTILINE))
    families = metrics.exposition(sidecar.of(app)).decode()
    names = set(re.findall(r"^# TYPE (\w+)", families, re.MULTILINE))
    assert documented == names


def test_the_numbers_name_no_user_and_no_path(app: Flask) -> None:
    tokens.write(app, "/secret-name")
    turn(app)
    text = app.test_client().get("/metrics").text
    assert "secret-name" not in text

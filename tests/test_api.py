"""The door of the stream: its checks in their order, and how errors look."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from events_app import api, logs, sidecar
from tests import reused, tokens
from tests.tokens import EVENTS_PATH, bearer, token

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"

url = reused.on_sqlite


@pytest.fixture
def app(url: str) -> Iterator[Flask]:
    made = tokens.app(url, MAX_STREAMS_PER_USER="2")
    yield made
    assert len(sidecar.of(made).admission) == 0, "no stream is left behind"
    sidecar.of(made).close()


def ask(app: Flask, query: str = "", text: str | None = None, **headers: str) -> TestResponse:
    """Ask for a stream with a good token, or with `text`; none where it is empty."""
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    if text != "":
        found |= bearer(text or token())
    return app.test_client().get(EVENTS_PATH + query, headers=found)


def refused(answer: TestResponse) -> tuple[int, int]:
    """Check the shape of an error; return its status and code."""
    document = answer.get_json()
    assert answer.mimetype == "application/json"
    assert list(document) == ["code", "msg", "correlation_id"]
    assert document["msg"]
    assert uuid.UUID(document["correlation_id"])
    return answer.status_code, document["code"]


def first_frame(answer: TestResponse) -> str:
    """Read one frame of an open stream and hang up."""
    try:
        return next(answer.iter_encoded()).decode()
    finally:
        answer.close()


# -- the order of the checks ---------------------------------------------------------------------

WRONG_TYPE = token(token_type="refresh", client_id="app")
NO_SCOPE = token(client_id="app")
BAD = "?" + urlencode({"uri": "ftp://my"})
FOREIGN = "?" + urlencode({"uri": "cloudreve://43@my/docs"})


@pytest.mark.parametrize(
    ("text", "enabled", "query", "headers", "expected"),
    [
        (WRONG_TYPE, "false", BAD, {}, (401, 40020)),
        (NO_SCOPE, "false", BAD, {}, (403, 40089)),
        ("", "false", BAD, {}, (401, 401)),
        ("x.y.z", "false", BAD, {}, (401, 401)),
        (None, "false", BAD, {}, (403, 40019)),
        (None, "true", BAD, {}, (400, 40001)),
        (None, "true", FOREIGN, {"X_Cr_Client_Id": "laptop"}, (400, 40001)),
        (None, "true", FOREIGN + "&payload=xml", {}, (400, 40001)),
        (None, "true", FOREIGN, {}, (403, 403)),
    ],
)
def test_the_first_check_that_fails_answers(
    text: str | None, enabled: str, query: str, headers: dict[str, str], expected: tuple[int, int]
) -> None:
    app = tokens.app(ENABLED=enabled)
    assert refused(ask(app, query, text, **headers)) == expected


def test_one_stream_too_many_says_when_to_come_back(app: Flask) -> None:
    streams = [ask(app) for _ in range(2)]
    answer = ask(app)
    assert refused(answer) == (429, 429)
    assert answer.headers["Retry-After"] == "30"
    assert refused(ask(app, FOREIGN)) == (403, 403), "which is checked before"
    other = ask(app, text=token(sub="43"))
    assert other.status_code == 200
    for each in (*streams, other):
        each.close()
    again = ask(app)
    assert again.status_code == 200
    again.close()


def test_a_401_names_the_scheme(app: Flask) -> None:
    """RFC 9110, section 11.6.1."""
    assert ask(app, text="").headers["WWW-Authenticate"] == "Bearer"


# -- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "?uri=ftp%3A%2F%2Fmy",
        "?uri=cloudreve%3A%2F%2Ftrash",
        "?uri=cloudreve%3A%2F%2Fshared_with_me",
        "?uri=my",
        "?uri=" + quote("cloudreve://my/%zz"),
        "?uri=" + quote("cloudreve://my/%00"),
        "?uri=" + quote("cloudreve://my/%ff"),
        "?uri=" + quote("cloudreve://my/" + "a" * 10_240),
        "?uri=" + quote("cloudreve://my:80/"),
        "?uri=" + quote("cloudreve://@my/"),
        "?uri=cloudreve%3A%2F%2Fmy&uri=cloudreve%3A%2F%2Fmy",
        "?client_id=laptop",
        f"?client_id={CLIENT}&client_id={CLIENT}",
        f"?client_id=%20{CLIENT}",
        "?payload=xml",
        "?payload=array&payload=array",
        "?last_event_id=" + "a" * 1_001,
        "?last_event_id=a%0Aevent%3A%20x",
        "?last_event_id=%C3%A9",
        "?last_event_id=a&last_event_id=a",
    ],
)
def test_a_bad_parameter_is_40001(query: str) -> None:
    assert refused(ask(tokens.app(), query)) == (400, 40001)


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Cr_Client_Id": "laptop"},
        {"X_Cr_Client_Id": f"{CLIENT},{CLIENT}"},
        {"Last_Event_ID": "a" * 1_001},
    ],
)
def test_a_bad_header_is_40001(headers: dict[str, str]) -> None:
    assert refused(ask(tokens.app(), **headers)) == (400, 40001)


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?client_id=laptop", {"X_Cr_Client_Id": CLIENT}),
        ("?last_event_id=%C3%A9", {"Last_Event_ID": "header"}),
    ],
)
def test_what_a_good_header_stands_in_for_may_not_be_bad(
    query: str, headers: dict[str, str]
) -> None:
    assert refused(ask(tokens.app(), query, **headers)) == (400, 40001)


@pytest.mark.parametrize(
    ("query", "headers", "read"),
    [
        ("", {}, (None, "/", None, "array")),
        ("?uri=", {}, (None, "/", None, "array")),
        ("?uri=" + quote("CLOUDREVE://MY/docs/"), {}, (None, "/docs", None, "array")),
        ("?uri=" + quote("cloudreve://42@my/a/../b%20c?name=x"), {}, (None, "/b c", None, "array")),
        ("?uri=" + quote("cloudreve://my/../../a"), {}, (None, "/a", None, "array")),
        ("?payload=object", {}, (None, "/", None, "object")),
        ("?payload=", {}, (None, "/", None, "array")),
        (f"?client_id={CLIENT.upper()}", {}, (CLIENT, "/", None, "array")),
        ("?client_id=", {}, (None, "/", None, "array")),
        ("", {"X_Cr_Client_Id": f"{{{CLIENT}}}"}, (CLIENT, "/", None, "array")),
        ("?client_id=" + "0" * 32, {"X_Cr_Client_Id": CLIENT}, (CLIENT, "/", None, "array")),
        (f"?client_id={CLIENT}", {"X_Cr_Client_Id": ""}, (CLIENT, "/", None, "array")),
        ("?last_event_id=query", {}, (None, "/", "query", "array")),
        ("?last_event_id=query", {"Last_Event_ID": "header"}, (None, "/", "header", "array")),
        ("", {"Last_Event_ID": ""}, (None, "/", None, "array")),
        ("?unknown=1&unknown=2", {}, (None, "/", None, "array")),
    ],
)
def test_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    headers: dict[str, str],
    read: tuple[str | None, str, str | None, str],
) -> None:
    app = tokens.app()
    asked: list[Any] = []

    def open_stream(request: Any, *_: Any) -> Iterator[bytes]:
        asked.append(request)
        return iter([b""])

    monkeypatch.setattr(sidecar.of(app), "open_stream", open_stream)
    assert ask(app, query, **headers).status_code == 200
    (request,) = asked
    folder = request.watcher.folder
    assert (
        request.watcher.client_id,
        folder.path,
        request.last_event_id,
        request.payload,
    ) == read
    assert (request.watcher.user_id, folder.fs) == ("42", "my")
    assert request.token_seconds == pytest.approx(3_660, abs=5), "with the leeway"


def test_the_deployment_chooses_scheme_and_payload(url: str) -> None:
    app = tokens.app(url, URI_SCHEME="files", PAYLOAD="object")
    assert refused(ask(app, "?uri=" + quote("cloudreve://my"))) == (400, 40001)
    assert first_frame(ask(app, "?uri=" + quote("files://my"))).startswith("event: subscribed\n")
    sidecar.of(app).close()


# -- the stream ----------------------------------------------------------------------------------


def test_an_open_stream_has_these_headers_and_says_subscribed(app: Flask) -> None:
    answer = ask(app)
    assert answer.status_code == 200
    assert dict(answer.headers) == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }
    name, cursor, wait, data = first_frame(answer).split("\n")[:4]
    assert (name, data) == ("event: subscribed", "data: []")
    assert cursor.startswith("id: ")
    assert wait.startswith("retry: ")


def test_a_client_that_hangs_up_before_the_first_frame_leaves_nothing_behind(app: Flask) -> None:
    answer = ask(app)
    assert len(sidecar.of(app).admission) == 1
    answer.close()
    assert len(sidecar.of(app).admission) == 0


def test_a_head_request_gets_the_headers_and_opens_nothing(app: Flask) -> None:
    answer = app.test_client().head(EVENTS_PATH, headers=bearer(token()))
    assert answer.status_code == 200
    assert answer.content_type == "text/event-stream; charset=utf-8"
    assert len(sidecar.of(app).admission) == 0
    assert app.test_client().head(EVENTS_PATH).status_code == 401


# -- other errors --------------------------------------------------------------------------------


@pytest.fixture
def client() -> FlaskClient:
    return tokens.app().test_client()


@pytest.mark.parametrize("path", ["/", "/api/v4/file/events/", "/api/v4/file", "/%ff", "/a\0b"])
def test_an_unknown_path_is_404_in_the_same_shape(client: FlaskClient, path: str) -> None:
    assert refused(client.get(path)) == (404, 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_another_method_is_405_in_the_same_shape(client: FlaskClient, method: str) -> None:
    answer = client.open(EVENTS_PATH, method=method)
    assert refused(answer) == (405, 405)
    assert {"GET", "HEAD", "OPTIONS", "POST"} == {
        each.strip() for each in answer.headers["Allow"].split(",")
    }


def test_what_nobody_foresaw_is_500_and_its_details_are_only_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = tokens.app()

    def fail(*_: Any) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(sidecar.of(app), "open_stream", fail)
    answer = ask(app)
    assert refused(answer) == (500, 50005)
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text
    (failed,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert vars(failed)["fields"] == {
        "correlation_id": answer.get_json()["correlation_id"],
        "path": EVENTS_PATH,
    }


def test_a_refusal_is_in_the_log_under_its_correlation_id_and_without_the_token(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    text = token()
    answer = ask(app, FOREIGN, text)
    (record,) = caplog.records
    told = vars(record)["fields"]
    assert told["correlation_id"] == answer.get_json()["correlation_id"]
    assert (told["status"], told["code"], told["path"]) == (403, 403, EVENTS_PATH)
    line = logs.Line().format(record)
    assert "ForeignFolder" in line
    assert text not in line


def test_every_error_of_a_request_has_another_correlation_id(client: FlaskClient) -> None:
    found = {client.get("/").get_json()["correlation_id"] for _ in range(3)}
    assert len(found) == 3


def test_the_path_is_the_protocols() -> None:
    assert api.EVENTS_PATH == EVENTS_PATH

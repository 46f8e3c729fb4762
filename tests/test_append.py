"""The door for writers: who may write what, which bodies are read, and what is answered."""

from __future__ import annotations

import gc
import gzip
import io
import json
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import Any

import gevent.event
import pytest
from flask import Flask
from sqlalchemy import Connection, select
from werkzeug.test import TestResponse

from events_app import append, schema, sidecar, writing
from tests import reused, rows, tokens
from tests.serving import free_port
from tests.tokens import EVENTS_PATH, bearer, token

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
OTHER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
SERVICE: dict[str, Any] = {"sub": "importer", "scopes": ["Events.Write"]}
CREATE: dict[str, Any] = {"type": "create", "file_id": "f9", "from": "/a"}
RENAME: dict[str, Any] = {"type": "rename", "file_id": "f9", "from": "/a", "to": "/b"}

url = reused.on_sqlite


@pytest.fixture
def app(url: str) -> Iterator[Flask]:
    made = tokens.app(url, APPEND_MAX_ROWS="5", APPEND_MAX_BYTES="2000")
    yield made
    sidecar.of(made).close()


def post(app: Flask, body: Any, query: str = "", **claims: Any) -> TestResponse:
    """Post a body: bytes as they are, else as a JSON array; claims of a token for user 42."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(app, content, query, text=token(**claims))


def send(
    app: Flask,
    content: bytes,
    query: str = "",
    *,
    text: str = "",
    media: str = "application/json",
    **headers: str,
) -> TestResponse:
    """Post with a token, or with none."""
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    found |= bearer(text) if text else {}
    found |= {"Content-Type": media} if media else {}
    return app.test_client().post(EVENTS_PATH + query, data=content, headers=found)


def accepted(answer: TestResponse) -> dict[str, int]:
    """Check the shape of an answer; return what it says."""
    assert answer.status_code == 201, answer.text
    document = answer.get_json()
    assert list(document) == ["code", "msg", "data"]
    assert (document["code"], document["msg"]) == (0, "")
    data: dict[str, int] = document["data"]
    return data


def refused(answer: TestResponse) -> tuple[int, int, Any]:
    """Check the shape of an error; return its status, its code and its data."""
    document = answer.get_json()
    assert list(document)[:3] == ["code", "msg", "correlation_id"]
    assert document["msg"]
    assert uuid.UUID(document["correlation_id"])
    return answer.status_code, document["code"], document.get("data")


def written(app: Flask) -> list[Any]:
    """Read the outbox."""

    def read(connection: Connection) -> list[Any]:
        query = select(schema.outbox).order_by(schema.outbox.c.id)
        return list(connection.execute(query).mappings())

    return sidecar.of(app).database.read(read)


# -- what is written -----------------------------------------------------------------------------


def test_a_batch_is_accepted_and_is_in_the_outbox(app: Flask) -> None:
    assert accepted(post(app, [CREATE, RENAME])) == {"accepted": 2}
    found = written(app)
    assert [(row["type"], row["from_path"], row["to_path"]) for row in found] == [
        ("create", "/a", None),
        ("rename", "/a", "/b"),
    ]
    assert {row["created_at"].tzinfo is not None for row in found} == {True}


@pytest.mark.parametrize("media", ["application/x-ndjson", "application/jsonl; charset=UTF-8"])
def test_lines_are_a_batch_too(app: Flask, media: str) -> None:
    body = b"\n".join(json.dumps(each).encode() for each in (CREATE, RENAME))
    assert accepted(send(app, body, text=token(), media=media)) == {"accepted": 2}


def test_a_repetition_counts_as_accepted(app: Flask) -> None:
    """What the writer asks is whether it is stored, not whether it is news."""
    keyed = [CREATE | {"event_key": "k"}]
    assert accepted(post(app, keyed)) == accepted(post(app, keyed)) == {"accepted": 1}


def test_the_client_id_of_the_request_is_the_default(app: Flask) -> None:
    body = json.dumps([CREATE, CREATE | {"client_id": OTHER}]).encode()
    answer = send(app, body, text=token(), X_Cr_Client_Id=CLIENT.upper())
    assert accepted(answer) == {"accepted": 2}
    assert [row["client_id"] for row in written(app)] == [CLIENT, OTHER]


def test_streams_that_are_switched_off_do_not_stop_writers(url: str) -> None:
    """The mover runs on, and nothing is to be lost for those who come back."""
    app = tokens.app(url, ENABLED="false")
    assert accepted(post(app, [CREATE])) == {"accepted": 1}
    sidecar.of(app).close()


def test_a_batch_whose_place_is_waited_for_in_vain_is_accepted(app: Flask) -> None:
    """No worker runs here, so nothing moves; and the shortest wait is over at once."""
    assert accepted(post(app, [CREATE], "?wait=0.001")) == {"accepted": 1}
    assert accepted(post(app, [CREATE], "?wait=0")) == {"accepted": 1}


# -- who may write -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "changed", "expected"),
    [
        ({}, {}, ("42", "42")),
        ({}, {"user_id": "42", "actor_id": "7"}, ("42", "42")),
        ({"client_id": "app", "scopes": ["Files.Write"]}, {}, ("42", "42")),
        (SERVICE, {"user_id": "7"}, ("7", None)),
        (SERVICE, {"user_id": "7", "actor_id": "8"}, ("7", "8")),
        (SERVICE | {"client_id": "app"}, {"user_id": "7"}, ("7", None)),
    ],
)
def test_whose_change_it_is_and_who_did_it(
    app: Flask, claims: dict[str, Any], changed: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    accepted(post(app, [CREATE | changed], **claims))
    assert [(row["user_id"], row["actor_id"]) for row in written(app)] == [expected]


def test_a_user_writes_for_nobody_else(app: Flask) -> None:
    status, code, data = refused(post(app, [CREATE, CREATE | {"user_id": "43"}]))
    assert (status, code, data["index"]) == (403, 403, 1)
    assert written(app) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (401, 401)),
        ("x.y.z", (401, 401)),
        (token(exp=1), (401, 401)),
        (token(token_type="refresh"), (401, 40020)),
        (token(client_id="app"), (403, 40089)),
        (token(client_id="app", scopes=["Files.Read"]), (403, 40089)),
        (token(client_id="app", scopes=["Events.Read"]), (403, 40089)),
    ],
)
def test_who_may_not_write_is_told_before_the_body_is_looked_at(
    app: Flask, text: str, expected: tuple[int, int]
) -> None:
    assert refused(send(app, b"no JSON", "?wait=soon", text=text, media=""))[:2] == expected
    assert written(app) == []


# -- what is no body -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media",
    [
        *("", "text/plain", "application/x-www-form-urlencoded", "application/json+x"),
        *("application/json; charset=latin-1", "multipart/form-data; boundary=x"),
    ],
)
def test_another_type_of_body_is_415(app: Flask, media: str) -> None:
    answer = send(app, json.dumps([CREATE]).encode(), text=token(), media=media)
    assert refused(answer) == (415, 415, None)
    assert written(app) == []


def test_a_compressed_body_is_415(app: Flask) -> None:
    body = gzip.compress(json.dumps([CREATE]).encode())
    answer = send(app, body, text=token(), Content_Encoding="gzip")
    assert refused(answer) == (415, 415, None)
    plain = json.dumps([CREATE]).encode()
    assert accepted(send(app, plain, text=token(), Content_Encoding="identity"))


def test_too_many_bytes_are_413_and_as_many_as_allowed_are_not(app: Flask) -> None:
    body = json.dumps([CREATE]).encode()
    answer = post(app, body + b" " * (2_001 - len(body)))
    assert refused(answer) == (413, 413, None)
    assert written(app) == []
    accepted(post(app, body + b" " * (2_000 - len(body))))


def test_too_many_changes_are_413(app: Flask) -> None:
    assert refused(post(app, [CREATE] * 6)) == (413, 413, None)
    assert written(app) == []
    assert accepted(post(app, [CREATE] * 5)) == {"accepted": 5}


def test_a_bad_change_is_400_with_its_index_and_nothing_is_written(app: Flask) -> None:
    answer = post(app, [CREATE, CREATE | {"from": "docs"}])
    reason = "from does not start with /"
    assert refused(answer) == (400, 40001, {"index": 1, "reason": reason})
    assert answer.get_json()["msg"] == f"change 1: {reason}"
    assert written(app) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"\xef\xbb\xbf[]"])
def test_a_body_that_holds_no_changes_is_400(app: Flask, body: bytes) -> None:
    assert refused(post(app, body)) == (400, 40001, None)


@pytest.mark.parametrize("query", ["?wait=61", "?wait=-1", "?wait=soon", "?wait=1&wait=1"])
def test_a_bad_wait_is_400_and_nothing_is_written(app: Flask, query: str) -> None:
    assert refused(post(app, [CREATE], query)) == (400, 40001, None)
    assert written(app) == []


class Stalled(io.RawIOBase):
    """A body of which nothing comes until it breaks off."""

    def __init__(self) -> None:
        self.is_read, self.ends = gevent.event.Event(), gevent.event.Event()

    def read(self, _: int = -1) -> bytes:
        self.is_read.set()
        self.ends.wait()
        return b""


def test_a_body_that_does_not_come_is_408(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "BODY_SECONDS", 0.001)
    answer = app.test_client().post(
        EVENTS_PATH,
        headers=bearer(token()) | {"Content-Type": "application/json"},
        environ_overrides={"wsgi.input": Stalled(), "CONTENT_LENGTH": "10"},
    )
    assert refused(answer) == (408, 408, None)


def test_a_large_body_finds_room_before_it_is_read(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SMALL_BYTES", 100)
    monkeypatch.setattr(writing, "MOST_LARGE_OF_ONE", 1)
    body = json.dumps([CREATE | {"meta": "x" * 200}]).encode()
    slow = Stalled()
    sent = gevent.spawn(
        app.test_client().post,
        EVENTS_PATH,
        headers=bearer(token()) | {"Content-Type": "application/json"},
        environ_overrides={"wsgi.input": slow, "CONTENT_LENGTH": str(len(body))},
    )
    slow.is_read.wait()
    answer = post(app, body)
    assert refused(answer) == (503, 503, None)
    assert answer.headers["Retry-After"] == "5"
    assert accepted(post(app, [CREATE])) == {"accepted": 1}
    assert accepted(post(app, body, sub="43")) == {"accepted": 1}
    slow.ends.set()
    assert refused(sent.get()) == (400, 40001, None)
    assert accepted(post(app, body)) == {"accepted": 1}


def test_who_waits_for_word_of_a_batch_holds_none_of_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a minute, and there may be thousands."""
    app = tokens.app(url)
    body = json.dumps([CREATE | {"meta": "x" * 50_000}] * 40).encode()
    held = []

    def wait(*_: object) -> None:
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])

    monkeypatch.setattr(sidecar.of(app).writing, "span", wait)
    sent = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    headers = bearer(token()) | {"Content-Type": "application/json"}
    accepted(post(app, [CREATE]))  # what is made once is made
    tracemalloc.start()
    answer = app.test_client().post(
        EVENTS_PATH, query_string="wait=60", headers=headers, environ_overrides=sent
    )
    tracemalloc.stop()
    assert accepted(answer) == {"accepted": 40}
    assert held[0] < len(body) / 4
    sidecar.of(app).close()


def test_a_client_id_that_is_none_is_400(app: Flask) -> None:
    body = json.dumps([CREATE]).encode()
    answer = send(app, body, text=token(), X_Cr_Client_Id="my laptop")
    assert refused(answer) == (400, 40001, None)


def test_a_database_that_is_away_is_503_with_a_time_to_come_back() -> None:
    app = tokens.app(f"postgresql://nobody@127.0.0.1:{free_port()}/events")
    answer = post(app, [CREATE])
    assert refused(answer) == (503, 503, None)
    assert answer.headers["Retry-After"] == "5"
    sidecar.of(app).close()


def test_other_origins_may_write_where_they_may_read(url: str) -> None:
    app = tokens.app(url, CORS_ORIGINS="https://a.example")
    answer = app.test_client().options(
        EVENTS_PATH,
        headers={
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        },
    )
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"


def test_nothing_waits_in_the_outbox_of_a_stranger(app: Flask) -> None:
    """What was refused above would be seen by this: the count is of all users."""
    accepted(post(app, [CREATE | {"user_id": "7"}], **SERVICE))
    assert sidecar.of(app).database.read(rows.waiting) == 1

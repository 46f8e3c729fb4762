"""The door to pages of changes: what it asks for, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, insert
from werkzeug.test import TestResponse

from events_app import api, sidecar
from events_app.revocation import Revocation
from events_app.schema import grant
from tests import reused, tokens
from tests.tokens import bearer, token

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    made = tokens.app(reused.url(request, "sqlite"), DEBOUNCE="0", MAX_STREAMS_PER_USER="1")
    follow(made)
    yield made
    assert len(sidecar.of(made).admission) == 0
    sidecar.of(made).close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def follow(app: Flask) -> None:
    """Do what the worker's tailer does all the time."""
    while sidecar.of(app).tailer.turn():
        pass


def ask(client: FlaskClient, **query: object) -> TestResponse:
    return client.get(api.CHANGES_PATH, query_string=query, headers=bearer(token()))


def page(client: FlaskClient, **query: object) -> dict[str, Any]:
    answer = ask(client, **query)
    document = answer.get_json()
    assert (answer.status_code, list(document)) == (200, ["code", "msg", "data"]), document
    assert (document["code"], document["msg"]) == (0, "")
    found: dict[str, Any] = document["data"]
    assert list(found) == ["events", "cursor", "more"]
    return found


def test_the_path_is_the_protocols() -> None:
    assert api.CHANGES_PATH == "/api/v4/file/events/changes"


def test_changes_come_as_the_stream_has_them_and_the_cursor_moves(
    app: Flask, client: FlaskClient
) -> None:
    first = page(client)
    assert (first["events"], first["more"]) == ([], False)
    tokens.write(app, "/a", "/b")
    follow(app)
    second = page(client, cursor=first["cursor"])
    assert second["events"] == [
        {"type": "create", "file_id": path, "from": path, "to": ""} for path in ("/a", "/b")
    ]
    assert [list(each) for each in second["events"]] == [["type", "file_id", "from", "to"]] * 2
    assert page(client, cursor=second["cursor"])["events"] == []


def test_a_page_stays_in_no_cache(client: FlaskClient) -> None:
    assert ask(client).headers["Cache-Control"] == "no-store"


def test_a_limit_and_the_folder_are_kept(app: Flask, client: FlaskClient) -> None:
    address = {"uri": "cloudreve://my/docs"}
    first = page(client, **address)
    tokens.write(app, "/docs/a", "/elsewhere", "/docs/b")
    follow(app)
    second = page(client, cursor=first["cursor"], limit=1, **address)
    assert ([each["from"] for each in second["events"]], second["more"]) == (["/a"], True)
    third = page(client, cursor=second["cursor"], limit=1, **address)
    assert [each["from"] for each in third["events"]] == ["/b"]


def test_a_cursor_that_cannot_be_honoured_is_410_with_a_fresh_one(
    app: Flask, client: FlaskClient
) -> None:
    answer = ask(client, cursor="garbage")
    document = answer.get_json()
    assert (answer.status_code, document["code"]) == (410, 410)
    assert list(document) == ["code", "msg", "correlation_id", "data"]
    assert document["data"]["reason"] == "no cursor of ours"
    tokens.write(app, "/a")
    follow(app)
    assert [e["from"] for e in page(client, cursor=document["data"]["cursor"])["events"]] == ["/a"]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "-1"},
        {"limit": "1.5"},
        {"limit": "٣"},
        {"limit": "1_0"},
        {"limit": "9" * 5_000},
        {"wait": "51"},
        {"wait": "long"},
        {"cursor": "a" * 1_001},
        {"cursor": "é"},
        {"uri": "cloudreve://trash"},
        {"client_id": "laptop"},
        {"cursor": ["a", "a"]},
    ],
    ids=str,
)
def test_a_bad_parameter_is_40001_and_named(client: FlaskClient, query: dict[str, Any]) -> None:
    answer = ask(client, **query)
    assert (answer.status_code, answer.get_json()["code"]) == (400, 40001)
    name = next(iter(query)).replace("_", " ")
    assert answer.get_json()["msg"].startswith(name)


def test_the_checks_are_the_streams(client: FlaskClient) -> None:
    assert client.get(api.CHANGES_PATH).status_code == 401
    assert ask(client, uri="cloudreve://43@my").get_json()["code"] == 403
    off = tokens.app(ENABLED="false").test_client()
    assert ask(off).get_json()["code"] == 40019


def test_who_waits_takes_a_streams_place_and_who_does_not_takes_none(client: FlaskClient) -> None:
    cursor = page(client)["cursor"]
    stream = client.get(api.EVENTS_PATH, headers=bearer(token()))
    assert page(client, cursor=cursor)["events"] == []
    assert ask(client, cursor=cursor, wait=1).status_code == 429
    stream.close()


# -- what goes while a page is waited for --------------------------------------------------------

SHARE = "cloudreve://s1@share"


@pytest.fixture
def guest(app: Flask) -> FlaskClient:
    """Give the client of user 43, who may watch 42's /docs."""
    values = {"share_id": "s1", "user_id": "43", "owner_id": "42", "path": "/docs", "is_folder": 1}
    sidecar.of(app).database.write(lambda db: db.execute(insert(grant).values(values)))
    return app.test_client()


def page_of_share(app: Flask, guest: FlaskClient, meanwhile: Callable[[], str | None]) -> int:
    """Wait for a page that has a change, and do something before it is answered."""
    headers, address = bearer(token(sub="43")), {"uri": SHARE}
    first = guest.get(api.CHANGES_PATH, query_string=address, headers=headers).get_json()["data"]
    tokens.write(app, "/docs/a")
    follow(app)
    answers = iter([lambda: None, meanwhile])

    def hook(claims: Mapping[str, Any]) -> str | None:
        """Answer as the app does that is asked about the token, before and after the wait."""
        del claims
        return next(answers)()

    sidecar.of(app).revocation = Revocation((hook,), 60)
    query = address | {"cursor": first["cursor"], "wait": "1"}
    answer = guest.get(api.CHANGES_PATH, query_string=query, headers=headers)
    assert ("/a" in answer.text) == (answer.status_code == 200)
    return answer.status_code


def test_what_is_still_permitted_after_a_wait_is_told(app: Flask, guest: FlaskClient) -> None:
    assert page_of_share(app, guest, lambda: None) == 200


def test_a_token_that_is_revoked_meanwhile_is_told_nothing(app: Flask, guest: FlaskClient) -> None:
    assert page_of_share(app, guest, lambda: "its user signed out") == 401


def test_a_guest_whose_grant_went_meanwhile_is_told_nothing(app: Flask, guest: FlaskClient) -> None:
    def withdraw() -> None:
        sidecar.of(app).database.write(lambda db: db.execute(delete(grant)))

    assert page_of_share(app, guest, withdraw) == 403


def test_a_database_that_is_away_is_503_with_a_time_to_come_back() -> None:
    gone = tokens.app("sqlite:////nowhere/events.db").test_client()
    answer = ask(gone)
    assert (answer.status_code, answer.get_json()["code"]) == (503, 503)
    assert int(answer.headers["Retry-After"]) > 0


def test_what_was_answered_is_counted(app: Flask, client: FlaskClient) -> None:
    cursor = page(client)["cursor"]
    ask(client, cursor="garbage")
    tokens.write(app, "/a")
    follow(app)
    page(client, cursor=cursor)
    assert sidecar.of(app).tally.polled == {"nothing": 1, "cannot_resume": 1, "changes": 1}

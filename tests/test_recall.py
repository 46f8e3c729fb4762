"""The door to a user's own past: what it tells, what it keeps to itself, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from sqlalchemy import insert
from werkzeug.test import TestResponse

from events_app import history, recall, schema, sidecar
from tests import kept, reused, tokens
from tests.serving import free_port
from tests.tokens import bearer, token

START = datetime(2026, 11, 20, tzinfo=UTC)
CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"

url = reused.on_each_engine


@pytest.fixture
def app(url: str) -> Iterator[Flask]:
    made = tokens.app(url)
    yield made
    sidecar.of(made).close()


def ask(app: Flask, text: str | None = None, **parameters: str) -> TestResponse:
    """Ask with a good token, or with `text`; none where it is empty."""
    found = {} if text == "" else bearer(text or token())
    path = f"{recall.HISTORY_PATH}?{urlencode(parameters)}"
    return app.test_client().get(path, headers=found)


def told(app: Flask, **parameters: str) -> tuple[list[dict[str, Any]], str | None]:
    answer = ask(app, **parameters)
    document = answer.get_json()
    assert (answer.status_code, document["code"], document["msg"]) == (200, 0, "")
    return document["data"]["events"], document["data"]["next"]


def in_short(items: list[dict[str, Any]]) -> list[tuple[int, str, str, str]]:
    return [(item["position"], item["type"], item["from"], item["to"]) for item in items]


def keep(app: Flask, *rows: dict[str, Any]) -> None:
    """Journal these rows, a minute apart."""
    kept.keep(
        sidecar.of(app).database,
        [
            kept.row(n, recorded_at=START + timedelta(minutes=n), **columns)
            for n, columns in enumerate(rows, start=1)
        ],
    )


def test_an_item_has_the_streams_keys_and_who_and_when(app: Flask) -> None:
    columns = {"actor_id": "7", "client_id": CLIENT, "meta": '{"ip": "192.0.2.7"}'}
    created = START - timedelta(hours=1)
    keep(app, {"from_path": "/d/ä", "file_id": "f", "created_at": created, **columns})
    (item,), following = told(app, uri="cloudreve://my/d")
    assert following is None
    assert list(item.items()) == [
        ("type", "create"),
        ("file_id", "f"),
        ("from", "/ä"),
        ("to", ""),
        ("position", 1),
        ("created_at", "2026-11-19T23:00:00.000000Z"),
        ("recorded_at", "2026-11-20T00:01:00.000000Z"),
        ("actor_id", "7"),
        ("client_id", CLIENT),
    ]
    assert "192.0.2.7" not in ask(app).get_data(as_text=True)


def test_paths_are_relative_and_the_border_is_told_as_by_the_stream(app: Flask) -> None:
    keep(
        app,
        {"from_path": "/d/a"},
        {"type": "rename", "from_path": "/d/a", "to_path": "/d/b"},
        {"type": "rename", "from_path": "/d/b", "to_path": "/out"},
        {"type": "rename", "from_path": "/out", "to_path": "/d/c"},
        {"type": "modify", "from_path": "/docs/a"},
        {"type": "delete", "from_path": "/d"},
        {"from_path": "/d/gone", "rejected": "why"},
        {"from_path": "/d/x", "user_id": "43"},
        {"from_path": "/d/x", "fs": "share"},
    )
    items, _ = told(app, uri="cloudreve://my/d")
    assert in_short(items) == [
        (4, "create", "/c", ""),
        (3, "delete", "/b", ""),
        (2, "rename", "/a", "/b"),
        (1, "create", "/a", ""),
    ]
    assert in_short(told(app, uri="cloudreve://my/d", type="delete")[0]) == [
        (3, "delete", "/b", "")
    ]
    assert [item["position"] for item in told(app)[0]] == [6, 5, 4, 3, 2, 1]


def share(app: Flask, path: str) -> str:
    """Let user 42 watch a folder of user 7's; return its URI."""
    values = {"share_id": "s1", "user_id": "42", "owner_id": "7", "path": path, "is_folder": 1}
    sidecar.of(app).database.write(lambda db: db.execute(insert(schema.grant).values(values)))
    return "cloudreve://s1@share"


@pytest.mark.parametrize(
    "gone",
    [
        {"type": "rename", "from_path": "/d/e", "to_path": "/private"},
        {"type": "delete", "from_path": "/d"},
        {"type": "rename", "from_path": "/other", "to_path": "/d"},
        {"type": "create", "from_path": "/d/e"},
    ],
    ids=lambda row: f"{row['type']} {row['from_path']}",
)
def test_a_guest_is_not_told_what_another_folder_held_in_the_place_of_the_share(
    app: Flask, gone: dict[str, str]
) -> None:
    """It was never shared; its owner still sees all of it."""
    keep(
        app,
        {"from_path": "/d/e/secret", "user_id": "7"},
        {**gone, "user_id": "7"},
        {"from_path": "/d/e/x", "user_id": "7"},
        {"type": "modify", "from_path": "/d/e", "user_id": "7"},
        {"type": "delete", "from_path": "/d/e", "user_id": "7", "rejected": "why"},
        {"type": "delete", "from_path": "/d/e", "user_id": "7", "fs": "other"},
        {"type": "rename", "from_path": "/d/e", "to_path": "/d/e", "user_id": "7"},
        {"type": "delete", "from_path": "/d/e"},
        {"type": "delete", "from_path": "/d/e/x", "user_id": "7"},
        {"from_path": "/d/e/x", "user_id": "7"},
    )
    address = share(app, "/d/e")
    items, following = told(app, uri=address)
    assert in_short(items) == [
        (10, "create", "/x", ""),
        (9, "delete", "/x", ""),
        (3, "create", "/x", ""),
    ]
    assert following is None
    assert told(app, uri=address, before="3") == ([], None)
    assert told(app, uri=address, limit="5")[1] is None
    assert told(app, uri=f"{address}/x") == ([], None)


def test_a_guest_of_a_whole_drive_is_told_all_of_it(app: Flask) -> None:
    keep(
        app,
        {"from_path": "/a", "user_id": "7"},
        {"type": "delete", "from_path": "/a", "user_id": "7"},
    )
    assert len(told(app, uri=share(app, "/"))[0]) == 2


def test_a_guest_of_a_deep_folder_is_told_from_its_beginning_too(app: Flask) -> None:
    """Beyond what an index over paths holds."""
    deep = "/" + "d" * 2_100
    keep(
        app,
        {"from_path": f"{deep}/secret", "user_id": "7"},
        {"type": "rename", "from_path": "/short", "to_path": deep, "user_id": "7"},
        {"from_path": f"{deep}/x", "user_id": "7"},
    )
    assert in_short(told(app, uri=share(app, deep))[0]) == [(3, "create", "/x", "")]


def test_since_is_in_it_and_until_is_not(app: Flask) -> None:
    keep(app, *({} for _ in range(4)))
    seconds = int((START + timedelta(minutes=2)).timestamp())
    items, _ = told(app, since=str(seconds), until="2026-11-20T01:04:00+01:00")
    assert [item["position"] for item in items] == [3, 2]


def test_pages_go_on_where_the_last_one_ended(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(app, *({} for _ in range(5)))
    items, following = told(app, limit="2")
    assert ([item["position"] for item in items], following) == ([5, 4], "4")
    items, following = told(app, limit="9", before="4")
    assert ([item["position"] for item in items], following) == ([3, 2, 1], None)
    monkeypatch.setattr(history, "LOOK_ROWS", 2)
    assert told(app, type="delete") == ([], "4"), "so many rows are looked at, and no more"


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            ("limit", text)
            for text in (
                "0",
                "1001",
                "-1",
                "ten",
                "1.5",
                "1" * 5_000,
                "\N{FULLWIDTH DIGIT ONE}",
            )
        ],
        *[("before", text) for text in ("0", "-1", str(2**63), "x", "1e3")],
        *[("since", text) for text in ("yesterday", "2026-11-20", "-1", "2026-11-20T00:00:00")],
        *[("until", text) for text in ("1e9", "2026-13-01T00:00:00Z", "9999-12-31T23:59:59Z")],
        *[("type", text) for text in ("move", "Create", "create,modify")],
        *[("uri", text) for text in ("ftp://my", "cloudreve://trash", "cloudreve://my/%zz")],
    ],
)
def test_a_bad_parameter_is_40001_and_named(app: Flask, name: str, value: str) -> None:
    answer = ask(app, **{name: value})
    document = answer.get_json()
    assert (answer.status_code, document["code"]) == (400, 40001)
    assert document["msg"].startswith(f"{name}: ")
    twice = f"{recall.HISTORY_PATH}?{name}=1&{name}=1"
    again = app.test_client().get(twice, headers=bearer(token()))
    assert again.get_json()["msg"] == f"{name}: it is given 2 times"


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("text", "enabled", "uri", "expected"),
    [
        (token(token_type="refresh"), "false", "ftp://my", (401, 40020)),
        (token(client_id="app"), "false", "ftp://my", (403, 40089)),
        ("", "false", "ftp://my", (401, 401)),
        (None, "false", "ftp://my", (403, 40019)),
        (None, "true", "ftp://my", (400, 40001)),
        (None, "true", "cloudreve://43@my", (403, 403)),
        (token(client_id="app", scopes=["Files.Read"]), "true", "cloudreve://42@my", (200, 0)),
    ],
)
def test_the_checks_are_the_streams_in_its_order(
    url: str, text: str | None, enabled: str, uri: str, expected: tuple[int, int]
) -> None:
    app = tokens.app(url, ENABLED=enabled)
    answer = ask(app, text, uri=uri)
    assert (answer.status_code, answer.get_json()["code"]) == expected
    sidecar.of(app).close()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_page_is_nobody_elses_to_keep(app: Flask) -> None:
    answer = ask(app)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.mimetype == "application/json"


@pytest.mark.parametrize("family", ["postgresql", "mysql"])
def test_while_the_database_is_away_the_answer_is_to_come_back(family: str) -> None:
    app = tokens.app(f"{family}://nobody:hunter2@127.0.0.1:{free_port()}/events")
    answer = ask(app)
    assert (answer.status_code, answer.get_json()["code"]) == (503, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert "hunter2" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_a_database_that_refuses_is_no_reason_to_come_back(empty_url: str) -> None:
    """The tables are missing: that is for whoever reads the log."""
    app = tokens.app(empty_url)
    answer = ask(app)
    sidecar.of(app).close()
    assert (answer.status_code, answer.get_json()["code"]) == (500, 50005)

"""The parts joined: pages of other origins, and what importing and making does not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from events_app import errors, settings, sidecar
from events_app.app import create_app
from tests import databases, tokens
from tests.tokens import EVENTS_PATH, SECRET, bearer, token

ORIGIN = "https://files.example"
ALLOWED = {"authorization", "x-cr-client-id", "last-event-id", "content-type", "cache-control"}


def preflight(app: Flask, origin: str, headers: str = "authorization") -> TestResponse:
    return app.test_client().options(
        EVENTS_PATH,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": headers,
        },
    )


def allowed_origin(answer: TestResponse) -> str | None:
    return answer.headers.get("Access-Control-Allow-Origin")


def test_no_other_origin_is_answered_until_one_is_configured() -> None:
    app = tokens.app()
    assert allowed_origin(preflight(app, ORIGIN)) is None
    answer = app.test_client().get(EVENTS_PATH, headers={"Origin": ORIGIN})
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_a_preflight_needs_no_token_and_allows_what_clients_send() -> None:
    app = tokens.app(CORS_ORIGINS=f"{ORIGIN},http://localhost:5173")
    answer = preflight(app, ORIGIN, ",".join(sorted(ALLOWED)))
    assert answer.status_code == 200
    assert allowed_origin(answer) == ORIGIN
    listed = answer.headers["Access-Control-Allow-Headers"]
    assert {name.strip().lower() for name in listed.split(",")} == ALLOWED
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert allowed_origin(preflight(app, "http://localhost:5173")) == "http://localhost:5173"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://files.example",
        "https://files.example:8443",
        "https://files.example.evil.example",
        "https://filesXexample",
        "https://evil.example/https://files.example",
        "null",
        "*",
    ],
)
def test_only_the_very_origin_is_allowed(origin: str) -> None:
    app = tokens.app(CORS_ORIGINS=ORIGIN)
    assert allowed_origin(preflight(app, origin)) is None
    answer = app.test_client().get(EVENTS_PATH, headers={"Origin": origin})
    assert allowed_origin(answer) is None


def test_an_address_of_version_6_is_an_origin_and_no_pattern() -> None:
    app = tokens.app(CORS_ORIGINS="http://[::1]:5173")
    assert allowed_origin(preflight(app, "http://[::1]:5173")) == "http://[::1]:5173"
    assert allowed_origin(preflight(app, "http://1:5173")) is None


def test_errors_are_readable_to_an_allowed_page() -> None:
    app = tokens.app(CORS_ORIGINS=ORIGIN)
    for path in (EVENTS_PATH, "/no-such-page"):
        answer = app.test_client().get(path, headers={"Origin": ORIGIN})
        assert answer.status_code in {401, 404}
        assert allowed_origin(answer) == ORIGIN
        assert "Origin" in answer.headers["Vary"]


def test_never_any_origin() -> None:
    with pytest.raises(errors.SettingsError, match="EVENTS_CORS_ORIGINS"):
        tokens.app(CORS_ORIGINS="*")


def test_a_page_reads_by_cookie_only_from_an_origin_that_is_named() -> None:
    """Never any origin, and never with cookies where none is taken."""
    app = tokens.app(CORS_ORIGINS=ORIGIN, TOKEN_IN_COOKIE="true")
    answer = preflight(app, ORIGIN, ",".join(sorted(ALLOWED | {"x-csrf-token"})))
    assert allowed_origin(answer) == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    listed = answer.headers["Access-Control-Allow-Headers"]
    assert {name.strip().lower() for name in listed.split(",")} == ALLOWED | {"x-csrf-token"}
    for origin in ("https://evil.example", "null", "*"):
        refused = preflight(app, origin)
        assert allowed_origin(refused) is None
        assert "Access-Control-Allow-Credentials" not in refused.headers
    for path in (EVENTS_PATH, "/no-such-page"):
        answer = app.test_client().get(path, headers={"Origin": ORIGIN})
        assert allowed_origin(answer) == ORIGIN
        assert "Origin" in answer.headers["Vary"]


def test_making_the_app_opens_nothing(tmp_path: Path) -> None:
    """Commands such as `events token` work without a database, and gunicorn forks after it."""
    path = tmp_path / "events.db"
    app = tokens.app(f"sqlite:///{path}")
    assert app.test_client().get("/healthz").status_code == 200
    assert not path.exists()


def test_importing_the_package_needs_no_settings() -> None:
    program = "import events_app.app, events_app.cli, events_app.sidecar"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=databases.ROOT,
        env=databases.plain_environment() | {"EVENTS_NO_SUCH_SETTING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_is_read_when_nothing_else_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVENTS_JWT_SECRET", SECRET)
    monkeypatch.setenv("EVENTS_KEEP_ALIVE", "7")
    assert sidecar.of(create_app()).settings.keep_alive_seconds == 7


def test_two_apps_are_two_worlds() -> None:
    one, other = tokens.app(), tokens.app(ENABLED="false")
    headers = bearer(token()) | {"X-Cr-Client-Id": "no uuid"}
    assert one.test_client().get(EVENTS_PATH, headers=headers).status_code == 400
    assert other.test_client().get(EVENTS_PATH, headers=headers).status_code == 403


def test_a_worker_without_a_key_does_not_start(sqlite_url: str) -> None:
    app = create_app(settings.load({"EVENTS_DATABASE_URL": sqlite_url}))
    with pytest.raises(errors.SettingsError, match="EVENTS_JWT_SECRET is unset"):
        sidecar.of(app).start()
    sidecar.of(app).close()


def test_a_worker_on_a_database_without_tables_does_not_start(tmp_path: Path) -> None:
    app = tokens.app(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(errors.SchemaError, match="alembic upgrade head"):
        sidecar.of(app).start()
    sidecar.of(app).close()

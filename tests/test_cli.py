"""The commands: what they print, what they write, and one line where they cannot."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from events_app import (
    auth,
    cli,
    errors,
    journal,
    schema,
    scope,
    settings,
    sidecar,
    standings,
    subscriptions,
    terminal,
    uri,
)
from events_app.app import create_app
from tests import databases, key_server, reused, tokens
from tests.serving import free_port
from tests.tokens import SECRET, bearer

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"

url = reused.on_sqlite


@pytest.fixture(autouse=True)
def _no_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep out the secret that `make run` may have left in this checkout."""
    monkeypatch.setattr(cli, "DEMO_SECRET", tmp_path / "jwt-secret")


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["events", *arguments])


def one_line(result: Result, code: int = 1) -> str:
    """Check that it failed in one line for a person."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.output.strip().splitlines()
    assert len(lines) == 1, result.output
    assert lines[0].startswith("Error: ")
    return lines[0]


def written(url: str) -> list[dict[str, Any]]:
    app = tokens.app(url)
    rows = sidecar.of(app).database.read(
        lambda db: db.execute(select(schema.outbox)).mappings().all()
    )
    sidecar.of(app).close()
    return [dict(row) for row in rows]


def identity(app: Flask, text: str) -> auth.Identity:
    with app.test_request_context("/", headers=bearer(text)):
        return auth.authenticate(sidecar.of(app).settings, auth.READ_SCOPE)


# -- token ---------------------------------------------------------------------------------------


def test_token_prints_a_token_that_works_and_nothing_else() -> None:
    app = tokens.app(JWT_LEEWAY="0")
    result = run(app, "token", "--user", "42")
    assert result.exit_code == 0
    assert result.stderr == ""
    text = result.stdout.removesuffix("\n")
    assert len(text.split()) == 1
    found = identity(app, text)
    assert found.user_id == "42"
    assert found.expires_at == pytest.approx(time.time() + 3_600, abs=10)


def test_token_lives_as_long_as_it_is_told() -> None:
    app = tokens.app(JWT_LEEWAY="0")
    found = identity(app, run(app, "token", "--user", "42", "--ttl", "5").stdout.strip())
    assert found.expires_at == pytest.approx(time.time() + 5, abs=3)


def test_token_with_a_scope_is_a_third_partys() -> None:
    app = tokens.app()
    scopes = ["--scope", "openid", "--scope", "Files.Read"]
    text = run(app, "token", "--user", "42", *scopes).stdout.strip()
    assert identity(app, text).user_id == "42"
    claims = jwt.decode(text, SECRET, ["HS256"])
    assert claims["scopes"] == ["openid", "Files.Read"]
    assert claims["client_id"]
    other = run(app, "token", "--user", "42", "--scope", "openid").stdout.strip()
    with pytest.raises(errors.MissingScope):
        identity(app, other)


def test_token_has_what_the_settings_ask_of_tokens() -> None:
    app = tokens.app(JWT_ISSUER="files", JWT_AUDIENCE="events", JWT_IDENTITY_CLAIM="uid")
    assert identity(app, run(app, "token", "--user", "42").stdout.strip()).user_id == "42"


@pytest.mark.parametrize("ttl", ["0", "-1", "nan", "inf", "1e9", "soon", "99999999999"])
def test_a_lifetime_that_is_none_is_a_wrong_option(ttl: str) -> None:
    result = run(tokens.app(), "token", "--user", "42", "--ttl", ttl)
    assert result.exit_code == 2
    assert "--ttl" in result.output


def test_without_a_secret_token_says_how_to_make_one() -> None:
    app = create_app(settings.load({}))
    result = run(app, "token", "--user", "42")
    assert result.exit_code == 1
    assert "EVENTS_JWT_SECRET is unset" in result.output
    assert "secrets.token_urlsafe" in result.output


def test_beside_make_run_token_takes_its_secret(tmp_path: Path) -> None:
    (tmp_path / "jwt-secret").write_text(SECRET + "\n")
    text = run(create_app(settings.load({})), "token", "--user", "42").stdout.strip()
    assert identity(tokens.app(), text).user_id == "42"


def test_with_a_public_key_there_is_nothing_to_sign_with(tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_bytes(key_server.public_pem(key_server.RSA))
    app = tokens.app(JWT_ALGORITHM="RS256", JWT_PUBLIC_KEY_FILE=str(pem))
    for command in (["token"], ["tail", "--url", "http://127.0.0.1:1"]):
        assert "private key" in one_line(run(app, *command, "--user", "42"))


# -- append --------------------------------------------------------------------------------------


def test_append_writes_one_row_into_the_outbox_and_prints_nothing(url: str) -> None:
    result = run(
        tokens.app(url),
        *("append", "--user", "42", "rename", "/a", "/né", "--file-id", "f1", "--folder"),
        *("--client-id", CLIENT, "--actor", "7", "--event-key", "k1"),
    )
    assert (result.exit_code, result.output) == (0, "")
    (row,) = written(url)
    assert {name: row[name] for name in row.keys() - {"id", "created_at"}} == {
        "user_id": "42",
        "type": "rename",
        "file_id": "f1",
        "fs": "my",
        "from_path": "/a",
        "to_path": "/né",
        "is_folder": 1,
        "client_id": CLIENT,
        "actor_id": "7",
        "event_key": "k1",
        "meta": None,
    }
    assert abs(row["created_at"].timestamp() - time.time()) < 60


@pytest.mark.parametrize(
    "arguments",
    [
        ["append", "--user", "42", "create", "/a"],
        ["append", "create", "/a", "--file-id", "f"],
        ["append", "--user", "42", "moved", "/a", "--file-id", "f"],
        ["append", "--user", "42", "create", "--file-id", "f"],
        ["append", "--user", "42", "create", "/a", "/b", "/c", "--file-id", "f"],
        ["append", "--user", "42", "create", "/a", "--file-id", "f", "--colour", "red"],
        ["token"],
        ["tail"],
        ["no-such-command"],
    ],
)
def test_wrong_arguments_are_exit_code_2_and_write_nothing(url: str, arguments: list[str]) -> None:
    result = run(tokens.app(url), *arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output
    assert written(url) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["rename", "/a"],
        ["create", "/a", "/b"],
        ["create", "/" + "a" * 4_096],
        ["create", "/a\udcff"],
    ],
)
def test_what_the_database_refuses_is_one_line(url: str, arguments: list[str]) -> None:
    result = run(tokens.app(url), "append", "--user", "42", "--file-id", "f", *arguments)
    one_line(result)
    assert written(url) == []


def test_a_database_without_tables_is_one_line(tmp_path: Path) -> None:
    app = tokens.app(f"sqlite:///{tmp_path / 'empty.db'}")
    result = run(app, "append", "--user", "42", "--file-id", "f", "create", "/a")
    assert "no such table" in one_line(result)


@pytest.mark.parametrize("family", ["postgresql", "mysql"])
def test_a_database_that_does_not_answer_is_one_line(family: str) -> None:
    app = tokens.app(f"{family}://nobody:hunter2@127.0.0.1:{free_port()}/events")
    result = run(app, "append", "--user", "42", "--file-id", "f", "create", "/a")
    assert "hunter2" not in one_line(result)


# -- tail ----------------------------------------------------------------------------------------


def test_tail_asks_with_a_token_that_works_for_the_whole_drive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(terminal, "follow", lambda *arguments: asked.append(arguments))
    app = tokens.app(JWT_ISSUER="files", JWT_AUDIENCE="events", URI_SCHEME="files")
    result = run(app, "tail", "--user", "42")
    assert result.exit_code == 0, result.output
    ((address, uri, client_id, new_token),) = asked
    assert (address, uri) == ("http://127.0.0.1:8000", "files://my")
    assert len(client_id) == 36
    with app.app_context():
        assert identity(app, new_token()).user_id == "42"


def test_tail_says_in_one_line_what_the_server_refuses() -> None:
    assert "--url" in one_line(run(tokens.app(), "tail", "--user", "42", "--url", "nowhere"))


# -- subscriptions -------------------------------------------------------------------------------


def known(app: Flask, *paths: str) -> None:
    """Remember a client that watches these folders."""
    for path in paths:
        who = scope.Watcher.of("42", CLIENT, uri.Folder("my", path))
        limits = subscriptions.Limits(10, 10)
        subscriptions.connect(sidecar.of(app).database, who, None, limits)


def test_subscriptions_are_a_table_for_people(url: str) -> None:
    app = tokens.app(url)
    assert run(app, "subscriptions").output == ""
    known(app, "/docs", "/\x1b[2J")
    result = run(app, "subscriptions", "--user", "42")
    assert (result.exit_code, result.stderr) == (0, "")
    head, *lines = result.stdout.splitlines()
    assert head.split() == list(standings.Standing._fields)
    assert [line.split()[:6] for line in lines] == [
        ["42", CLIENT, "my", "/\\x1b[2J", "new", "0"],
        ["42", CLIENT, "my", "/docs", "new", "0"],
    ]
    assert run(app, "subscriptions", "--behind", "1").output == ""
    sidecar.of(app).close()


def test_subscriptions_are_lines_of_json_for_programs(url: str) -> None:
    app = tokens.app(url)
    known(app, "/docs")
    result = run(app, "subscriptions", "--format", "jsonl")
    (row,) = map(json.loads, result.stdout.splitlines())
    assert list(row) == list(standings.Standing._fields)
    assert (row["path"], row["behind"], row["since"]) == ("/docs", 0, None)
    assert datetime.fromisoformat(row["seen_at"]).tzinfo is not None
    sidecar.of(app).close()


@pytest.mark.parametrize("arguments", [["--behind", "-1"], ["--format", "xml"]])
def test_wrong_options_of_subscriptions_are_exit_code_2(url: str, arguments: list[str]) -> None:
    assert run(tokens.app(url), "subscriptions", *arguments).exit_code == 2


# -- new-epoch -----------------------------------------------------------------------------------


def test_new_epoch_begins_a_later_one_and_says_so(url: str) -> None:
    app = tokens.app(url)
    before = sidecar.of(app).database.read(journal.head).epoch
    for _ in range(2):  # within one second, too
        result = run(app, "new-epoch")
        assert result.exit_code == 0, result.output
        after = sidecar.of(app).database.read(journal.head).epoch
        assert after > before
        assert f"was {before} and is {after};" in result.output
        before = after
    sidecar.of(app).close()


# -- as a person runs them -----------------------------------------------------------------------


def flask(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "events", *arguments],
        cwd=databases.ROOT,
        env=databases.plain_environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_as_the_documents_have_it() -> None:
    done = flask("token", "--user", "42", EVENTS_JWT_SECRET=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    assert identity(tokens.app(), done.stdout.removesuffix("\n")).user_id == "42"


def test_bad_settings_are_said_without_a_traceback() -> None:
    done = flask("doctor", EVENTS_JWT_SECRET="short", EVENTS_KEEP_ALIV="1")
    assert done.returncode == 1
    assert "EVENTS_JWT_SECRET" in done.stderr
    assert "EVENTS_KEEP_ALIVE" in done.stderr
    assert "Traceback" not in done.stderr
    assert "short" not in done.stderr.replace("too short", "")


def test_every_command_is_in_the_reference() -> None:
    page = (databases.ROOT / "docs/reference/commands.md").read_text()
    for name, command in cli.commands.commands.items():
        assert f"## {name}\n" in page
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}" in page, (name, option)

"""`flask events audit` and `prune`: what they print, remove and refuse; on every engine."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import update

from events_app import journal, records, schema, sidecar, upkeep
from events_app.database import Database
from tests import databases, kept, reused, rows, tokens
from tests.tokens import SECRET

url = reused.on_each_engine


@pytest.fixture
def app(url: str) -> Iterator[Flask]:
    made = tokens.app(url)
    yield made
    sidecar.of(made).close()


SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["events", *arguments])


def keep(app: Flask, *columns: dict[str, Any]) -> Database:
    database = sidecar.of(app).database
    kept.keep(database, [kept.row(n, **each) for n, each in enumerate(columns, start=1)])
    return database


def audited(app: Flask, *arguments: str) -> list[dict[str, Any]]:
    result = run(app, "audit", "--format", "jsonl", *arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def positions(app: Flask, *arguments: str) -> list[int]:
    return [row["position"] for row in audited(app, *arguments)]


def test_every_row_is_a_line_of_json_with_all_its_columns(app: Flask) -> None:
    meta = '{"ip": "192.0.2.7"}'
    keep(app, {"actor_id": "7", "meta": meta, "from_path": "/ä\n"}, {"rejected": "why"})
    rejected, row = audited(app)
    assert list(row) == list(records.COLUMNS)
    assert (row["actor"], row["from_path"], json.loads(row["meta"])) == (
        "7",
        "/ä\n",
        json.loads(meta),
    )
    assert row["recorded_at"].endswith("+00:00")
    assert (rejected["actor"], rejected["rejected"]) == ("42", "why")


def test_conditions_are_joined(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PAGE_ROWS", 2)
    database = keep(
        app,
        {"from_path": "/d/a", "file_id": "f"},
        {"from_path": "/d", "type": "delete"},
        {"from_path": "/e", "actor_id": "7"},
        {"from_path": "/d/a", "user_id": "7"},
        {"from_path": "/d/b", "type": "modify", "actor_id": "7"},
    )
    assert positions(app) == [5, 4, 3, 2, 1]
    assert positions(app, "--limit", "3") == [5, 4, 3]
    assert positions(app, "--user", "42") == [5, 3, 2, 1]
    assert positions(app, "--uri", "cloudreve://my/d/a") == [4, 2, 1]
    assert positions(app, "--uri", "cloudreve://42@my/d/a") == [2, 1]
    assert positions(app, "--user", "42", "--uri", "cloudreve://my/d") == [5, 2, 1]
    assert positions(app, "--actor", "7") == [5, 4, 3]
    assert positions(app, "--file-id", "f") == [1]
    assert positions(app, "--type", "delete", "--user", "42") == [2]
    when = database.read(journal.head).now
    change = update(schema.journal).where(schema.journal.c.position < 3)
    day_before = when - timedelta(days=1)
    database.write(lambda db: db.execute(change.values(recorded_at=day_before)))
    assert positions(app, "--since", when.strftime("%Y-%m-%d")) == [5, 4, 3]
    assert positions(app, "--user", "42", "--until", when.strftime("%Y-%m-%dT00:00:00Z")) == [2, 1]


@SQLITE
def test_people_see_a_table_in_which_names_move_no_cursor(app: Flask) -> None:
    keep(app, {"from_path": "/\x1b[2J"}, {"from_path": "/b", "rejected": "why"})
    result = run(app, "audit")
    assert (result.exit_code, result.stderr) == (0, "")
    head, *lines = result.stdout.splitlines()
    assert head.split() == list(records.TABLE)
    assert "/\\x1b[2J" in lines[1]
    assert "\x1b" not in result.stdout
    assert run(app, "audit", "--user", "nobody").output == ""


@SQLITE
def test_spreadsheets_get_no_formula(app: Flask) -> None:
    keep(app, {"file_id": '=HYPERLINK("x")', "from_path": '/a,"b"\nc'})
    result = run(app, "audit", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert list(row) == list(records.COLUMNS)
    assert row["file_id"] == '\'=HYPERLINK("x")'
    assert row["from_path"] == '/a,"b"\nc'
    assert (row["position"], row["to_path"]) == ("1", "")


@SQLITE
@pytest.mark.parametrize(
    "arguments",
    [
        *(["--since", "yesterday"], ["--until", "2026-13-01"], ["--limit", "0"], ["--limit", "x"]),
        *(["--format", "xml"], ["--type", "move"], ["--colour", "red"]),
    ],
)
def test_wrong_options_of_audit_are_exit_code_2(app: Flask, arguments: list[str]) -> None:
    assert run(app, "audit", *arguments).exit_code == 2


@SQLITE
def test_an_address_that_names_nothing_is_one_line(app: Flask) -> None:
    for arguments in (["--uri", "ftp://my"], ["--user", "42", "--uri", "cloudreve://43@my"]):
        result = run(app, "audit", *arguments)
        assert result.exit_code == 1
        assert result.output.startswith("Error: uri: ")


def flask(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", "wsgi", "events", *arguments]


def environment(url: str) -> dict[str, str]:
    ours = {"EVENTS_DATABASE_URL": url, "EVENTS_JWT_SECRET": SECRET}
    return databases.plain_environment() | ours


@SQLITE
def test_a_reader_that_has_enough_ends_it_quietly(app: Flask, url: str) -> None:
    """As `| head` does: no traceback, no error."""
    keep(app, *({"from_path": f"/{'x' * 200}"} for _ in range(3_000)))
    process = subprocess.Popen(
        flask("audit", "--format", "jsonl"),
        cwd=databases.ROOT,
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["position"] == 3_000
    process.stdout.close()
    complaints = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), complaints) == (0, b"")


@SQLITE
def test_a_bar_is_shown_only_to_a_person_who_waits(app: Flask, url: str, tmp_path: Path) -> None:
    """On a terminal, for a long journal, and when the rows go elsewhere."""
    database = keep(app, {}, {})
    far = records.LONG + 1
    database.write(lambda db: db.execute(update(schema.state).values(last_position=far)))
    terminal, other_end = pty.openpty()
    with (tmp_path / "rows").open("wb") as output:
        done = subprocess.run(
            flask("audit", "--format", "csv"),
            cwd=databases.ROOT,
            env=environment(url),
            stdout=output,
            stderr=other_end,
            check=False,
        )
    os.close(other_end)
    shown = os.read(terminal, 10_000)
    os.close(terminal)
    assert done.returncode == 0, shown
    assert b"reading" in shown
    assert b"%" in shown
    assert run(app, "audit").stderr == "", "no terminal"
    assert len((tmp_path / "rows").read_text().splitlines()) == 3


# Pruning.


def aged(app: Flask, count: int, old: int) -> Database:
    """Journal `count` rows, the first `old` of them two days old."""
    database = keep(app, *({} for _ in range(count)))
    when = database.read(journal.head).now - timedelta(days=2)
    change = update(schema.journal).where(schema.journal.c.position <= old)
    database.write(lambda db: db.execute(change.values(recorded_at=when)))
    return database


def test_prune_removes_what_is_older_in_batches_and_says_so(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PRUNE_ROWS", 2)
    monkeypatch.setattr(upkeep, "BATCH_PAUSE_SECONDS", 0)
    database = aged(app, 7, 5)
    result = run(app, "prune", "--older-than", "1d")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "removed 5 changes; the journal begins at position 6\n"
    assert database.read(rows.positions) == [6, 7]
    assert database.read(journal.head).floor_position == 5
    again = run(app, "prune", "--older-than", "1d")
    assert again.stdout == "nothing is that old; no change goes\n"


def test_a_dry_run_says_the_same_and_removes_nothing(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PRUNABLE_ROWS", 2)
    database = aged(app, 7, 5)
    result = run(app, "prune", "--older-than", "1d", "--dry-run")
    assert result.stdout == "would remove 5 changes; the journal would begin at position 6\n"
    assert database.read(rows.positions) == [1, 2, 3, 4, 5, 6, 7]
    assert database.read(journal.head).floor_position == 0
    assert "nothing" in run(app, "prune", "--older-than", "3d", "--dry-run").stdout


def test_what_is_younger_keeps_all_behind_it(app: Flask) -> None:
    """In a dry run as in pruning: a clock that was set back makes such journals."""
    database = aged(app, 4, 4)
    now = database.read(journal.head).now
    change = update(schema.journal).where(schema.journal.c.position == 2)
    database.write(lambda db: db.execute(change.values(recorded_at=now)))
    for dry in (["--dry-run"], []):
        assert " 1 changes" in run(app, "prune", "--older-than", "1d", *dry).stdout
    assert database.read(rows.positions) == [2, 3, 4]


@SQLITE
@pytest.mark.parametrize("age", ["90", "0d", "-1d", "soon", "999999w", ""])
def test_an_age_that_is_none_is_a_wrong_option(app: Flask, age: str) -> None:
    database = aged(app, 1, 1)
    assert run(app, "prune", "--older-than", age).exit_code == 2
    assert run(app, "prune").exit_code == 2
    assert database.read(rows.positions) == [1]

"""The auditor's page: its questions, asked by the programs that people have, get their answers."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection, make_url

from events_app.database import Database
from tests import conftest, databases, kept, plans
from tests.servers import toolchains
from tests.writers import roles

PAGE = databases.ROOT / "docs" / "how-to" / "audit.md"
DAY = datetime(2026, 11, 20, tzinfo=UTC)


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [str(block).strip() for block in found]


def row(position: int, hour: int, **columns: Any) -> dict[str, Any]:
    return kept.row(position, recorded_at=DAY.replace(hour=hour), **columns)


BEFORE = DAY.replace(day=19)
STORY = [
    kept.row(1, from_path="/docs", is_folder=1, recorded_at=BEFORE),
    kept.row(2, from_path="/docs/plan.md", file_id="f9", recorded_at=BEFORE),
    row(3, 1, type="modify", from_path="/docs/plan.md", file_id="f9", actor_id="7"),
    row(4, 2, user_id="43", from_path="/docs/plan.md", actor_id="7"),
    row(5, 3, type="rename", from_path="/docs/plan.md", to_path="/plan.md", file_id="f9"),
    row(6, 4, type="rename", from_path="/old", to_path="/docs/plan.md", file_id="f8"),
    row(7, 5, type="rename", from_path="/docs/plan.md", to_path="/docs/plan.md", file_id="f8"),
    row(8, 6, user_id="7", from_path="/docs/mine"),
    row(9, 7, from_path="/docs-old/plan.md"),
    row(10, 8, type="delete", from_path="/docs", is_folder=1, actor_id="7"),
    row(11, 9, type="create", from_path="", rejected="from_path is empty"),
    kept.row(12, from_path="/docs0", actor_id="7", recorded_at=DAY.replace(day=21)),
]

# For each question of the page, in its order, the positions that answer it.
ANSWERS = [
    [7, 6, 5, 3, 2],
    [10],
    [7, 6, 5, 3, 2],
    [5, 3, 2],
    [10, 8, 4, 3],
    [11, 10, 9, 7, 6, 5, 3],
    [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
]


def client(url: str) -> list[str]:
    """Return the command of the program that talks to this engine: a row a line, `|` between."""
    at = make_url(url)
    if at.get_backend_name() == "sqlite":
        return [conftest.toolchain("sqlite3"), "-readonly", str(at.database)]
    if at.get_backend_name() == "postgresql":
        psql = conftest.toolchain("psql")
        where = ["-h", str(at.host), "-p", str(at.port), "-U", str(at.username)]
        return [psql, "-X", "-At", "-v", "ON_ERROR_STOP=1", *where, str(at.database)]
    mariadb = conftest.toolchain("mariadb")
    where = [f"--host={at.host}", f"--port={at.port}", f"--user={at.username}"]
    return [mariadb, "--no-defaults", "-N", "-B", *where, str(at.database)]


def ask(url: str, question: str) -> list[list[str]]:
    """Run a question as a person does; its rows as text."""
    at = make_url(url)
    secret = dict.fromkeys(("PGPASSWORD", "MYSQL_PWD"), at.password or "")
    done = subprocess.run(
        client(url),
        input=question,
        env=os.environ | secret | {"PATH": toolchains.path(), "PGTZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [re.split(r"[|\t]", line) for line in done.stdout.splitlines()]


def positions(answer: Sequence[Sequence[str]]) -> list[int]:
    return [int(cells[0]) for cells in answer]


def test_the_questions_of_the_page_are_answered(database: Database, url: str) -> None:
    """By psql, mariadb and sqlite3: the same text, the same rows."""
    kept.keep(database, STORY)
    questions = blocks("sql")
    assert len(questions) == len(ANSWERS)
    for question, expected in zip(questions, ANSWERS, strict=True):
        assert positions(ask(url, question)) == expected, question


def test_what_is_shown_can_be_read(database: Database, url: str) -> None:
    """Times as times, texts as texts, and who did it though nobody was named."""
    kept.keep(database, STORY)
    asked = "SELECT recorded_at, actor, fs, type, from_path, to_path FROM file_event_audit "
    (shown,) = ask(url, f"{asked} WHERE position = 6;")
    assert shown[0].startswith("2026-11-20 04:00:00")
    assert shown[1:] == ["42", "my", "rename", "/old", "/docs/plan.md"]
    (by_another,) = ask(url, f"{asked} WHERE position = 10;")
    assert by_another[1] == "7"


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_indexes_made_beforehand_are_those_of_the_migration(
    url: str, engine: str, tmp_path: Path
) -> None:
    """A large journal gets them CONCURRENTLY; the migration finds nothing left to do."""
    with databases.empty(engine, tmp_path) as by_hand:
        databases.alembic(by_hand, "upgrade", "0001")
        (block,) = blocks("postgresql")
        for statement in roles.statements(block):
            ask(by_hand, f"{statement};")
        databases.alembic(by_hand, "upgrade", "head")
        assert indexes(by_hand) == indexes(url)


def indexes(url: str) -> set[str]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'file_event_journal'"
        )
        return set(found.scalars())


# What a plan must name, for each question of the page: an index, or the order of positions.
SERVED_BY = [
    ("user_from", "user_to"),
    ("user_from", "user_to"),
    ("user_from", "user_to"),
    ("user_",),
    ("user_time", "actor_time"),
    ("user_time",),
    (),
]


@pytest.fixture
def full(database: Database) -> Database:
    """Give a journal of many users, days and paths, of which each question finds a few rows."""
    kept.keep(
        database,
        (
            kept.row(
                n,
                user_id=str(n % 100),
                actor_id=str(n % 90) if n % 10 == 0 else None,
                type="rename" if n % 3 == 0 else "modify",
                from_path=f"/{'docs' if n % 97 == 0 else n % 89}/{n % 50}/{n}",
                to_path=f"/{n % 83}/{n}" if n % 3 == 0 else None,
                recorded_at=DAY.replace(day=1) + timedelta(minutes=6 * n),
            )
            for n in range(1, 8_001)
        ),
    )
    plans.analyze(database)
    return database


def test_an_index_serves_each_question(full: Database) -> None:
    """However large the journal is: nothing reads it from end to end."""
    for question, indexes in zip(blocks("sql"), SERVED_BY, strict=True):
        plan = plans.of(full, partial(Connection.exec_driver_sql, statement=question))
        for index in indexes:
            assert f"file_event_journal_{index}" in plan, question
        if indexes:
            assert plans.WHOLE[full.engine.dialect.name] not in plan, question
        else:
            assert_in_order(full, plan)


def assert_in_order(full: Database, plan: str) -> None:
    """Hold that rows come by position and end with the page, unsorted."""
    name = full.engine.dialect.name
    # SQLite calls it a scan of the table, whose order is that of positions.
    assert (plans.WHOLE if name == "sqlite" else plans.PRIMARY)[name] in plan
    for sorted_by in ("TEMP B-TREE", "Sort", "filesort"):
        assert sorted_by not in plan

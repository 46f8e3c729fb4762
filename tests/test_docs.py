"""The documents say what is so: links lead somewhere, names exist, SQL runs."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import events_app
from events_app import cli, errors, settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PAGES_WITH_SQL = [
    ROOT / "README.md",
    ROOT / "docs/reference/tables.md",
    ROOT / "docs/how-to/operate.md",
    ROOT / "docs/how-to/audit.md",
]
CORE_IDEA = (
    "A change is a row that the app inserts in its own transaction. One mover gives rows their"
    " position; one tailer per worker reads each row once; each connection is a position moving"
    " along them."
)

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the fragments that a page's headings answer to."""
    headings = (heading.strip().lower() for heading in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def sql_statements(page: Path) -> list[str]:
    blocks = (text for _, language, text in _FENCE.findall(page.read_text()) if language == "sql")
    return [statement for block in blocks for statement in split_statements(block)]


def split_statements(block: str) -> Iterator[str]:
    statement = ""
    for line in block.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    assert not statement.strip(), f"not closed by a semicolon: {statement}"


def first_paragraph(page: Path) -> str:
    """Return what stands first below the title, on one line."""
    return " ".join(page.read_text().split("\n\n")[1].split())


def rows_of_table(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    below = page.read_text().split(f"\n## {heading}\n", 1)[1]
    lines = [line for line in below.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """Make a SQLite database by the documented command."""
    path = tmp_path_factory.mktemp("docs") / "events.db"
    environment = {name: value for name, value in os.environ.items() if name[:7] != "EVENTS_"}
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**environment, "EVENTS_DATABASE_URL": f"sqlite:///{path}"},
        check=True,
    )
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    """Every relative link leads to a file, and its fragment to a heading there."""
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        if fragment:
            assert fragment in anchors(target), f"{name_of(page)} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_named_in_documents_exist(page: Path) -> None:
    """Every EVENTS_ name in a document is in the table of settings."""
    known = {setting.name for setting in settings.SETTINGS}
    assert set(re.findall(r"EVENTS_[A-Z][A-Z_]*[A-Z]", page.read_text())) <= known


@pytest.mark.parametrize("page", PAGES_WITH_SQL, ids=name_of)
def test_sql_in_documents_runs(page: Path, migrated: sqlite3.Connection) -> None:
    """Every SQL block runs as it stands on a migrated database."""
    statements = sql_statements(page)
    assert statements
    for statement in statements:
        migrated.execute("BEGIN")
        try:
            migrated.execute(statement).fetchall()
        finally:
            migrated.execute("ROLLBACK")


def test_a_wrong_column_in_a_document_would_be_noticed(migrated: sqlite3.Connection) -> None:
    """The database that documents are checked against does refuse unknown names."""
    with pytest.raises(sqlite3.OperationalError):
        migrated.execute("SELECT no_such_column FROM file_event_journal")


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/architecture.md"], ids=name_of)
def test_pages_open_with_the_core_idea(page: Path) -> None:
    assert first_paragraph(page) == CORE_IDEA


def test_the_package_opens_with_the_core_idea() -> None:
    """After the summary line, the same words."""
    assert " ".join((events_app.__doc__ or "").split("\n\n")[1].split()) == CORE_IDEA


def test_the_module_map_names_every_module() -> None:
    """Architecture's table of modules and the folder are the same list."""
    rows = rows_of_table(ROOT / "docs/architecture.md", "Modules")
    there = {path.stem for path in (ROOT / "events_app").glob("*.py")} - {"__init__"}
    assert sorted(module.strip("`") for _, module, _ in rows) == sorted(there)


def test_the_errors_of_the_protocol_page_are_those_of_the_code() -> None:
    """Status and code of every error that a request can meet are in the table, and no others."""
    rows = rows_of_table(ROOT / "docs/reference/protocol.md", "Errors")
    classes = errors.RequestError.__subclasses__()
    expected = {(str(each.status), str(each.code)) for each in classes}
    assert {(status, code) for _, status, code, _ in rows} == expected


def test_deploy_shows_the_files_that_the_tests_run_nginx_with() -> None:
    """What is copied from the page and what is copied from the folder is the same."""
    page = ROOT / "docs/how-to/deploy.md"
    shown = [text for _, language, text in _FENCE.findall(page.read_text()) if language == "nginx"]
    files = (page.parent / "nginx/events-app.conf", page.parent / "nginx/main.conf")
    assert shown == [file.read_text() for file in files]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_named_in_documents_exist(page: Path) -> None:
    """Every `make …` in a document is a target."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^|\d )make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("command", sorted(cli.commands.commands))
def test_every_command_is_documented_with_its_options(command: str) -> None:
    """Each command has its heading in the reference, and each of its options is named below it."""
    page = (ROOT / "docs/reference/commands.md").read_text()
    section = page.split(f"\n## {command}\n", 1)[1].split("\n## ")[0]
    for parameter in cli.commands.commands[command].params:
        for option in (each for each in parameter.opts if each.startswith("--")):
            assert re.search(rf"^\| `{option}\b", section, re.MULTILINE), option


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_named_in_documents_exist(page: Path) -> None:
    """Every `flask events …` in a document is a command."""
    named = set(re.findall(r"\bflask(?: --app wsgi)? events ([a-z-]+)", page.read_text()))
    assert named <= set(cli.commands.commands)

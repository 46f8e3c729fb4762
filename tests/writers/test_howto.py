"""What the how-to pages show is what the examples hold, and it runs."""

import re
import sqlite3
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests import databases
from tests.writers import programs, roles

PAGES = databases.ROOT / "docs" / "how-to"
EXAMPLES = programs.EXAMPLES

QUOTED = [
    ("write-events-by-http.md", "php/AppendEvents.php"),
    ("write-events-from-php.md", "php/FileEvents.php"),
    ("grants.md", "sql/roles-postgresql.sql"),
    ("grants.md", "sql/grants-postgresql.sql"),
    ("grants.md", "sql/roles-mariadb.sql"),
    ("grants.md", "sql/grants-mariadb.sql"),
    ("tokens.md", "revocation/pyproject.toml"),
    ("tokens.md", "revocation/files_tokens.py"),
]


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of one language, without the indentation of a list."""
    text = (PAGES / page).read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body) for _, body in found]


@pytest.mark.parametrize(("page", "example"), QUOTED)
def test_a_page_quotes_the_example_word_for_word(page: str, example: str) -> None:
    """The tests run the file, people paste the page."""
    language = Path(example).suffix.removeprefix(".")
    assert (EXAMPLES / example).read_text() in blocks(page, language)


def test_the_go_page_quotes_compiled_code_word_for_word() -> None:
    """Go's compiler reads the snippet in a file beside the package."""
    (snippet,) = blocks("write-events-from-go.md", "go")
    compiled = (EXAMPLES / "go" / "fileevents" / "example_test.go").read_text()
    assert textwrap.indent(snippet, "\t") in compiled


@pytest.mark.usefixtures("go")
def test_the_go_module_is_formatted_sound_and_passes_its_tests() -> None:
    """Gofmt, vet and the unit tests, by the versions that go.mod and go.sum pin."""
    for command in (["gofmt", "-l", "."], ["go", "vet", "./..."], ["go", "test", "./..."]):
        done = subprocess.run(
            command,
            cwd=EXAMPLES / "go",
            env=programs.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert command[0] == "go" or done.stdout == ""


def sql_of_the_page() -> list[str]:
    """Return the statements of the SQL page, in order."""
    return roles.statements(";".join(blocks("write-events-from-sql.md", "sql")))


INSERTS = 8


def test_the_sql_page_runs_under_the_apps_role(granted: roles.Roles) -> None:
    """All but its questions to the journal, which the sidecar's role may ask."""
    statements = sql_of_the_page()
    questions = [one for one in statements if one.startswith("SELECT")]
    with granted.engine("app").connect() as connection:
        for statement in statements:
            if statement not in {"BEGIN", "COMMIT", *questions}:
                connection.exec_driver_sql(statement)
        connection.rollback()
    with granted.engine("sidecar").connect() as connection:
        assert len([connection.exec_driver_sql(question) for question in questions]) == 2


def test_the_sql_page_runs_on_sqlite(tmp_path: Path) -> None:
    """The same text, transactions included."""
    file = tmp_path / "events.db"
    databases.alembic(f"sqlite:///{file}", "upgrade", "head")
    connection = sqlite3.connect(file, isolation_level=None)
    connection.executescript((EXAMPLES / "sql" / "files-sqlite.sql").read_text())
    for statement in sql_of_the_page():
        connection.execute(statement)
    (count,) = connection.execute("SELECT COUNT(*) FROM file_event_outbox").fetchone()
    connection.close()
    assert count == len([one for one in sql_of_the_page() if one.startswith("INSERT")]) == INSERTS

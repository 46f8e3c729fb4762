"""The PHP and Go programs of examples/, committing again and again until a soak is over."""

from __future__ import annotations

import threading

import sqlalchemy
from sqlalchemy import make_url

from tests.databases import ROOT
from tests.writers import programs, roles

# Files of one run of a program: each is created, and every other one modified at once.
FILES = 6
PAUSE_SECONDS = 1.5
# Neither program speaks to SQLite as its how-to has it.
ENGINES = ("postgresql", "mariadb")
PROGRAMS = (programs.PHP, programs.GO)


class AppWriter(threading.Thread):
    """Runs one program over and over as a user of its own; keeps what it said it committed."""

    def __init__(self, program: programs.Program, url: str) -> None:
        """Let `program` write into the database at `url`."""
        super().__init__(daemon=True)
        self.user = program.name
        self.committed: list[str] = []
        self.complaints: list[str] = []
        self._program = program
        self._url = make_url(url)
        self._leave = threading.Event()
        self._runs = 0

    def run(self) -> None:
        """Write until `stop`."""
        while not self._leave.is_set():
            self._runs += 1
            done = self._program.run(self._url, self.user, *self._words())
            self.committed += [change["file_id"] for change in done.changes]
            self.complaints += done.complaints.splitlines()
            self._leave.wait(PAUSE_SECONDS)

    def _words(self) -> list[str]:
        words = []
        for number in range(FILES):
            path = f"/{self.user} {self._runs}-{number}.md"
            words += ["create", path]
            words += ["modify", path] if number % 2 else []
        return words

    def stop(self) -> None:
        """Let the last run end."""
        self._leave.set()
        self.join(60)


def make_table(engine: str, url: str) -> None:
    """Make the programs' own table."""
    text = (ROOT / "examples" / "sql" / f"files-{engine}.sql").read_text()
    made = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with made.begin() as connection:
        for statement in roles.statements(text):
            if not statement.startswith("GRANT"):
                connection.exec_driver_sql(statement)

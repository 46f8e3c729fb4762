"""A copy of the program, of which everything can be spoilt that a worker needs to start."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import sqlalchemy

from events_app import revocation, schema
from tests.databases import ROOT
from tests.key_server import OTHER_RSA, RSA, public_pem
from tests.serving import Server, eventually

_LINE = re.compile(r"^\S+ \S+ (?P<process>\d+) (?P<words>[A-Z]+ .*)", re.MULTILINE)
OLD, UPDATED = "old", "updated"


class Program:
    """A copy of the program, its key file, and gunicorn that runs it."""

    def __init__(self, url: str, folder: Path, *, workers: int) -> None:
        self.root = folder / "program"
        self.keys = folder / "keys.pem"
        self.packages = folder / "packages"
        settings = {
            "EVENTS_JWT_ALGORITHM": "RS256",
            "EVENTS_JWT_PUBLIC_KEY_FILE": str(self.keys),
        }
        self.server = Server(
            url, folder / "gunicorn.log", settings, workers=workers, root=self.root
        )
        self.packages.mkdir()
        self.server.environment["PYTHONPATH"] = str(self.packages)
        shutil.copytree(ROOT / "events_app", self.root / "events_app")
        for name in ("gunicorn.conf.py", "wsgi.py"):
            shutil.copy(ROOT / name, self.root)
        self.keys.write_bytes(public_pem(RSA))
        self.write(OLD)

    def write(self, version: str) -> None:
        """Update it: `/healthz` tells which version of three modules its worker runs."""
        for name in ("errors", "sse", "status"):
            text = (ROOT / "events_app" / f"{name}.py").read_text()
            self.module(name).write_text(f"{text}\nTHIS = {version!r}\n")
        text = self.module("status").read_text()
        alive = 'Well(status="ok")'
        assert alive in text
        text = text.replace(alive, 'Well(status=" ".join([errors.THIS, sse.THIS, THIS]))')
        self.module("status").write_text(f"{text}\nfrom events_app import errors, sse\n")

    def module(self, name: str) -> Path:
        """Say where the source of a module is."""
        return self.root / "events_app" / f"{name}.py"

    def runs(self) -> set[str]:
        """Tell which versions answer."""
        answers = [httpx.get(f"{self.server.url}/healthz") for _ in range(10)]
        return set(" ".join(answer.json()["status"] for answer in answers).split())

    def signal(self, number: signal.Signals) -> None:
        """Send its master a signal."""
        assert self.server.process is not None
        self.server.process.send_signal(number)

    def reload(self) -> None:
        """Reload, and return when only new workers are there."""
        old = set(self.server.worker_pids())
        self.signal(signal.SIGHUP)
        eventually(lambda: old.isdisjoint(self.server.worker_pids()), what="only new workers")
        eventually(self.server.is_ready)

    def said(self, words: str) -> int:
        """Count how often its log has these words."""
        return self.server.log.read_text().count(words)

    def which_said(self, *words: str) -> set[int]:
        """Return the process ids of workers that live and have said all this in a line."""
        lines = _LINE.finditer(self.server.log.read_text())
        said = {
            int(line["process"]) for line in lines if all(each in line["words"] for each in words)
        }
        return said & set(self.server.worker_pids())


class Damage(NamedTuple):
    """Something that keeps workers from starting, and what is said of it."""

    name: str
    words: str
    do: Callable[[Program], None]
    undo: Callable[[Program], None]


def break_keys(program: Program) -> None:
    program.keys.write_text("no key at all")


def mend_keys(program: Program) -> None:
    program.keys.write_bytes(public_pem(RSA, OTHER_RSA))


def break_code(program: Program) -> None:
    program.module("tailer").write_text("this is no Python")


def mend_code(program: Program) -> None:
    shutil.copy(ROOT / "events_app" / "tailer.py", program.module("tailer"))


def break_application(program: Program) -> None:
    (program.root / "wsgi.py").write_text("import no_such_module")


def mend_application(program: Program) -> None:
    shutil.copy(ROOT / "wsgi.py", program.root)


def install_half(program: Program) -> None:
    described = program.packages / "files_tokens-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: files-tokens\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[{revocation.GROUP}]\nfiles = files_tokens:ask\n")


def install_the_rest(program: Program) -> None:
    (program.packages / "files_tokens.py").write_text("def ask(claims):\n    return None\n")


def set_schema(program: Program, version: str) -> None:
    engine = sqlalchemy.create_engine(program.server.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        statement = "UPDATE file_event_schema_version SET version_num = :version"
        connection.execute(sqlalchemy.text(statement), {"version": version})


def age_schema(program: Program) -> None:
    set_schema(program, "0001")


def renew_schema(program: Program) -> None:
    set_schema(program, schema.REVISION)


KEYS = Damage("keys", "EVENTS_JWT_PUBLIC_KEY_FILE", break_keys, mend_keys)
CODE = Damage("code", "SyntaxError", break_code, mend_code)
APPLICATION = Damage("application", "no_such_module", break_application, mend_application)
PACKAGE = Damage(
    "package", "entry point files of events_app.tokens", install_half, install_the_rest
)
SCHEMA = Damage("schema", "the tables are of version 0001", age_schema, renew_schema)

"""The example programs, run as their how-to pages say."""

import dataclasses
import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy import URL

from tests.databases import ROOT
from tests.servers import toolchains

EXAMPLES = ROOT / "examples"

Change = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run of a program printed: the committed changes, the complaints, the exit code."""

    changes: list[Change]
    complaints: str
    exit_code: int


@dataclasses.dataclass(frozen=True)
class Program:
    """An example program: how to call it, how it writes an address and an option."""

    name: str

    def start(self, url: URL, user: str, *words: str, **options: str) -> subprocess.Popen[str]:
        """Start it as the role of `url`; `words` are its operations."""
        given = [part for name, value in options.items() for part in (self._option(name), value)]
        return subprocess.Popen(
            [*_command(self.name), *given, self._address(url), user, *words],
            env=environment() | {"DB_USER": str(url.username), "DB_PASSWORD": str(url.password)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, url: URL, user: str, *words: str, **options: str) -> Outcome:
        """Run it to its end."""
        return outcome(self.start(url, user, *words, **options))

    def _option(self, name: str) -> str:
        dashes = "--" if self.name == "php" else "-"
        return dashes + name.replace("_", "-")

    def _address(self, url: URL) -> str:
        is_postgresql = url.get_backend_name() == "postgresql"
        if self.name == "php":
            kind, more = ("pgsql", "") if is_postgresql else ("mysql", ";charset=utf8mb4")
            return f"{kind}:host={url.host};port={url.port};dbname={url.database}{more}"
        if is_postgresql:
            return f"postgres://{url.host}:{url.port}/{url.database}"
        return f"tcp({url.host}:{url.port})/{url.database}"


PHP = Program("php")
GO = Program("go")


def outcome(process: subprocess.Popen[str]) -> Outcome:
    """Wait for the end of a run."""
    printed, complaints = process.communicate()
    changes = [json.loads(line) for line in printed.splitlines()]
    return Outcome(changes, complaints, process.returncode)


def environment() -> dict[str, str]:
    """Copy our environment, with a PATH that finds the toolchains."""
    return os.environ | {"PATH": toolchains.path()}


def _command(name: str) -> list[str]:
    return ["php", str(EXAMPLES / "php" / "demo.php")] if name == "php" else [_built()]


@functools.cache
def _built() -> str:
    """Build the Go program, once; it stays until the tests end."""
    program = Path(_folder().name, "demo")
    subprocess.run(
        ["go", "build", "-mod=readonly", "-o", program, "./cmd/demo"],
        cwd=EXAMPLES / "go",
        env=environment(),
        check=True,
    )
    return str(program)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="events-app-go-")

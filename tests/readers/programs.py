"""The readers that are programs: how to get them ready, once."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.servers import toolchains

HERE = Path(__file__).parent


class MissingError(Exception):
    """A program that a reader needs can't be had; says which and why."""


def curl() -> list[str]:
    """Return the command that reads with curl."""
    return [_program("curl")]


def node() -> list[str]:
    """Return the command that reads with npm's eventsource; installs it by its lock file."""
    folder = HERE / "node"
    packages(folder)
    return [_program("node"), str(folder / "read.mjs")]


def packages(folder: Path) -> Path:
    """Install what the lock file of npm in `folder` names, and return where it is."""
    installed, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        _make([_program("npm"), "ci"], folder)
    return installed.parent


def go(folder: Path) -> list[str]:
    """Return the command that reads with go-sse; builds it into `folder`."""
    reader = str(folder / "reader")
    _make([_program("go"), "build", "-buildvcs=false", "-o", reader, "."], HERE / "go")
    return [reader]


def _program(name: str) -> str:
    found = shutil.which(name, path=toolchains.path())
    if found is None:
        raise MissingError(f"{name} is not installed")
    return found


def _make(command: list[str], folder: Path) -> None:
    environment = os.environ | {"PATH": toolchains.path()}
    made = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise MissingError(f"{' '.join(command)} failed: {made.stderr[-2000:]}")

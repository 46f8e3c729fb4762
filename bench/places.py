"""The databases that are measured: one migrated database of its own for each figure."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import databases

TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}


def engines() -> list[str]:
    """List the engines that there are: SQLite always, the servers where they run."""
    return [name for name in databases.ENGINES if name == "sqlite" or _address(name)]


def missing() -> list[str]:
    """List the engines that cannot be measured here."""
    return [name for name in databases.ENGINES if name not in engines()]


def _address(engine: str) -> str | None:
    return databases.server_address(engine)


@contextlib.contextmanager
def database(engine: str) -> Iterator[str]:
    """Make a migrated database; its URL."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        databases.migrated(engine, Path(folder)) as url,
    ):
        yield url

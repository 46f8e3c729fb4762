"""What tests share: databases, a server, a clock, and the word for what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from events_app.database import Database
from tests import databases, serving
from tests.servers import toolchains

# Two shared cores: an example that is slow for once is no bug. The same examples each time, so that
# what fails on CI fails here; `make test-laws` looks for new ones.
hypothesis.settings.register_profile("default", deadline=None, derandomize=True)
# Every profile has what the one named `default` says, unless it says otherwise.
hypothesis.settings.register_profile(
    "laws", deadline=None, derandomize=False, max_examples=20_000, print_blob=True
)
hypothesis.settings.load_profile("default")


def missing(what: str) -> None:
    """Say loudly that something cannot be tested here; on CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI tests everything")
    pytest.skip(f"{what} is missing: nothing was tested with it")


def need(engine: str) -> None:
    """Go on only where a database of `engine` can be had."""
    if engine != "sqlite" and databases.server_address(engine) is None:
        missing(f"the {engine} server")


def toolchain(name: str) -> str:
    """Return the path of a program that a test needs."""
    path = shutil.which(name, path=toolchains.path())
    if path is None:
        missing(name)
    return str(path)


@pytest.fixture(params=databases.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Name one database engine after the other."""
    name = str(request.param)
    need(name)
    return name


@pytest.fixture
def empty_url(engine: str, tmp_path: Path) -> Iterator[str]:
    """Give an empty database of each engine."""
    with databases.empty(engine, tmp_path) as url:
        yield url


@pytest.fixture
def url(engine: str, tmp_path: Path) -> Iterator[str]:
    """Give a migrated database of each engine."""
    with databases.migrated(engine, tmp_path) as made:
        yield made


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Give a migrated database of each engine, as a worker uses it."""
    made = Database(url)
    yield made
    made.close()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Iterator[str]:
    """Give a migrated SQLite database, where the engine does not matter."""
    with databases.migrated("sqlite", tmp_path) as made:
        yield made


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[serving.Server]:
    """Give a running server with two workers on a database of each engine."""
    with serving.Server(url, tmp_path / "gunicorn.log").running() as running:
        yield running

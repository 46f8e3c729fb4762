"""A database with its roles for each server engine, and a server on it."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.servers import toolchains
from tests.writers import programs, roles, service

ENGINES = {"PostgreSQL": "EVENTS_TEST_POSTGRESQL_URL", "MariaDB": "EVENTS_TEST_MARIADB_URL"}


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing: nothing was tested with it")


@pytest.fixture(scope="session", params=ENGINES)
def database(request: pytest.FixtureRequest) -> Iterator[roles.Roles]:
    """Make a migrated database with the three roles."""
    variable = ENGINES[request.param]
    if variable not in os.environ:
        _missing(f"{request.param} ({variable})")
    with roles.prepared(os.environ[variable]) as made:
        yield made


@pytest.fixture(scope="session")
def server(
    database: roles.Roles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[service.Service]:
    """Serve that database under the sidecar's role."""
    log = tmp_path_factory.mktemp("writers") / "gunicorn.log"
    with service.served(database, log) as running:
        yield running


@pytest.fixture(scope="session")
def php() -> programs.Program:
    """Give the PHP program."""
    return _there(programs.PHP)


@pytest.fixture(scope="session")
def go() -> programs.Program:
    """Give the Go program."""
    return _there(programs.GO)


@pytest.fixture(params=["php", "go"])
def program(request: pytest.FixtureRequest) -> programs.Program:
    """Give one program after the other."""
    one: programs.Program = request.getfixturevalue(request.param)
    return one


def _there(program: programs.Program) -> programs.Program:
    if shutil.which(program.name, path=toolchains.path()) is None:
        _missing(program.name)
    return program

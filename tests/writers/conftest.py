"""A database with its roles on each server engine, a server on it, and the programs."""

from collections.abc import Iterator

import pytest

from tests import conftest, databases, serving
from tests.writers import programs, roles


@pytest.fixture(scope="session", params=["postgresql", "mariadb"])
def granted(request: pytest.FixtureRequest) -> Iterator[roles.Roles]:
    """Make a migrated database with its roles."""
    conftest.need(request.param)
    with roles.prepared(str(databases.server_address(request.param))) as made:
        yield made


@pytest.fixture(scope="session")
def sidecar(
    granted: roles.Roles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[serving.Server]:
    """Serve that database under the sidecar's role.

    A listener that is told to stop looks up at its next frame, so keep-alives are frequent.
    """
    log = tmp_path_factory.mktemp("writers") / "gunicorn.log"
    settings = {"EVENTS_KEEP_ALIVE": "0.2"}
    with serving.Server(granted.address("sidecar"), log, settings).running() as running:
        yield running


@pytest.fixture(scope="session")
def php() -> programs.Program:
    """Give the PHP program."""
    conftest.toolchain("php")
    return programs.PHP


@pytest.fixture(scope="session")
def go() -> programs.Program:
    """Give the Go program."""
    conftest.toolchain("go")
    return programs.GO


@pytest.fixture(params=["php", "go"])
def program(request: pytest.FixtureRequest) -> programs.Program:
    """Give one program after the other."""
    one: programs.Program = request.getfixturevalue(request.param)
    return one

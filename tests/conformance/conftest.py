"""The server under test: the one that the environment names, or ours."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from tests import databases
from tests.conformance import subject
from tests.conformance.subject import Subject
from tests.serving import Server

SETTINGS = {"EVENTS_KEEP_ALIVE": "2", "EVENTS_DEBOUNCE": "0.2", "EVENTS_DEBOUNCE_MAX": "1"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """Give the server that is held to the protocol."""
    if url := os.environ.get("CONFORMANCE_URL"):
        tokens = {"me": "CONFORMANCE_TOKEN", "other": "CONFORMANCE_OTHER_TOKEN"}
        yield Subject(url.rstrip("/"), {name: os.environ[key] for name, key in tokens.items()})
        return
    place = tmp_path_factory.mktemp("conformance")
    with (
        databases.migrated("sqlite", place) as database,
        Server(database, place / "gunicorn.log", SETTINGS).running() as ours,
    ):
        yield Subject(ours.url, {"me": ours.token("42"), "other": ours.token("43")})


@pytest.fixture
def path() -> str:
    """Give a folder of this test's own."""
    return subject.folder()


@pytest.fixture
def uri(path: str) -> str:
    """Give the folder's URI."""
    return f"cloudreve://my{path}"


@pytest.fixture
def client() -> str:
    """Give a client id of this test's own."""
    return str(uuid.uuid4())

"""One migrated database for each engine and test run, emptied for each test.

Migrating takes a second or two; a test that changes no table can do with a database that others
used before it.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import delete, update

from events_app import schema
from tests import databases

# Below the present time, so that an epoch that is raised is above it.
EPOCH = 1_000_000_000

_URLS = pytest.StashKey[dict[str, str]]()


def url(request: pytest.FixtureRequest, engine: str) -> str:
    """Return the URL of the emptied database of `engine`; it goes when the test run ends."""
    stash = request.config.stash
    if _URLS not in stash:
        stash[_URLS] = {}
    urls = stash[_URLS]
    if engine not in urls:
        stack = contextlib.ExitStack()
        request.config.add_cleanup(stack.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls[engine] = stack.enter_context(databases.migrated(engine, folder))
    empty(urls[engine])
    return urls[engine]


@pytest.fixture
def on_each_engine(request: pytest.FixtureRequest, engine: str) -> str:
    """Give the emptied database of each engine, to modules that say so: `url = …`."""
    return url(request, engine)


@pytest.fixture
def on_sqlite(request: pytest.FixtureRequest) -> str:
    """Give the emptied SQLite database, to modules for which the engine does not matter."""
    return url(request, "sqlite")


def empty(at: str) -> None:
    """Remove every row and begin at position 0 again."""
    engine = sqlalchemy.create_engine(at, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for table in (schema.outbox, schema.journal, schema.subscription, schema.grant):
            connection.execute(delete(table))
        connection.execute(
            update(schema.state).values(last_position=0, floor_position=0, epoch=EPOCH)
        )

"""A folder that somebody else shares, on real gunicorn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy
from sqlalchemy import delete, insert

from events_app.schema import grant
from tests.frames import Reader
from tests.serving import Server

SHARE = "cloudreve://xY3@share"
GUEST = "43"
CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
# The look every two seconds, on a busy machine.
REVOKED_WITHIN_SECONDS = 10


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[Server]:
    with Server(url, tmp_path / "gunicorn.log").running() as running:
        yield running


def share(server: Server, **columns: object) -> None:
    values = {"share_id": "xY3", "user_id": GUEST, "owner_id": "42", "path": "/docs"}
    run(server, insert(grant).values({**values, "is_folder": 1, **columns}))


def run(server: Server, statement: sqlalchemy.Executable) -> None:
    engine = sqlalchemy.create_engine(server.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(statement)


def told(reader: Reader) -> list[tuple[str, str, str]]:
    return [(each["type"], each["from"], each["to"]) for each in reader.changes(1)]


def asked(server: Server, door: str, user: str = GUEST) -> int:
    query = f"{door}?uri={quote(SHARE)}"
    with httpx.stream("GET", server.events_url + query, headers=server.headers(user)) as answer:
        return answer.status_code


def test_a_guest_follows_a_share_until_its_grant_is_gone(server: Server) -> None:
    assert {asked(server, door) for door in ("", "/changes")} == {403}
    share(server)
    with Reader(server, GUEST, CLIENT, SHARE) as reader:
        reader.expect("subscribed")
        server.append("create", "/secret")
        server.append("create", "/docs/a")
        assert told(reader) == [("create", "/a", "")]
        server.append("rename", "/docs/a", "/secret-too/a", file_id="f-/docs/a")
        assert told(reader) == [("delete", "/a", "")]
    server.append("create", "/docs/missed")
    with Reader(server, GUEST, CLIENT, SHARE) as reader:
        reader.expect("resumed")
        # What was not confirmed yet comes again, in parts where the worker has not read all of it.
        heard: list[tuple[str, str, str]] = []
        while ("create", "/missed", "") not in heard:
            heard += told(reader)
        assert heard[-2:] == [("delete", "/a", ""), ("create", "/missed", "")]
        assert heard[:-2] in ([], [("create", "/a", "")])
        run(server, delete(grant))
        reader.expect("reconnect-required", seconds=REVOKED_WITHIN_SECONDS)
        server.append("create", "/docs/after")
        assert reader.frame() is None
    assert {asked(server, door) for door in ("", "/changes")} == {403}
    share(server)
    with Reader(server, GUEST, CLIENT, SHARE) as reader:
        reader.expect("subscribed")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("columns", [{"is_folder": 0}, {"user_id": "44"}, {"share_id": "xy3"}])
def test_what_was_not_granted_is_403_at_every_door(
    server: Server, columns: dict[str, object]
) -> None:
    share(server, **columns)
    assert {asked(server, door) for door in ("", "/changes")} == {403}

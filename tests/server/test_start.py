"""A start that cannot succeed says so and ends; one that may succeed later waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from tests.serving import Server, eventually, free_port


def elsewhere(url: str) -> URL:
    """Point to a port where nobody is."""
    return make_url(url).set(port=free_port())


def started(url: URL, log: Path) -> Server:
    server = Server(url.render_as_string(hide_password=False), log, workers=1)
    server.start(ready=False)
    return server


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("wrong", [{"password": "s3cret-but-wrong"}, {"username": "nobody"}])
def test_a_login_that_is_refused_stops_the_start_with_the_reason(
    url: str, tmp_path: Path, wrong: dict[str, str]
) -> None:
    address = make_url(url).set(**wrong)  # type: ignore[arg-type] # two of its text parts
    server = started(address, tmp_path / "gunicorn.log")
    process = server.process
    assert process is not None
    try:
        assert process.wait(30) != 0
    finally:
        server.stop()
    said = server.log.read_text()
    assert f"{address.username}:***@127.0.0.1:{address.port}" in said
    assert "refuses: " in said
    assert str(address.password) not in said


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
def test_a_database_that_is_not_there_is_waited_for(url: str, tmp_path: Path) -> None:
    server = started(elsewhere(url), tmp_path / "gunicorn.log")
    try:
        eventually(lambda: "is away, streams are held" in server.log.read_text())
        assert server.process is not None
        assert server.process.poll() is None
    finally:
        server.stop()
    assert str(make_url(url).password) not in server.log.read_text()

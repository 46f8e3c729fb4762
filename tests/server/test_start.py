"""A start that cannot succeed says so and ends; one that may succeed later waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from gunicorn.arbiter import Arbiter
from sqlalchemy import URL, make_url

from events_app import revocation
from tests.serving import Server, eventually, free_port


def elsewhere(url: str) -> URL:
    """Point to a port where nobody is."""
    return make_url(url).set(port=free_port())


def started(url: URL, log: Path) -> Server:
    server = Server(url.render_as_string(hide_password=False), log, workers=1)
    server.start(ready=False)
    return server


def says_why_it_ends(server: Server, status: int = Arbiter.APP_LOAD_ERROR) -> str:
    """Start it, and return what it wrote until it ended by itself, with this exit status."""
    server.start(ready=False)
    process = server.process
    assert process is not None
    try:
        assert process.wait(30) == status
    finally:
        server.stop()
    return server.log.read_text()


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("wrong", [{"password": "s3cret-but-wrong"}, {"username": "nobody"}])
def test_a_login_that_is_refused_stops_the_start_with_the_reason(
    url: str, tmp_path: Path, wrong: dict[str, str]
) -> None:
    address = make_url(url).set(**wrong)  # type: ignore[arg-type] # two of its text parts
    text = address.render_as_string(hide_password=False)
    said = says_why_it_ends(Server(text, tmp_path / "gunicorn.log", workers=1))
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


def test_a_key_file_without_a_key_stops_the_start(tmp_path: Path) -> None:
    """It does not start one worker after the other; and of several one says what all find."""
    pem = tmp_path / "key.pem"
    pem.write_text("no key")
    settings = {"EVENTS_JWT_ALGORITHM": "RS256", "EVENTS_JWT_PUBLIC_KEY_FILE": str(pem)}
    server = Server("sqlite:///var/never-opened.db", tmp_path / "log", settings, workers=3)
    said = says_why_it_ends(server)
    assert said.count("EVENTS_JWT_PUBLIC_KEY_FILE holds no public key in PEM form") == 1
    assert "Traceback" not in said


def test_a_package_that_cannot_be_asked_stops_the_start(tmp_path: Path) -> None:
    described = tmp_path / "installed" / "files_tokens-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: files-tokens\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[{revocation.GROUP}]\nfiles = no_such_module:x\n")
    server = Server("sqlite:///var/never-opened.db", tmp_path / "log", workers=1)
    server.environment["PYTHONPATH"] = str(described.parent)
    said = says_why_it_ends(server)
    assert said.count(f"the entry point files of {revocation.GROUP} cannot be loaded") == 1
    assert "no_such_module" in said


def test_what_nobody_foresaw_stops_the_start_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = Server("sqlite:///var/never-opened.db", log, application="no_such_module:app")
    said = says_why_it_ends(server, Arbiter.WORKER_BOOT_ERROR)
    assert said.count("ModuleNotFoundError: No module named 'no_such_module'") == 1

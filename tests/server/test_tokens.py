"""Tokens as real workers verify them: a key server that fails, an app that revokes, cookies."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import sqlalchemy

from tests import databases, key_server
from tests.frames import Reader
from tests.key_server import OTHER_RSA, RSA, KeyServer, public_pem, signed_by
from tests.serving import EVENTS_PATH, Server, eventually, free_port

EXAMPLE = databases.ROOT / "examples" / "revocation"
RECHECK_SECONDS = 0.2
STRANGERS = 50
ORIGIN = "https://files.example"

UNAUTHORIZED, UNFORESEEN = (401, 401), (500, 50005)
# The token is good, and what is looked at next is not.
GOOD = (400, 40001)


# One for all: each of its own would read the system's certificates first.
CLIENT = httpx.Client(timeout=20)


def ask(server: Server, headers: dict[str, str]) -> tuple[int, int]:
    """Return status and code of a request for what is no folder: no stream begins."""
    answer = CLIENT.get(server.events_url, headers=headers, params={"uri": "cloudreve://trash"})
    return answer.status_code, answer.json()["code"]


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


# -- a key server that fails ---------------------------------------------------------------------


def verifying_by(jwks_url: str, url: str, log: Path) -> Server:
    """Make a server with one worker, so that the fetches can be counted."""
    settings = {"EVENTS_JWT_ALGORITHM": "RS256", "EVENTS_JWT_JWKS_URL": jwks_url}
    return Server(url, log, settings, workers=1)


def opens(server: Server, token: str) -> None:
    """Open a stream with a token and hear its first frame."""
    with Reader(server, token=token) as reader:
        reader.expect("subscribed")


def test_a_key_server_that_never_answers_holds_up_nobody_whose_key_is_known(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Made-up key ids cost one fetch, and not one each; a key that appears needs no restart."""
    with (
        KeyServer(key_server.jwks(key_server.jwk(RSA, "one"))) as keys,
        verifying_by(keys.url, sqlite_url, tmp_path / "gunicorn.log").running() as server,
    ):
        opens(server, signed_by(RSA, "one"))
        assert len(keys.asked) == 1
        keys.drips = True
        with ThreadPoolExecutor(STRANGERS) as pool:
            made_up = [bearer(signed_by(OTHER_RSA, f"made up {n}")) for n in range(STRANGERS)]
            waiting = [pool.submit(ask, server, each) for each in made_up]
            eventually(lambda: len(keys.asked) == 2)
            opens(server, signed_by(RSA, "one"))
            assert not any(each.done() for each in waiting), "they wait, and it did not"
            assert {each.result() for each in waiting} == {UNFORESEEN}, "nobody can tell"
        assert len(keys.asked) <= 3, "one for all of them, and at most one that was due anyway"
        assert server.log.read_text().count("ERROR events_app.jwks") == 1
        keys.drips = False
        keys.offer(key_server.jwk(OTHER_RSA, "two"))
        new = bearer(signed_by(OTHER_RSA, "two"))
        # Soon: what failed is tried again every few seconds, and an unknown id alone after 30.
        eventually(lambda: ask(server, new) == GOOD, 25)
        assert ask(server, bearer(signed_by(RSA, "one"))) == UNAUTHORIZED, "it was taken back"


def test_a_key_server_that_is_away_at_the_start_is_waited_for(
    sqlite_url: str, tmp_path: Path
) -> None:
    """And one that goes away later changes nothing for known keys."""
    port = free_port()
    server = verifying_by(f"http://127.0.0.1:{port}/keys", sqlite_url, tmp_path / "gunicorn.log")
    token = signed_by(RSA, "one")
    with server.running():
        assert ask(server, bearer(token)) == UNFORESEEN
        with KeyServer(key_server.jwks(key_server.jwk(RSA, "one")), port) as keys:
            eventually(lambda: keys.asked)
            opens(server, token)
        opens(server, token)
        assert ask(server, bearer(signed_by(OTHER_RSA, "one"))) == UNAUTHORIZED


def test_a_reload_reads_the_key_file_again(sqlite_url: str, tmp_path: Path) -> None:
    """During a rotation two keys are good, and nobody is refused meanwhile."""
    pem = tmp_path / "keys.pem"
    pem.write_bytes(public_pem(RSA))
    settings = {"EVENTS_JWT_ALGORITHM": "RS256", "EVENTS_JWT_PUBLIC_KEY_FILE": str(pem)}
    old, new = bearer(signed_by(RSA)), bearer(signed_by(OTHER_RSA))
    with Server(sqlite_url, tmp_path / "log", settings).running() as server:
        assert (ask(server, old), ask(server, new)) == (GOOD, UNAUTHORIZED)
        pem.write_bytes(public_pem(RSA, OTHER_RSA))
        assert server.process is not None
        before = set(server.worker_pids())
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not before & set(server.worker_pids()))
        eventually(server.is_ready)
        assert (ask(server, old), ask(server, new)) == (GOOD, GOOD)


# -- an app that revokes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example as an app would; it is built from a copy, for building leaves files."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(EXAMPLE, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    options = ["--no-index", "--no-deps", "--no-build-isolation"]
    places = ["--target", str(folder / "installed"), str(folder / "source")]
    subprocess.run([*pip, *options, *places], check=True, timeout=120)
    return folder / "installed"


class FilesApp:
    """The database of an app that revokes tokens."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'files.db'}"
        self._engine = sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.NullPool)
        self.run("CREATE TABLE revoked_token (jti TEXT PRIMARY KEY, reason TEXT NOT NULL)")

    def run(self, statement: str, **values: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement), values)

    def revoke(self, jti: str) -> None:
        self.run("INSERT INTO revoked_token VALUES (:jti, 'its user signed out')", jti=jti)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FilesApp:
    return FilesApp(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def asking(
    tmp_path_factory: pytest.TempPathFactory, package: Path, files: FilesApp
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("asking")
    settings = {"EVENTS_TOKEN_RECHECK": str(RECHECK_SECONDS)}
    with databases.migrated("sqlite", folder) as url:
        server = Server(url, folder / "gunicorn.log", settings)
        server.environment |= {"PYTHONPATH": str(package), "FILES_DATABASE_URL": files.url}
        with server.running():
            yield server


def test_a_stream_ends_when_its_token_is_revoked_and_its_client_is_refused(
    asking: Server, files: FilesApp
) -> None:
    gone, good = asking.token(jti="gone"), asking.token(jti="good")
    with Reader(asking, token=gone) as reader, Reader(asking, token=good) as other:
        reader.expect("subscribed")
        other.expect("subscribed")
        files.revoke("gone")
        reader.expect("reconnect-required", seconds=5)
        assert reader.frame() is None, "a clean end"
        assert ask(asking, bearer(gone)) == UNAUTHORIZED
        asking.append("create", "/a")
        assert [each["from"] for each in other.changes(1)] == ["/a"]
    assert ask(asking, bearer(asking.token())) == UNAUTHORIZED, "it has no jti"
    log = asking.log.read_text()
    assert "reason=token_revoked" in log
    assert gone not in log


def test_while_the_app_cannot_be_asked_open_streams_stay_and_new_ones_are_not_begun(
    asking: Server, files: FilesApp
) -> None:
    token = asking.token(jti="fine")
    with Reader(asking, token=token) as reader:
        reader.expect("subscribed")
        files.run("ALTER TABLE revoked_token RENAME TO elsewhere")
        assert ask(asking, bearer(token)) == UNFORESEEN
        eventually(lambda: "WARNING events_app.revocation" in asking.log.read_text())
        asking.append("create", "/b")
        assert [each["from"] for each in reader.changes(1)] == ["/b"]
        files.run("ALTER TABLE elsewhere RENAME TO revoked_token")
        files.revoke("fine")
        reader.expect("reconnect-required", seconds=5)


# -- cookies, and two tokens at once -------------------------------------------------------------


@pytest.fixture(scope="module")
def open_to_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pages")
    settings = {"EVENTS_TOKEN_IN_COOKIE": "true", "EVENTS_CORS_ORIGINS": ORIGIN}
    with databases.migrated("sqlite", folder) as url:
        server = Server(url, folder / "gunicorn.log", settings)
        server.environment["GUNICORN_CMD_ARGS"] = "--access-logfile - --log-level debug"
        with server.running():
            yield server


def heads(server: Server, *lines: str) -> list[str]:
    """Send a request with these header lines; return the lines of the answer's head."""
    request = "".join(f"{line}\r\n" for line in lines)
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(f"GET {EVENTS_PATH} HTTP/1.1\r\nHost: x\r\n{request}\r\n".encode())
        connection.settimeout(10)
        found = []
        while line := answer.readline().decode().rstrip():
            found.append(line)
        connection.shutdown(socket.SHUT_RDWR)
    return found


def test_a_page_of_an_allowed_origin_reads_by_cookie(open_to_pages: Server) -> None:
    token = open_to_pages.token()
    status, *head = heads(
        open_to_pages, f"Cookie: theme=dark; access_token_cookie={token}", f"Origin: {ORIGIN}"
    )
    assert status == "HTTP/1.1 200 OK"
    assert f"Access-Control-Allow-Origin: {ORIGIN}" in head
    assert "Access-Control-Allow-Credentials: true" in head
    status, *head = heads(
        open_to_pages, f"Cookie: access_token_cookie={token}", "Origin: https://evil.example"
    )
    assert not [line for line in head if line.lower().startswith("access-control")]


def test_no_token_of_a_cookie_reaches_the_log(open_to_pages: Server) -> None:
    token = open_to_pages.token()
    for line in (
        f"Cookie: access_token_cookie={token}",
        f"Cookie : access_token_cookie={token}",
        f"Cookie: access_token_cookie={token}x",
        f"access_token_cookie={token}",
        f"Cookie\0: {token}",
    ):
        heads(open_to_pages, line)
    log = open_to_pages.log.read_text()
    assert "Invalid HTTP Header" in log
    for part in token.split("."):
        assert part not in log


def test_two_headers_with_tokens_are_one_too_many(open_to_pages: Server) -> None:
    """A proxy and a server behind it might each take another one."""
    token = open_to_pages.token()
    for second in (token, open_to_pages.token("43"), "x"):
        status, *_ = heads(
            open_to_pages,
            f"Authorization: Bearer {token}",
            f"Authorization: Bearer {second}",
            f"Cookie: access_token_cookie={token}",
        )
        assert status.split()[1] == "401"

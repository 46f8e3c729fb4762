"""The stream through a real nginx, with the configuration that we ship, over TLS.

The tests of delivery and of planned ends are those of gunicorn alone, run here through nginx. The
database is SQLite: what a proxy does to a stream does not depend on it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy

from events_app import schema, settings, uri
from tests import conftest, databases
from tests.frames import Reader
from tests.server import test_shutdown, test_stream
from tests.server.harness_client import Client
from tests.server.harness_nginx import Nginx, Proxied, is_gone
from tests.serving import EVENTS_PATH, Server, eventually

SOON_SECONDS = 1.0
CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"

Start = Callable[..., Proxied]


@contextlib.contextmanager
def starting(url: str) -> Iterator[Start]:
    """Give what starts a server behind nginx; `changes` are to nginx's files."""
    program = conftest.toolchain("nginx")
    with contextlib.ExitStack() as stack:
        # Not pytest's folder: a socket's path is at most 107 bytes, and nginx's user gets here.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="events-app-nginx-")))
        folder.chmod(0o755)

        def start(
            changes: dict[str, str] | None = None, workers: int = 2, **settings: str
        ) -> Proxied:
            server = Proxied(url, Nginx(program, folder, changes), settings, workers)
            return stack.enter_context(server.running())

        yield start


@pytest.fixture
def start(sqlite_url: str) -> Iterator[Start]:
    """Start a server of the test's own."""
    with starting(sqlite_url) as begin:
        yield begin


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Run one server for all tests that say nothing of its settings."""
    with (
        databases.migrated("sqlite", tmp_path_factory.mktemp("shared")) as url,
        starting(url) as begin,
    ):
        yield begin()


@pytest.fixture
def server(shared: Proxied) -> Proxied:
    """Let the server know no client of an earlier test."""
    engine = sqlalchemy.create_engine(shared.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(schema.subscription.delete())
    return shared


@pytest.fixture
def draining(start: Start) -> Proxied:
    """Run a server behind nginx that spreads its ends over a second."""
    return start(EVENTS_DRAIN=str(test_shutdown.DRAIN_SECONDS))


# -- as without nginx --------------------------------------------------------------------------

test_a_change_reaches_the_clients_that_did_not_make_it = (
    test_stream.test_a_change_reaches_the_clients_that_did_not_make_it
)
test_a_known_client_resumes_after_a_restart_with_what_it_missed = (
    test_stream.test_a_known_client_resumes_after_a_restart_with_what_it_missed
)
test_last_event_id_resumes_exactly = test_stream.test_last_event_id_resumes_exactly
test_a_stop_tells_every_stream_and_ends_it_cleanly_in_time = (
    test_shutdown.test_a_stop_tells_every_stream_and_ends_it_cleanly_in_time
)
test_a_reload_ends_the_streams_cleanly_while_the_socket_keeps_accepting = (
    test_shutdown.test_a_reload_ends_the_streams_cleanly_while_the_socket_keeps_accepting
)
test_a_client_that_follows_a_reload_hears_everything_that_happens_during_it = (
    test_shutdown.test_a_client_that_follows_a_reload_hears_everything_that_happens_during_it
)


# -- what only a proxy can spoil ---------------------------------------------------------------


def seconds_to_first_frame(server: Server, stack: contextlib.ExitStack) -> float:
    asked_at = time.monotonic()
    stack.enter_context(Reader(server)).expect("subscribed")
    return time.monotonic() - asked_at


def test_every_first_frame_comes_within_a_second(server: Proxied) -> None:
    """Also that of the second client that asks the same: no cache makes it wait."""
    with contextlib.ExitStack() as stack:
        assert max(seconds_to_first_frame(server, stack) for _ in range(3)) < SOON_SECONDS


def test_a_change_comes_within_a_second_of_its_commit_while_the_stream_is_open(
    server: Proxied,
) -> None:
    """Nothing collects what is small, and silence between keep-alives (1 s) ends nothing."""
    with Reader(server) as reader:
        reader.expect("subscribed")
        for number in range(3):
            reader.expect("keep-alive")
            server.append("create", f"/{number}")
            committed_at = time.monotonic()
            assert [each["from"] for each in reader.changes(1)] == [f"/{number}"]
            assert time.monotonic() - committed_at < SOON_SECONDS


def test_our_header_alone_keeps_nginx_from_buffering(start: Start) -> None:
    """For whoever did not take our file."""
    server = start({"proxy_buffering off;": "proxy_buffering on; proxy_ignore_headers Expires;"})
    with Reader(server) as reader:
        reader.expect("subscribed", seconds=SOON_SECONDS)
        server.append("create", "/a")
        assert reader.changes(1, seconds=SOON_SECONDS)[0]["from"] == "/a"


def open_streams(server: Server) -> int:
    """Count the streams of the one worker."""
    text = httpx.get(f"{server.url}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("events_streams{")]
    return int(float(line.split()[1]))


@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)], ids=["closed", "reset"])
def test_a_client_that_leaves_is_seen_by_the_worker(start: Start, linger: bytes | None) -> None:
    """Nothing is written to it meanwhile: the next keep-alive is an hour away."""
    server = start(workers=1, EVENTS_KEEP_ALIVE="3600")
    with Reader(server) as stays:
        stays.expect("subscribed")
        with Reader(server) as leaves:
            leaves.expect("subscribed")
            assert open_streams(server) == 2
            if linger is not None:
                leaves.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        eventually(lambda: open_streams(server) == 1, SOON_SECONDS, "the stream has ended")
        server.append("create", "/a")
        assert stays.changes(1)[0]["from"] == "/a"


def test_a_stream_that_breaks_does_not_look_like_one_that_ends(server: Proxied) -> None:
    with Reader(server, client_id=CLIENT) as reader:
        reader.expect("subscribed")
        reader.expect("keep-alive")
        for worker in server.worker_pids():
            os.kill(worker, signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionError)):
            reader.expect("event")
    server.append("create", "/missed")
    with Reader(server, client_id=CLIENT) as reader:
        reader.expect("resumed")
        assert reader.changes(1)[0]["from"] == "/missed"


def test_a_refusal_comes_through_as_it_is(start: Start) -> None:
    server = start(workers=1, EVENTS_MAX_STREAMS_PER_USER="1")
    with Reader(server) as first:
        first.expect("subscribed")
        refused = httpx.get(server.events_url, headers=server.headers(), verify=server.nginx.trust)
    assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert refused.json()["code"] == 429
    assert int(refused.headers["Retry-After"]) > 0


def test_the_longest_folder_gets_through(server: Proxied) -> None:
    """Every byte of the folder is escaped in it, and its escapes are escaped in the query."""
    folder = "/a" + "é" * 2_046
    assert len(f"{folder}/a".encode()) == uri.MAX_PATH_BYTES
    with Reader(server, uri=f"cloudreve://my{quote(folder)}") as reader:
        assert reader.status == httpx.codes.OK, reader.head
        reader.expect("subscribed")
        server.append("create", f"{folder}/a", file_id="f")
        assert reader.changes(1)[0]["from"] == "/a"


def test_the_longest_batch_gets_through(server: Proxied) -> None:
    line = b'{"type":"create","file_id":"f","from":"/a"}\n'
    most = settings.Settings().append_max_bytes
    body = line + b" " * (most - len(line))
    headers = server.headers() | {"Content-Type": "application/x-ndjson"}
    for content, status, code in ((body, 201, 0), (body + b" ", 413, 413)):
        answer = httpx.post(
            server.events_url,
            content=content,
            headers=headers,
            verify=server.nginx.trust,
            timeout=30,
        )
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_pages_and_history_get_through(server: Proxied) -> None:
    """A page that is waited for outlasts what others let a request take."""
    headers = server.headers("nobody else")
    with httpx.Client(verify=server.nginx.trust, headers=headers) as client:
        cursor = client.get(f"{server.events_url}/changes").json()["data"]["cursor"]
        page = client.get(f"{server.events_url}/changes", params={"cursor": cursor, "wait": "1"})
        past = client.get(f"{server.events_url}/history")
        assert page.json()["data"]["events"] == past.json()["data"]["events"] == []
        assert client.get(f"{server.events_url}x").status_code == httpx.codes.NOT_FOUND


@pytest.mark.parametrize("path", ["/console", "/metrics", "/healthz", "/readyz"])
def test_what_is_for_those_who_run_it_is_not_published(server: Proxied, path: str) -> None:
    """It is there, and nginx does not let it through."""
    assert httpx.get(server.url + path).status_code == httpx.codes.OK
    published = httpx.get(server.nginx.url + path, verify=server.nginx.trust)
    assert published.status_code == httpx.codes.NOT_FOUND
    assert "nginx" in published.text


def test_no_log_holds_a_token_of_the_query(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stream that breaks, one that ends, and one that meets nobody behind nginx."""
    server = start(EVENTS_TOKEN_IN_QUERY="true")
    token = server.token()
    query = f"&access_token={token}"
    monkeypatch.setattr(server, "headers", lambda *_: {})
    process = server.process
    assert process is not None
    with Reader(server, query=query) as reader:
        reader.expect("subscribed")
        for worker in server.worker_pids():
            os.kill(worker, signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionError)):
            reader.expect("event")
    eventually(server.is_ready)
    with Reader(server, query=query) as reader:
        reader.expect("subscribed")
        process.terminate()
        reader.expect("reconnect-required")
    process.wait(20)
    with Reader(server, query=query) as reader:
        assert reader.status == httpx.codes.BAD_GATEWAY
    eventually(lambda: len(server.nginx.access_log.read_text().splitlines()) == 3)
    logs = {log.name: log.read_text() for log in server.nginx.folder.glob("*.log")}
    assert [name for name, text in logs.items() if token in text] == []
    assert f'"GET {EVENTS_PATH}" 502 502' in logs["events-app.log"]


# -- a reload of nginx -------------------------------------------------------------------------


def test_a_reload_of_nginx_and_then_of_events_app_ends_every_stream_cleanly(
    draining: Proxied,
) -> None:
    """In this order the clients come back to the new workers of both."""
    with contextlib.ExitStack() as stack:
        readers = test_shutdown.open_streams(draining, stack)
        old = draining.nginx.reload()
        ends = test_shutdown.reload(draining, readers)
        test_shutdown.assert_clean(ends)
        test_shutdown.assert_goes_on(draining, ends)
        eventually(lambda: all(map(is_gone, old)), what="nginx's old workers end")


def test_after_a_reload_of_nginx_old_streams_last_for_a_while_and_nothing_is_lost(
    start: Start,
) -> None:
    """Its old workers break them off in the end: the client comes back by its stored cursor."""
    server = start({"worker_shutdown_timeout 30s": "worker_shutdown_timeout 2s"})
    with Reader(server, client_id=CLIENT) as reader:
        reader.expect("subscribed")
        server.nginx.reload()
        server.append("create", "/still")
        assert reader.changes(1)[0]["from"] == "/still"
        with pytest.raises((EOFError, ConnectionError)):
            reader.expect("event")
    server.append("create", "/missed")
    with Reader(server, client_id=CLIENT) as reader:
        reader.expect("resumed")
        told = test_shutdown.told_until(reader, "/missed")
    assert told in (["/missed"], ["/still", "/missed"])


def test_a_client_that_follows_reloads_of_nginx_hears_everything_that_happens_meanwhile(
    start: Start,
) -> None:
    server = start({"worker_shutdown_timeout 30s": "worker_shutdown_timeout 100ms"})
    clients = [Client([server], "42"), Client([server], "42", client_id=CLIENT, by_event_id=False)]
    for client in clients:
        client.start()
        assert client.begun.wait(20)
    count = 40
    for number in range(count):
        if number % 20 == 10:
            server.nginx.reload()
        server.append("create", f"/{number}")
        time.sleep(0.05)  # the load: changes come all through both reloads
    for client in clients:
        client.finish_at(count)
        client.join(20)
        assert client.faults == []
        assert client.position == count
        assert client.connections > 2
        told = dict.fromkeys(file_id for claim in client.claims for file_id in claim.file_ids)
        assert list(told) == [f"f-/{number}" for number in range(count)]

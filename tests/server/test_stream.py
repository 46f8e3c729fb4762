"""The life of a stream on real gunicorn, on every database."""

from __future__ import annotations

import signal
import uuid

import pytest

from tests.frames import Reader
from tests.serving import Server, eventually

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
OTHER = str(uuid.uuid4())


def test_a_change_reaches_the_clients_that_did_not_make_it(server: Server) -> None:
    with Reader(server, client_id=CLIENT) as maker, Reader(server, client_id=OTHER) as other:
        maker.expect("subscribed")
        other.expect("subscribed")
        server.append("create", "/docs/a.txt", client_id=CLIENT)
        server.append("create", "/docs/b.txt", client_id=OTHER)
        assert [each["from"] for each in other.changes(1)] == ["/docs/a.txt"]
        assert [each["from"] for each in maker.changes(1)] == ["/docs/b.txt"]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_known_client_resumes_after_a_restart_with_what_it_missed(
    server: Server, ending: signal.Signals
) -> None:
    with Reader(server, client_id=CLIENT) as reader:
        reader.expect("subscribed")
        reader.expect("keep-alive")
        server.stop(ending)
    server.append("create", "/missed.txt")
    server.start()
    with Reader(server, client_id=CLIENT) as reader:
        reader.expect("resumed")
        assert reader.changes(1)[0]["from"] == "/missed.txt"
    with Reader(server, client_id=OTHER) as stranger:
        stranger.expect("subscribed")


def test_a_stop_ends_every_stream_cleanly(server: Server) -> None:
    with Reader(server) as reader:
        reader.expect("subscribed")
        assert server.process is not None
        server.process.terminate()
        reader.expect("reconnect-required")
        assert reader.frame() is None
        process = server.process
        assert eventually(lambda: process.poll() is not None)
        assert process.returncode == 0


def test_last_event_id_resumes_exactly(server: Server) -> None:
    with Reader(server) as reader:
        reader.expect("subscribed")
        server.append("create", "/a")
        seen = reader.expect("event")
    server.append("create", "/b")
    with Reader(server, last_event_id=seen.id) as reader:
        reader.expect("resumed")
        assert [each["from"] for each in reader.changes(1)] == ["/b"]

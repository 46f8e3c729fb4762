"""The log of a real server, as a program reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.frames import Reader
from tests.serving import Server, eventually

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"


def events(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def test_every_line_is_an_object_and_a_stream_has_one_correlation_id(
    sqlite_url: str, tmp_path: Path
) -> None:
    server = Server(sqlite_url, tmp_path / "gunicorn.log", {"EVENTS_LOG_FORMAT": "json"})
    server.environment["GUNICORN_CMD_ARGS"] = "--access-logfile -"
    with server.running():
        token = server.token()
        with Reader(server, client_id=CLIENT, token=token) as reader:
            reader.expect("subscribed")
        foreign = {"uri": "cloudreve://43@my"}
        refused = httpx.get(server.events_url, params=foreign, headers=server.headers())
        eventually(lambda: "a stream ends" in server.log.read_text())
    written = events(server)
    words = ("a stream begins", "a stream ends")
    begins, ends = (each for each in written if each["message"] in words)
    assert begins["correlation_id"] == ends["correlation_id"]
    assert (begins["user_id"], begins["client_id"]) == ("42", CLIENT)
    assert ends["reason"] == "client_left"
    (told,) = [each for each in written if each["message"].startswith("a request is refused")]
    assert told["correlation_id"] == refused.json()["correlation_id"]
    assert "gunicorn.access" in {each["logger"] for each in written}
    assert token not in server.log.read_text()

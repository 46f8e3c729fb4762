"""The terminal's reader against a server that breaks off, refuses and comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from events_app import errors, sse, terminal
from events_app.event import Change

PLAN = Change("create", "f9", "/plan.md")
MOVED = Change("rename", "f9", "/plan.md", "/né.md")
REFUSAL = b'{"code":40001,"msg":"uri: bad","correlation_id":"x"}'


class Script:
    """What a server answers, one connection after the other, and what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, list[bytes], bool]] = []
        self.asked: list[dict[str, str]] = []
        self.uris: list[str] = []
        self.url = ""

    def stream(self, *frames: bytes, clean: bool = True) -> None:
        """Answer with a stream, which ends cleanly or breaks off."""
        self.answers.append((200, list(frames), clean))

    def refuse(self, status: int, body: bytes = REFUSAL) -> None:
        """Answer with an error."""
        self.answers.append((status, [body], True))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Serve a script on loopback."""
    monkeypatch.setattr(terminal, "RECONNECT_SECONDS", 0)
    made = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.asked.append({name.lower(): value for name, value in self.headers.items()})
            made.uris.append(parse_qs(urlsplit(self.path).query)["uri"][0])
            status, parts, clean = made.answers.pop(0)
            self.close_connection = True
            self.send_response(status)
            kind = "text/event-stream; charset=utf-8" if status == 200 else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in parts:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            if clean:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        serving.start()
        yield made
        server.shutdown()


def follow(script: Script, url: str | None = None) -> str:
    """Follow until the server refuses; return what it said."""
    tokens = iter(f"token-{number}" for number in range(1, 100))
    with pytest.raises(errors.EventsError) as caught:
        terminal.follow(url or script.url, "cloudreve://my/docs", "client", lambda: next(tokens))
    return caught.value.message


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the printed lines without their time."""
    return [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("payload", ["array", "object"])
def test_changes_are_shown_to_a_person(
    script: Script, capsys: pytest.CaptureFixture[str], payload: sse.Payload
) -> None:
    changes = [PLAN, MOVED, PLAN._replace(type="modify"), PLAN._replace(type="delete")]
    script.stream(
        sse.frame(sse.SUBSCRIBED, "c1"),
        *sse.event_frames(changes, "c1", "c2", payload),
        sse.frame(sse.KEEP_ALIVE, "c2"),
        sse.frame(sse.RECONNECT_REQUIRED, "c2"),
    )
    script.refuse(403)
    follow(script)
    assert shown(capsys) == [
        "subscribed",
        "+ /plan.md  (f9)",
        "> /plan.md -> /né.md  (f9)",
        "~ /plan.md  (f9)",
        "- /plan.md  (f9)",
        "keep-alive",
        "reconnect-required",
    ]


@pytest.mark.parametrize("clean", [True, False])
def test_it_comes_back_with_the_last_id_it_saw_however_the_stream_ended(
    script: Script, *, clean: bool
) -> None:
    script.stream(sse.frame(sse.SUBSCRIBED, "c1"), sse.frame(sse.KEEP_ALIVE, "c2"), clean=clean)
    script.stream(sse.frame(sse.RESUMED, "c2"), clean=clean)
    script.refuse(403)
    follow(script)
    assert [each.get("last-event-id") for each in script.asked] == [None, "c2", "c2"]
    assert {each["x-cr-client-id"] for each in script.asked} == {"client"}
    assert set(script.uris) == {"cloudreve://my/docs"}


def test_a_frame_without_an_id_keeps_the_last_one(script: Script) -> None:
    script.stream(sse.frame(sse.SUBSCRIBED, "c1"))
    script.stream(sse.frame(sse.KEEP_ALIVE, None), clean=False)
    script.refuse(403)
    follow(script)
    assert script.asked[-1]["last-event-id"] == "c1"


def test_each_connection_has_a_token_of_its_own(script: Script) -> None:
    """The one before may have expired."""
    script.stream()
    script.refuse(401)
    follow(script)
    assert [each["authorization"] for each in script.asked] == ["Bearer token-1", "Bearer token-2"]


def test_a_server_in_trouble_is_tried_again(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    for status in (500, 502, 503, 429):
        script.refuse(status)
    script.refuse(400)
    assert follow(script) == f"the server refuses: 400 {REFUSAL.decode()}"
    assert len(script.asked) == 5
    assert all(line.startswith("interrupted: the server answers") for line in shown(capsys))


def test_a_slash_behind_the_address_does_no_harm(script: Script) -> None:
    script.refuse(401)
    assert "401" in follow(script, script.url + "/")


@pytest.mark.parametrize("url", ["files.example:8000", "", "ftp://files.example", "http://"])
def test_an_address_that_is_none_is_refused_at_once(script: Script, url: str) -> None:
    with pytest.raises(errors.EventsError, match="--url"):
        terminal.follow(url, "cloudreve://my", "client", lambda: "token")
    assert not script.asked

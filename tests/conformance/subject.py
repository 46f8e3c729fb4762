"""The server that is held to the protocol: any base URL, known by nothing but its doors.

Ours is started when none is named. For another one, set in the environment
    CONFORMANCE_URL          its base URL, such as https://files.example.com
    CONFORMANCE_TOKEN        a token of one user, who may read and write
    CONFORMANCE_OTHER_TOKEN  a token of another user
"""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.serving import EVENTS_PATH

# Longer than a server's longest settling, EVENTS_DEBOUNCE_MAX, with what a busy machine adds.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Subject:
    """A server and two of its users. It has what `tests.frames.Reader` needs of a server."""

    url: str
    tokens: Mapping[str, str]
    """By what the suite calls the users: `me` and `other`."""

    @property
    def events_url(self) -> str:
        return self.url + EVENTS_PATH

    def connect(self) -> socket.socket:
        """Open a connection, through TLS where the URL says so."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        plain = socket.create_connection((parts.hostname or "", port), PATIENCE_SECONDS)
        if parts.scheme != "https":
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)

    def headers(self, user: str = "me", client_id: str | None = None) -> dict[str, str]:
        found = {"Host": urlsplit(self.url).netloc, "Authorization": f"Bearer {self.tokens[user]}"}
        return found | ({"X-Cr-Client-Id": client_id} if client_id else {})

    def ask(
        self, path: str = "", method: str = "GET", user: str | None = "me", **query: str
    ) -> httpx.Response:
        """Ask a door that answers in JSON; with `user` None without a token."""
        headers = {} if user is None else self.headers(user)
        return httpx.request(
            method, self.events_url + path, params=query, headers=headers, timeout=PATIENCE_SECONDS
        )

    def append(
        self, *changes: dict[str, Any], user: str = "me", client_id: str | None = None
    ) -> None:
        """Commit changes, and return when they have their positions."""
        answer = httpx.post(
            self.events_url,
            params={"wait": "30"},
            json=list(changes),
            headers=self.headers(user, client_id),
            timeout=PATIENCE_SECONDS,
        )
        assert answer.status_code == httpx.codes.CREATED, answer.text

    def page(self, **query: str) -> dict[str, Any]:
        """Ask for a page of changes."""
        answer = self.ask("/changes", **query)
        assert answer.status_code == httpx.codes.OK, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found


def folder() -> str:
    """Make up a folder that no run before this one has touched."""
    return f"/conformance-{uuid.uuid4().hex}"


def create(path: str, **columns: Any) -> dict[str, Any]:
    """Say that a file was created there."""
    return {"type": "create", "file_id": f"f-{path}", "from": path} | columns


def rename(path: str, to_path: str, **columns: Any) -> dict[str, Any]:
    """Say that the file that was created there was renamed."""
    return {"type": "rename", "file_id": f"f-{path}", "from": path, "to": to_path} | columns


def modify(path: str, **columns: Any) -> dict[str, Any]:
    """Say that the file's content changed."""
    return {"type": "modify", "file_id": f"f-{path}", "from": path} | columns


def delete(path: str, **columns: Any) -> dict[str, Any]:
    """Say that the file was deleted."""
    return {"type": "delete", "file_id": f"f-{path}", "from": path} | columns

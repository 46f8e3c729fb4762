"""The live stream in a terminal: an SSE client over HTTP that reconnects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import NoReturn

import click
import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse

from events_app import errors
from events_app.api import EVENTS_PATH
from events_app.sse import EVENT

# Longer than any keep-alive interval that makes sense: silence beyond it is a dead connection.
SILENCE_SECONDS = 120
RECONNECT_SECONDS = 1.0

MARKS = {"create": "+", "modify": "~", "rename": ">", "delete": "-"}


def follow(url: str, uri: str, client_id: str, new_token: Callable[[], str]) -> NoReturn:
    """Print the stream for ever. Raises `errors.EventsError` when the server refuses it."""
    headers = {"X-Cr-Client-Id": client_id}
    while True:
        headers["Authorization"] = f"Bearer {new_token()}"
        try:
            _listen(url, uri, headers)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise errors.EventsError(f"--url {url}: {error}") from error
        except (httpx.TransportError, SSEError) as error:
            _print(click.style(f"interrupted: {error}", fg="yellow"))
        time.sleep(RECONNECT_SECONDS)


def _listen(url: str, uri: str, headers: dict[str, str]) -> None:
    """Print one connection; `headers` keep the last id, however the connection ends."""
    timeout = httpx.Timeout(10, read=SILENCE_SECONDS)
    address = url.rstrip("/") + EVENTS_PATH
    with (
        httpx.Client(timeout=timeout, trust_env=False) as client,
        connect_sse(client, "GET", address, params={"uri": uri}, headers=headers) as source,
    ):
        _refuse(source.response)
        for frame in source.iter_sse():
            show(frame)
            if frame.id:
                headers["Last-Event-ID"] = frame.id


def _refuse(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        raise httpx.TransportError(f"the server answers {response.status_code}")
    if not response.is_success:
        response.read()
        raise errors.EventsError(f"the server refuses: {response.status_code} {response.text}")


def show(frame: ServerSentEvent) -> None:
    """Print one frame for a person."""
    if frame.event != EVENT:
        _print(click.style(frame.event, dim=True))
        return
    document = json.loads(frame.data)
    for change in document if isinstance(document, list) else [document]:
        target = f" -> {change['to']}" if change["to"] else ""
        _print(f"{MARKS[change['type']]} {change['from']}{target}  ({change['file_id']})")


def _print(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')}  {text}")

"""The least that serves streams under gunicorn: what ours is measured beside.

No token, no subscription, no database, no resumption: a generator that waits for an event and
yields bytes which are the same for everybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Flask, Response
from gevent.event import Event

from bench import ticks
from events_app import sse
from events_app.api import EVENTS_PATH, STREAM_HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KEEP_ALIVE_SECONDS = 25

# As long as a real one, so that as many bytes travel.
CURSOR = "AQAAAABnQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
CHANGE = '[{"type":"modify","file_id":"file-0","from":"/documents/report 000000.odt","to":""}]'


class Channel:
    """What everybody listens to: one frame, one event for all."""

    def __init__(self) -> None:
        """Begin silent."""
        self._bell = Event()
        self._frame = b""

    def publish(self) -> None:
        """Wake everybody at once."""
        self._frame = sse.frame(sse.EVENT, CURSOR, CHANGE)
        bell, self._bell = self._bell, Event()
        bell.set()

    def frames(self) -> Iterator[bytes]:
        """Yield frames for ever."""
        yield sse.frame(sse.SUBSCRIBED, CURSOR)
        while True:
            if self._bell.wait(KEEP_ALIVE_SECONDS):
                yield self._frame
            else:
                yield sse.frame(sse.KEEP_ALIVE, CURSOR)


_channel = Channel()
_ticks = ticks.Ticks()


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Serve streams, and the doors of the measurement, without any framework."""
    path = environ["PATH_INFO"]
    start_response("200 OK", list(STREAM_HEADERS.items()))
    if path == EVENTS_PATH:
        return _channel.frames()
    return iter([_answer(path)])


def _answer(path: str) -> bytes:
    if path == "/publish":
        _channel.publish()
    elif path == "/bench/begin":
        _ticks.begin()
    elif path == "/bench/gap":
        return json.dumps(_ticks.longest_gap()).encode()
    return b"ok"


flask = Flask(__name__)


@flask.get(EVENTS_PATH)
def events() -> Response:
    """Serve a stream as Flask's documentation shows it."""
    return Response(_channel.frames(), headers=STREAM_HEADERS)


@flask.get("/readyz")
def readyz() -> str:
    """Answer as soon as the worker runs."""
    return "ok"

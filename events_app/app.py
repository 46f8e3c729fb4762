"""Where the parts meet: `create_app`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
from flask import Flask
from flask_cors import CORS
from gunicorn.http import wsgi

from events_app import (
    answers,
    api,
    append,
    auth,
    cli,
    console,
    openapi,
    recall,
    settings,
    sidecar,
    status,
)
from events_app.line import Line
from events_app.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CORS_HEADERS = ["authorization", "x-cr-client-id", "last-event-id", "content-type", "cache-control"]


def create_app(configured: Settings | None = None) -> Flask:
    """Make the WSGI application; `configured` stands for the environment.

    Connects to nothing and starts nothing: `sidecar.of(app).start()` does, in each worker.
    Raises `SettingsError` that names every bad variable.
    """
    if configured is None:
        configured = settings.load(os.environ)
    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined] # the default provider has it
    app.extensions[sidecar.EXTENSION] = sidecar.Sidecar(configured)
    auth.configure(app, configured)
    answers.install(app)
    api.install(app)
    append.install(app)
    app.register_blueprint(recall.doors)
    status.install(app)
    openapi.install(app)
    console.install(app)
    cli.install(app)
    if configured.cors_origins:
        _allow_origins(app, configured.cors_origins, with_cookies=configured.token_in_cookie)
    app.wsgi_app = ShallowStreams(app.wsgi_app)  # type: ignore[method-assign] # Flask's own way
    return app


def _allow_origins(app: Flask, origins: Iterable[str], *, with_cookies: bool) -> None:
    # Escaped: flask-cors takes what looks like a pattern for one, and an IPv6 address does.
    exactly = [re.compile(f"^{re.escape(origin)}$") for origin in origins]
    headers = CORS_HEADERS + ([auth.CSRF_HEADER.lower()] if with_cookies else [])
    CORS(app, origins=exactly, allow_headers=headers, supports_credentials=with_cookies)


# What gunicorn still asks for while a stream runs and when it is logged.
LOGGED = (
    "REMOTE_ADDR",
    "REQUEST_METHOD",
    "RAW_URI",
    "SERVER_PROTOCOL",
    "PATH_INFO",
    "QUERY_STRING",
    "HTTP_REFERER",
    "HTTP_USER_AGENT",
    "wsgi.file_wrapper",
)


class ShallowStreams:
    """Runs the work before a stream in a greenlet of its own, which ends.

    Stack pages that were touched once never come back while a greenlet lives, and routing,
    verifying a token and building a response touch many: 28 KB a stream when the same greenlet
    goes on to wait, 17 KB when another one did the work.
    """

    def __init__(self, application: WSGIApplication) -> None:
        """Wrap `application`."""
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if environ.get("PATH_INFO") != api.EVENTS_PATH:
            return self._application(environ, start_response)
        begun: list[Any] = []

        def remember(*answer: Any) -> Any:
            begun[:] = answer

        body: Iterable[bytes] = gevent.spawn(self._application, environ, remember).get()
        start_response(*begun)
        frames: sidecar.Admitted | None = environ.pop(api.FRAMES, None)
        if frames is None:
            return body
        if not begun[0].startswith("200"):  # something failed after the stream was admitted
            frames.close()
            return body
        line = _line(start_response, environ.get("gunicorn.socket"))
        if line is not None:
            frames.may_write_past(line)
        _forget_request(environ)
        return frames


def _line(start_response: StartResponse, connection: object) -> Line | None:
    """Find the way past gunicorn; None where something else may stand between it and the client.

    TLS, HTTP/2, another server and a middleware that answers in its own name are such things.
    """
    response: Any = getattr(start_response, "__self__", None)
    if type(response) is not wsgi.Response or type(connection) is not gevent.socket.socket:
        return None
    return Line(connection, response, is_chunked=response.chunked)


def _forget_request(environ: WSGIEnvironment) -> None:
    kept = {name: environ[name] for name in LOGGED if name in environ}
    environ.clear()
    environ.update(kept)

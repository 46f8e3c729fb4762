"""The HTTP doors: read the request, make one call, answer."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from events_app import auth, errors, event, logs, sidecar, sse, uri
from events_app.peers import Peer
from events_app.scope import Watcher
from events_app.settings import Settings
from events_app.stream import Request

log = logging.getLogger(__name__)

EVENTS_PATH = "/api/v4/file/events"
MAX_CURSOR_CHARACTERS = 1_000

doors = Blueprint("events", __name__)

# Under this name the environment holds the frames themselves, for `app.ShallowStreams`.
FRAMES = "events_app.frames"

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


@doors.get(EVENTS_PATH)
def events() -> Response:
    """Open the stream. The checks run in the protocol's order."""
    parts = sidecar.of(current_app)
    identity = auth.authenticate(parts.settings, auth.READ_SCOPE)
    if not parts.settings.enabled:
        raise errors.EventsDisabled
    asked = _read_request(parts.settings, identity, parts.clock.wall())
    if request.method == "HEAD":  # nobody would iterate, and so never close, the frames
        return Response(headers=STREAM_HEADERS)
    peer = Peer(request.environ.get("gunicorn.socket"))
    frames = parts.open_stream(asked, peer)
    request.environ[FRAMES] = frames
    return Response(frames, headers=STREAM_HEADERS)


def _read_request(settings: Settings, identity: auth.Identity, now: float) -> Request:
    client_id = _client_id()
    last_event_id = _last_event_id()
    payload = _payload(settings)
    address = _parameter("uri") or f"{settings.uri_scheme}://my"
    folder = uri.parse(address, scheme=settings.uri_scheme, user_id=identity.user_id)
    watcher = Watcher.of(identity.user_id, client_id, folder)
    return Request(watcher, last_event_id, payload, identity.expires_at - now)


def _parameter(name: str) -> str | None:
    """Return a query parameter; two of one name leave open which one counts."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise errors.BadParameter(f"{name}: it is given {len(values)} times")
    return values[0] if values else None


def _header_or_parameter(header: str, name: str) -> str | None:
    """Return a header, or the query parameter that stands in for it in browsers.

    A server joins headers of one name by commas, and with one nothing is an id of ours.
    """
    in_query = _parameter(name)
    return request.headers.get(header) or in_query


def _client_id() -> str | None:
    text = _header_or_parameter("X-Cr-Client-Id", "client_id")
    if not text:
        return None
    client_id = event.canonical_client_id(text)
    if client_id is None:
        raise errors.BadParameter("client id: it is not a UUID")
    return client_id


def _last_event_id() -> str | None:
    text = _header_or_parameter("Last-Event-ID", "last_event_id")
    if not text:
        return None
    if len(text) > MAX_CURSOR_CHARACTERS or not text.isascii() or not text.isprintable():
        raise errors.BadParameter("last event id: it is none of ours")
    return text


def _payload(settings: Settings) -> sse.Payload:
    text = _parameter("payload") or settings.payload
    if text == "array":
        return "array"
    if text == "object":
        return "object"
    raise errors.BadParameter("payload: it is array or object")


def install(app: Flask) -> None:
    """Add the doors and the one way in which errors are answered."""
    app.register_blueprint(doors)
    app.register_error_handler(errors.RequestError, answer_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_unforeseen)


def answer_error(error: errors.RequestError) -> Response:
    """Answer `error` as the protocol's table says."""
    correlation_id = str(uuid.uuid4())
    log.info(
        "a request is refused: %s",
        type(error).__name__,
        extra=logs.fields(
            correlation_id=correlation_id,
            status=error.status,
            code=error.code,
            reason=error.message,
            path=request.path,
        ),
    )
    answer = _document(error.status, error.code, error.message, correlation_id)
    if error.retry_after_seconds is not None:
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status == errors.Unauthorized.status:
        answer.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 11.6.1
    return answer


def _answer_http_error(error: HTTPException) -> Response:
    status = error.code or errors.Unforeseen.status
    answer = _document(status, status, error.description or error.name, str(uuid.uuid4()))
    for name, value in error.get_headers():
        if name not in {"Content-Type", "Content-Length"}:
            answer.headers[name] = value
    return answer


def _answer_unforeseen(error: Exception) -> Response:
    correlation_id = str(uuid.uuid4())
    about = logs.fields(correlation_id=correlation_id, path=request.path)
    log.error("a request failed", exc_info=error, extra=about)
    unforeseen = errors.Unforeseen()
    return _document(unforeseen.status, unforeseen.code, unforeseen.message, correlation_id)


def _document(status: int, code: int, message: str, correlation_id: str) -> Response:
    body: dict[str, Any] = {"code": code, "msg": message, "correlation_id": correlation_id}
    answer = jsonify(body)
    answer.status_code = status
    return answer

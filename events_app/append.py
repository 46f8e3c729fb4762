"""The door for writers: read a body of changes, write them, say where they stand."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import BinaryIO

import gevent
from flask import Blueprint, Flask, Response, current_app, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestTimeout

from events_app import (
    answers,
    api,
    asking,
    auth,
    errors,
    parameter,
    shapes,
    sidecar,
    submission,
    writing,
)
from events_app.settings import Settings
from events_app.sidecar import Sidecar
from events_app.submission import Author, Form

door = Blueprint("append", __name__)

FORMS: dict[str, Form] = {
    "application/json": "array",
    "application/x-ndjson": "lines",
    "application/jsonl": "lines",
}
# Clients and proxies give up after a minute.
WAIT = parameter.seconds("wait", 60, "So many seconds the batch may take to be in the journal.")
# A body that is not there by then holds memory for nothing.
BODY_SECONDS = 30.0
# A connection that is closed while its peer still sends is reset, and the peer reads no answer. So
# what is left of a body is read, up to here.
DISCARDED_BYTES = 64 * 1024 * 1024
DISCARD_SECONDS = 5.0
_CHUNK_BYTES = 64 * 1024
# A client that is gone, and chunks that are none.
_BROKEN = (OSError, ParseException)


@door.post(api.EVENTS_PATH)
def append() -> Response:
    """Write a batch, all or nothing; also while streams are switched off, for the mover runs on."""
    try:
        data = _append(sidecar.of(current_app))
    except errors.RequestError:
        _discard_body()
        raise
    return answers.success(data, 201)


def _append(parts: Sidecar) -> shapes.Accepted:
    author = _author(parts.settings)
    form = _form()
    seconds = WAIT.asked()
    accepted, keys = _write(parts, author, form, traced=seconds > 0)
    span = parts.writing.span(keys, seconds) if seconds else None
    return shapes.Accepted(accepted=accepted, **(span._asdict() if span else {}))


def _write(
    parts: Sidecar, author: Author, form: Form, *, traced: bool
) -> tuple[int, Sequence[writing.Key]]:
    """Read and write the body; return how many changes it held, and their keys where `traced`.

    The body's memory is free when it returns: its client may wait for a minute more.
    """
    settings = parts.settings
    with parts.writing.room(author.user_id, request.content_length):
        body = _body(settings.append_max_bytes)
        changes = submission.changes(body, form, author, settings.append_max_rows)
        with parts.writing.turn():
            rows = parts.writing.append(changes, traced=traced)
    return len(rows), writing.keys_of(rows) if traced else ()


def _author(settings: Settings) -> Author:
    identity = auth.authenticate(settings, auth.WRITE_SCOPE)
    user_id = None if identity.service else identity.user_id
    return Author(user_id, asking.CLIENT_ID.asked_by_header())


def _form() -> Form:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise errors.UnsupportedBody("the body is compressed; send it as it is")
    if request.mimetype not in FORMS:
        raise errors.UnsupportedBody(f"the Content-Type must be one of {', '.join(FORMS)}")
    # RFC 8259, section 8.1.
    if request.mimetype_params.get("charset", "utf-8").lower() not in {"utf-8", "utf8"}:
        raise errors.UnsupportedBody("the body must be in UTF-8")
    return FORMS[request.mimetype]


def _body(most: int) -> bytes:
    """Read the body, also one whose length nobody said, with one byte more than is allowed.

    Not by werkzeug, which cuts that kind off at its limit and says nothing.
    """
    length = request.content_length
    too_large = errors.TooLarge(f"the body is longer than {most} bytes")
    if length is not None and length > most:
        raise too_large
    body = _read(most + 1 if length is None else length)
    if len(body) > most:
        raise too_large
    if length is not None and len(body) < length:
        raise errors.BadParameter("body: it ends before its Content-Length")
    return body


def _read(most: int) -> bytes:
    source: BinaryIO = request.environ["wsgi.input"]
    try:
        with gevent.Timeout(BODY_SECONDS, RequestTimeout("the body did not come in time")):
            return source.read(most)
    except _BROKEN as error:
        raise errors.BadParameter("body: it breaks off") from error


def _discard_body() -> None:
    source: BinaryIO = request.environ["wsgi.input"]
    left = DISCARDED_BYTES
    with gevent.Timeout(DISCARD_SECONDS, exception=False), contextlib.suppress(*_BROKEN):
        while left > 0 and (chunk := source.read(_CHUNK_BYTES)):
            left -= len(chunk)


def install(app: Flask) -> None:
    """Add the door."""
    app.register_blueprint(door)

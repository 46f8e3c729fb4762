"""How the doors answer in JSON: one shape for what was asked for, and one for every error."""

from __future__ import annotations

import logging
import uuid

import msgspec
from flask import Flask, Response, jsonify, request
from msgspec import UNSET
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from events_app import errors, failures, logs, shapes

log = logging.getLogger(__name__)


def install(app: Flask) -> None:
    """Answer whatever goes wrong in `app` in one shape."""
    app.register_error_handler(errors.RequestError, _answer_request_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(SQLAlchemyError, _answer_database_error)
    app.register_error_handler(Exception, _answer_unforeseen)


def success(data: msgspec.Struct, status: int = 200) -> Response:
    """Answer `data`, one of `shapes`; what belongs to one user stays in no cache."""
    answer = jsonify({"code": 0, "msg": "", "data": msgspec.to_builtins(data)})
    answer.status_code = status
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _answer_request_error(error: errors.RequestError) -> Response:
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
    answer = _document(error.status, error.code, error.message, correlation_id, error.data)
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


def _answer_database_error(error: SQLAlchemyError) -> Response:
    """Tell a caller to come back when the database is only away."""
    if failures.is_away(error):
        log.warning("a request is put off, the database is away: %s", failures.words_of(error))
        return _answer_request_error(errors.DatabaseAway())
    return _answer_unforeseen(error)


def _answer_unforeseen(error: Exception) -> Response:
    correlation_id = str(uuid.uuid4())
    about = logs.fields(correlation_id=correlation_id, path=request.path)
    log.error("a request failed", exc_info=error, extra=about)
    unforeseen = errors.Unforeseen()
    return _document(unforeseen.status, unforeseen.code, unforeseen.message, correlation_id)


def _document(
    status: int, code: int, message: str, correlation_id: str, data: dict[str, object] | None = None
) -> Response:
    problem = shapes.Problem(
        code=code, msg=message, correlation_id=correlation_id, data=UNSET if data is None else data
    )
    answer = jsonify(msgspec.to_builtins(problem))
    answer.status_code = status
    return answer

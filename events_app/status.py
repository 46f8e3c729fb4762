"""Is it alive, is it ready, how much does it do: for machines and for people at night."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from msgspec import to_builtins
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from events_app import metrics, shapes, sidecar

pages = Blueprint("status", __name__)


@pages.get("/healthz")
def healthz() -> Response:
    """Alive: the event loop answers."""
    return jsonify(to_builtins(shapes.Well(status="ok")))


@pages.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Ready: the database answers, the schema is current, mover and tailer are not stuck."""
    reason = sidecar.of(current_app).tailer.why_not_ready()
    if reason is None:
        return jsonify(to_builtins(shapes.Well(status="ok"))), 200
    return jsonify(to_builtins(shapes.NotReady(status="not ready", reason=reason))), 503


@pages.get("/metrics")
def numbers() -> Response:
    """Prometheus, of the worker that happens to answer."""
    text = metrics.exposition(sidecar.of(current_app))
    return Response(text, content_type=CONTENT_TYPE_LATEST)


def install(app: Flask) -> None:
    """Add the pages, and count what every door answers."""
    app.register_blueprint(pages)
    app.after_request(_count)


def _count(answer: Response) -> Response:
    """Count by the door: paths and methods that are none would be names without end."""
    rule = request.url_rule
    door = f"{request.method} {rule.rule}" if rule is not None else "none"
    sidecar.of(current_app).tally.answered[door, answer.status_code] += 1
    return answer

"""Is it alive, is it ready, how much does it do: for machines and for people at night."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, current_app, jsonify
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from events_app import journal, sidecar

# Beyond this a depth is only "far too many".
MOST_COUNTED = 100_000

pages = Blueprint("status", __name__)


@pages.get("/healthz")
def healthz() -> Response:
    """Alive: the event loop answers."""
    return jsonify(status="ok")


@pages.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Ready: the database answers, the schema is current, mover and tailer are not stuck."""
    reason = sidecar.of(current_app).tailer.why_not_ready()
    if reason is None:
        return jsonify(status="ok"), 200
    return jsonify(status="not ready", reason=reason), 503


@pages.get("/metrics")
def metrics() -> Response:
    """Prometheus, of the worker that happens to answer."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Worker(sidecar.of(current_app)))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Worker(Collector):
    """Reads the numbers when they are asked for."""

    def __init__(self, parts: sidecar.Sidecar) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        yield from self._of_this_worker()
        try:
            depth, age = self._parts.database.read(_outbox)
        except SQLAlchemyError:
            return  # `events_ready` says that the database is away
        yield _gauge("events_outbox_rows", f"Rows that wait, at most {MOST_COUNTED}.", depth)
        yield _gauge("events_outbox_age_seconds", "How long the oldest of them waits.", age)

    def _of_this_worker(self) -> Iterator[Metric]:
        tailer = self._parts.tailer
        ready = tailer.why_not_ready() is None
        admission = self._parts.admission
        yield _gauge("events_streams", "Streams open in this worker.", len(admission))
        waiting = "Clients that wait for a place in this worker."
        yield _gauge("events_streams_waiting", waiting, admission.waiting)
        yield _gauge("events_ready", "1 while this worker follows changes.", ready)
        yield _gauge("events_last_position", "The last position read.", tailer.end.position)
        yield _counter("events_moved_rows", "Rows this worker journalled.", tailer.moved_rows)
        yield _counter("events_rejected_rows", "Of these, rejected.", tailer.rejected_rows)


def _gauge(name: str, text: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=["worker"])
    gauge.add_metric([str(os.getpid())], float(value))
    return gauge


def _counter(name: str, text: str, value: float) -> Metric:
    counter = CounterMetricFamily(name, text, labels=["worker"])
    counter.add_metric([str(os.getpid())], value)
    return counter


def _outbox(connection: Connection) -> tuple[int, float]:
    head = journal.head(connection)
    if head.waiting_since is None:
        return 0, 0.0
    age = (head.now - head.waiting_since).total_seconds()
    return journal.outbox_depth(connection, MOST_COUNTED), age


def install(app: Flask) -> None:
    """Add the pages."""
    app.register_blueprint(pages)

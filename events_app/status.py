"""Is it alive, is it ready, how much does it do: for machines and for people at night."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, current_app, jsonify
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from events_app import sidecar

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
        tailer = self._parts.tailer
        ready = tailer.why_not_ready() is None
        worker = [str(os.getpid())]
        for name, text, value in (
            ("events_streams", "Streams open in this worker.", len(self._parts.admission)),
            ("events_ready", "1 while changes are followed.", ready),
            ("events_last_position", "The last position read.", tailer.end.position),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["worker"])
            gauge.add_metric(worker, float(value))
            yield gauge
        for name, text, value in (
            ("events_moved_rows", "Outbox rows journalled by this worker.", tailer.moved_rows),
            ("events_rejected_rows", "Of these, rejected ones.", tailer.rejected_rows),
        ):
            counter = CounterMetricFamily(name, text, labels=["worker"])
            counter.add_metric(worker, value)
            yield counter


def install(app: Flask) -> None:
    """Add the pages."""
    app.register_blueprint(pages)

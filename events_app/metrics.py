"""The numbers of one worker, for Prometheus: one for each promise, read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from events_app import journal
from events_app.jwks import Fetched
from events_app.sidecar import Sidecar

# Beyond this a depth is only "far too many".
MOST_COUNTED = 100_000


def exposition(parts: Sidecar) -> bytes:
    """Write all numbers of this worker as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Worker(parts))
    return generate_latest(registry)


class _Worker(Collector):
    def __init__(self, parts: Sidecar) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        yield from self._following()
        yield from self._streams()
        yield from self._told()
        yield from self._cursors()
        yield from self._requests()
        try:
            depth, age = self._parts.database.read(_outbox)
        except SQLAlchemyError:
            return  # `events_ready` says that the database is away
        yield _gauge("events_outbox_rows", f"Rows that wait, at most {MOST_COUNTED}.", depth)
        yield _gauge("events_outbox_age_seconds", "How long the oldest of them waits.", age)

    def _following(self) -> Iterator[Metric]:
        tailer = self._parts.tailer
        ready = tailer.why_not_ready() is None
        moved = self._parts.clock.wall() - tailer.unmoved_seconds if tailer.epoch else 0
        yield _gauge("events_ready", "1 while this worker follows changes.", ready)
        yield _gauge("events_last_position", "The last position read.", tailer.end.position)
        yield _gauge(
            "events_mover_last_success_timestamp_seconds",
            "When nothing waited in the outbox, or what waited was moved, by any worker.",
            moved,
        )
        yield _counter("events_moved_rows", "Rows this worker journalled.", tailer.moved_rows)
        yield _counter("events_rejected_rows", "Of these, rejected.", tailer.rejected_rows)
        alarms = "Broken rules of the journal."
        yield _counters("events_alarms", alarms, ("alarm",), tailer.alarms)

    def _streams(self) -> Iterator[Metric]:
        admission, tally = self._parts.admission, self._parts.tally
        yield _gauge("events_streams", "Streams open in this worker.", len(admission))
        waiting = "Clients that wait for a place in this worker."
        yield _gauge("events_streams_waiting", waiting, admission.waiting)
        refused = "Requests refused for a cap."
        yield _counters("events_streams_refused", refused, ("cap",), tally.refused)
        begun = "Streams by the frame that began them."
        yield _counters("events_streams_begun", begun, ("event", "reason"), tally.begun)
        yield _counters("events_streams_ended", "Streams that ended.", ("reason",), tally.ended)

    def _told(self) -> Iterator[Metric]:
        tally = self._parts.tally
        yield _counters("events_frames", "Frames written.", ("event",), tally.frames)
        yield _counter("events_sent_bytes", "Bytes of these frames.", tally.sent_bytes)
        polled = "Requests for pages of changes by how they were answered."
        yield _counters("events_polls", polled, ("answer",), tally.polled)
        rows = "Rows that were folded into frames and pages, the watchers' own ones among them."
        yield _counter("events_folded_rows", rows, tally.folded_rows)
        changes = "Changes in these frames and pages, after folding."
        yield _counter("events_told_changes", changes, tally.told_changes)

    def _requests(self) -> Iterator[Metric]:
        parts = self._parts
        answered = {(door, str(status)): n for (door, status), n in parts.tally.answered.items()}
        text = "Requests by door and status."
        yield _counters("events_requests", text, ("door", "status"), answered)
        text = "Changes that this worker committed for writers by HTTP."
        yield _counter("events_appended_changes", text, parts.writing.appended_changes)
        text = "Fetches of the JWKS that failed."
        failures = parts.keys.failures if isinstance(parts.keys, Fetched) else 0
        yield _counter("events_keys_fetch_failures", text, failures)
        text = "Questions whether a token was revoked that got no answer."
        yield _counter("events_revocation_unanswered", text, parts.revocation.unanswered)

    def _cursors(self) -> Iterator[Metric]:
        ledger = self._parts.ledger
        yield _gauge(
            "events_lag_positions",
            "Positions that the furthest stream of this worker is behind.",
            self._parts.admission.furthest_behind(),
        )
        yield _gauge(
            "events_unconfirmed_age_seconds",
            "How long ago the oldest change was written that may not have arrived.",
            ledger.oldest_unconfirmed_seconds(),
        )
        yield _gauge("events_cursors_waiting", "Cursors that are to be stored.", ledger.waiting)
        forgotten = "Subscriptions that are remembered no more."
        yield _counters(
            "events_subscriptions_forgotten",
            forgotten,
            ("reason", "resumed"),
            self._parts.tally.forgotten,
        )


def _worker() -> str:
    return str(os.getpid())


def _gauge(name: str, text: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=["worker"])
    gauge.add_metric([_worker()], float(value))
    return gauge


def _counter(name: str, text: str, value: float) -> Metric:
    counter = CounterMetricFamily(name, text, labels=["worker"])
    counter.add_metric([_worker()], value)
    return counter


def _counters(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    """Make a counter by labels; the keys of `counts` are a label's value, or a tuple of values."""
    counter = CounterMetricFamily(name, text, labels=["worker", *labels])
    for key, count in counts.items():
        counter.add_metric([_worker(), *(key if isinstance(key, tuple) else (key,))], count)
    return counter


def _outbox(connection: Connection) -> tuple[int, float]:
    head = journal.head(connection)
    if head.waiting_since is None:
        return 0, 0.0
    age = (head.now - head.waiting_since).total_seconds()
    return journal.outbox_depth(connection, MOST_COUNTED), age

"""What it costs to tell one change to everybody who watches a folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import sqlalchemy

from bench import clients, places, worker
from bench.table import SPREAD, Table, ratio, spread
from events_app import outbox

FRAMES_IN_ROUND = 10
# Ten rounds begin with the loop warm; nothing of the first one counts.
WARM_UP_CHANGES = 3
PAUSE_SECONDS = 0.05
STORE_SECONDS = 2.5

HOW = (
    "One change to one folder that all streams watch (one user, distinct client ids), debounce 0,"
    f" told {FRAMES_IN_ROUND} times in a round: delivered frames, counted by the clients, divided"
    " by the seconds of user and system time that all threads of the one worker ran, mover, tailer"
    " and polling included. *With cursors stored*: `EVENTS_CONFIRM_SECONDS=1`, and the round ends"
    " after every delivery was stored. The stall is the longest time, in a run of its own, that"
    " the event loop let a greenlet wait that ticks every millisecond inside the worker, while one"
    " frame went to all. Beside it a plain WSGI generator for each stream that one event wakes and"
    " that yields ready bytes."
)

Publish = Callable[[int], object]


def measure(*, quick: bool) -> Table:
    """Measure ours on SQLite, and the rival."""
    count, rounds = (200, 2) if quick else (1_000, 5)
    rival, rival_stalls = _rival(count, rounds)
    ours, stalls = _ours(count, rounds, worker.OURS_TICKING, {})
    stored, _ = _ours(count, rounds, worker.OURS, {"EVENTS_CONFIRM_SECONDS": "1"})
    rows = [
        ("events-app, frames per CPU-second", *_cells(ours), ratio(ours, rival)),
        ("the same with cursors stored", *_cells(stored), ratio(stored, rival)),
        ("generator and event, frames per CPU-second", *_cells(rival), "1"),
        ("events-app, longest stall in ms", *_stall_cells(stalls), ratio(stalls, rival_stalls)),
        ("generator and event, longest stall in ms", *_stall_cells(rival_stalls), "1"),
    ]
    columns = (f"one change to {count:,} streams", *SPREAD, "beside the generator")
    return Table("Fan-out", HOW, columns, rows)


def _cells(samples: list[float]) -> list[str]:
    return spread(samples, more_is_better=True)


def _stall_cells(samples: list[float]) -> list[str]:
    return spread(samples, more_is_better=False)


def _rival(count: int, rounds: int) -> tuple[list[float], list[float]]:
    with worker.Worker(worker.RIVAL_PLAIN).running() as running, clients.crowd() as crowd:
        told = Told(running, crowd, count, lambda _: running.ask("/publish"))
        return list(told.rates(rounds, 0)), list(told.stalls(rounds))


def _ours(
    count: int, rounds: int, served: worker.Served, settings: dict[str, str]
) -> tuple[list[float], list[float]]:
    with _telling(count, served, settings) as told:
        stored = "EVENTS_CONFIRM_SECONDS" in settings
        found = list(told.rates(rounds, STORE_SECONDS if stored else 0))
        return found, [] if stored else list(told.stalls(rounds))


def rates(count: int, rounds: int) -> list[float]:
    """Return the frames per second of the worker's time, on SQLite, for each round."""
    with _telling(count, worker.OURS, {}) as told:
        return list(told.rates(rounds, 0))


@contextlib.contextmanager
def _telling(count: int, served: worker.Served, settings: dict[str, str]) -> Iterator[Told]:
    settings = {"EVENTS_POLL_INTERVAL": "0.02"} | settings
    with (
        places.database("sqlite") as url,
        worker.Worker(served, url, settings).running() as running,
        clients.crowd() as crowd,
    ):
        yield Told(running, crowd, count, _appender(url))


def _appender(url: str) -> Publish:
    engine = sqlalchemy.create_engine(url)

    def append(number: int) -> None:
        with engine.begin() as connection:
            path = f"/documents/report {number:06}.odt"
            outbox.append(connection, "user-0", "modify", "file-0", path)

    return append


class Told:
    """One worker with its streams, told the same again and again."""

    def __init__(
        self, running: worker.Worker, crowd: clients.Clients, count: int, publish: Publish
    ) -> None:
        """Open so many streams, and tell them a few changes that do not count."""
        self._running = running
        self._crowd = crowd
        self._count = count
        self._publish = publish
        self._changes = 0
        crowd.open(running, count, users=1)
        time.sleep(1)
        for _ in range(WARM_UP_CHANGES):
            self._tell()

    def _tell(self) -> None:
        self._changes += 1
        self._publish(self._changes)
        self._crowd.wait(self._changes * self._count)

    def rates(self, rounds: int, settle_seconds: float) -> Iterator[float]:
        """Yield the frames per second of the worker's time, for each round."""
        for _ in range(rounds):
            time.sleep(settle_seconds)
            before = self._running.cpu_seconds()
            for _ in range(FRAMES_IN_ROUND):
                self._tell()
            time.sleep(settle_seconds)
            spent = self._running.cpu_seconds() - before
            yield FRAMES_IN_ROUND * self._count / spent

    def stalls(self, rounds: int) -> Iterator[float]:
        """Yield the longest gap of the loop, in milliseconds, for each frame that went to all."""
        self._running.ask("/bench/begin")
        for _ in range(rounds * FRAMES_IN_ROUND):
            time.sleep(PAUSE_SECONDS)
            self._running.longest_gap()
            self._tell()
            yield 1000 * self._running.longest_gap().wall

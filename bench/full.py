"""What a full worker does: ten thousand streams, and what happens to all of them at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import sqlalchemy

from bench import clients, places, worker
from bench.table import Table, number
from events_app import outbox

DRAIN_SECONDS = 5
KEEP_ALIVE_SECONDS = 12
CONFIRM_SECONDS = 4
SETTINGS = {
    "EVENTS_DRAIN": str(DRAIN_SECONDS),
    "EVENTS_KEEP_ALIVE": str(KEEP_ALIVE_SECONDS),
    "EVENTS_CONFIRM_SECONDS": str(CONFIRM_SECONDS),
}
# Cursors are stored and what the requests left behind is let go.
SETTLE_SECONDS = 3
END_SECONDS = 60
LEAVE_SECONDS = 60
LOOK_SECONDS = 0.2
# Thousands of clients at once would take the processor from the loop whose stalls are measured.
CLIENTS_NICENESS = 10
# All streams are of one user and watch one folder: one change is a frame to each.
USERS = 1
WARM_UP_STREAMS = 20
FRAMES = 5
ROUNDS = 50

HOW = (
    "One worker with as many streams as the heading says, distinct client ids, on one folder. Each"
    " cell of the first rows is the longest time in ms that the event loop let a greenlet wait that"
    " ticks every millisecond inside the worker, and behind the stroke the longest that the loop's"
    " thread was itself at work meanwhile: the clients (with a niceness of"
    f" {CLIENTS_NICENESS}) and the database run on the same machine, and take its time too."
    f" *A frame*: the worst of {FRAMES} changes told to all."
    f" *Confirmed and stored*: {CONFIRM_SECONDS} s later every cursor is"
    f" (`EVENTS_CONFIRM_SECONDS={CONFIRM_SECONDS}`). *Keep-alive*: all of them,"
    f" {KEEP_ALIVE_SECONDS} s after that frame. *All gone*: every client closes at once. Memory is"
    " the worker's proportional set size while no stream is open: before, when as many had already"
    " come and gone; after they came, heard and went once more; after 50 rounds of"
    " a fiftieth of them."
)


def measure(*, quick: bool) -> Table:
    """Measure on each database."""
    count = 500 if quick else 10_000
    columns = {engine: dict(_noted(_tell(engine, count))) for engine in places.engines()}
    names = next(iter(columns.values()))
    rows = [(name, *(cells[name] for cells in columns.values())) for name in names]
    titles = [places.TITLES[engine] for engine in columns]
    return Table("A full worker", HOW, (f"{count:,} streams", *titles), rows)


def _noted(cells: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Say each figure as it comes: all of them take some minutes."""
    for name, cell in cells:
        print(f"{name}: {cell}", file=sys.stderr, flush=True)
        yield name, cell


def _tell(engine: str, count: int) -> Iterator[tuple[str, str]]:
    """Act it out; yield what was seen."""
    with (
        places.database(engine) as url,
        worker.Worker(worker.OURS_TICKING, url, SETTINGS).running() as running,
        clients.crowd(CLIENTS_NICENESS) as crowd,
    ):
        running.ask("/bench/begin")
        stage = _Stage(running, crowd, url, count)
        stage.come(WARM_UP_STREAMS)
        stage.go()
        empty = running.memory_kilobytes()
        yield "*stall*: new clients come", stage.stall(stage.come)
        yield "*KB a stream*", number((running.memory_kilobytes() - empty) / count)
        yield "*stall*: a frame to all", stage.stall(stage.tell_often)
        yield "all confirmed and stored", stage.stall(stage.confirm)
        yield "a keep-alive to all", stage.stall(stage.keep_alive)
        yield "nothing happens", stage.stall(lambda: time.sleep(SETTLE_SECONDS))
        yield "all gone at once", stage.stall(stage.go)
        before = running.memory_kilobytes()
        yield "the same clients come back", stage.stall(stage.come)
        stage.tell()
        stage.go()
        yield "*memory* before, in MB", number(before / 1024)
        yield "after they came once more", _beside(running.memory_kilobytes(), before)
        yield from _rounds(stage, running, before, count)
        stage.come()
        yield from _stop(running, crowd, count)


def _rounds(
    stage: _Stage, running: worker.Worker, before: int, count: int
) -> Iterator[tuple[str, str]]:
    held = running.holds()
    for _ in range(ROUNDS):
        stage.come(count // 50)
        stage.go()
    now = running.holds()
    yield f"after {ROUNDS} rounds", _beside(running.memory_kilobytes(), before)
    for what in ("greenlets", "descriptors", "pooled", "objects"):
        yield f"{what} left by the rounds", f"{now[what] - held[what]:,}"


def _stop(running: worker.Worker, crowd: clients.Clients, count: int) -> Iterator[tuple[str, str]]:
    began_at = time.monotonic()
    process = running.terminate()
    ends = crowd.ends(END_SECONDS)
    process.wait(END_SECONDS)
    yield f"*TERM*, EVENTS_DRAIN={DRAIN_SECONDS}: told", f"{sum(end.told for end in ends):,}"
    yield "ended cleanly", f"{sum(end.clean for end in ends):,}"
    yield "seconds to the last end", number(max(end.at for end in ends) - began_at)
    yield "broken off", f"{count - sum(end.clean for end in ends):,}"


def _beside(kilobytes: int, before: int) -> str:
    return f"{kilobytes / before:.2f} x"


class _Stage:
    """A worker that ticks, its clients and its database."""

    def __init__(
        self, running: worker.Worker, crowd: clients.Clients, url: str, count: int
    ) -> None:
        self._running = running
        self._crowd = crowd
        self._count = count
        self._changes = self._heard = 0
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def stall(self, act: Callable[[], object]) -> str:
        """Return how long the loop stood still while `act` ran."""
        self._running.longest_gap()
        act()
        gap = self._running.longest_gap()
        return f"{number(1000 * gap.wall)} / {number(1000 * gap.own)}"

    def come(self, count: int | None = None) -> None:
        """Open streams of the first `count` clients, or of all."""
        self._crowd.open(self._running, count or self._count, USERS)

    def tell(self) -> None:
        """Tell all streams one change."""
        self._changes += 1
        self._heard += self._count
        with self._engine.begin() as connection:
            path = f"/documents/report {self._changes}.odt"
            outbox.append(connection, "user-0", "modify", "file-0", path)
        self._crowd.wait(self._heard)

    def tell_often(self) -> None:
        """Tell all streams some changes, one after the other."""
        for _ in range(FRAMES):
            self.tell()

    def confirm(self) -> None:
        """Wait until what was told is confirmed, and all cursors are stored."""
        time.sleep(CONFIRM_SECONDS + 2)
        self._wait_for("events_cursors_waiting")

    def keep_alive(self) -> None:
        """Wait until every stream has kept alive."""
        self._crowd.wait_for_keep_alives(self._count, 2 * KEEP_ALIVE_SECONDS)

    def go(self) -> None:
        """Close all streams, and wait until the worker has noticed and stored it."""
        self._crowd.close()
        self._wait_for("events_streams")
        self._wait_for("events_cursors_waiting")

    def _wait_for(self, name: str) -> None:
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._running.metric(name) > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not fall to 0")
            time.sleep(LOOK_SECONDS)

"""How fast a run is folded, and how that grows with its length."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bench import fold_histories, worker
from bench import inside as patched
from bench.file_app import App
from bench.fold_histories import DEEPEST, FILES_AT_A_TIME, FOLDERS, SAME_FILES
from bench.table import SPREAD, Table, number, ratio, spread
from events_app import garbage, merge
from events_app.event import Change
from events_app.follower import RUN_CHANGES
from tests import operations

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
# The clock is coarse: one sample folds a short history again and again.
SAMPLE_ROWS = 30_000

SPEED = (
    "Rows of a run divided by the CPU time of `merge.fold`, in a process that gevent has patched"
    " and whose garbage collector is set like a worker's; the histories take turns."
    f" {RUN_CHANGES:,} rows are what a stream folds at once. Each history is valid and told: what"
    f" something replaces is deleted first. *Flat*: files of {FOLDERS} folders are modified,"
    " created, renamed and deleted (3 : 1 : 1 : 1), paths of 36 characters. *Nested*: folders up to"
    f" {DEEPEST} deep; every other row renames one of them or moves it elsewhere, and the next row"
    " touches a file below it."
)
GROWTH = (
    "The same at other lengths: medians, and the cost beside that of ten times fewer rows.\n"
    f"*Flat, the same files*: {SAME_FILES:,} files, however long the history is. *Flat, files in"
    f" turn*: a tenth as many files as rows, {FILES_AT_A_TIME} of them at a time. *Flat*: as many,"
    " and each row is about any of them. That grows faster than the work: what was last touched"
    " thousands of rows ago is not in the processor's caches any more. So does *a dict*, which"
    " keeps the last row of each file of the same history, and so merges nothing rightly."
    " *Operations* are those of the interpreter."
)


class Kind(NamedTuple):
    """What writes the rows of a history, and what then folds them."""

    write: Callable[[App, int], None]
    fold: Callable[[list[Change]], object] = merge.fold


def _again(run: list[Change]) -> list[Change]:
    return merge.fold(run, repeated=True)


def _last_of_each(run: list[Change]) -> dict[str, Change]:
    """Keep the last change of each entry: wrong, but little less can be done with a run."""
    return {change.file_id: change for change in run}


KINDS = {
    "flat": Kind(fold_histories.flat),
    "flat, the same files": Kind(fold_histories.flat_same_files),
    "flat, files in turn": Kind(fold_histories.flat_in_turn),
    "nested folders": Kind(fold_histories.nested),
    "swaps and rings of up to 5": Kind(fold_histories.rings),
    "one ring of all files": Kind(fold_histories.one_ring),
    "atomic saves": Kind(fold_histories.saves),
    "as many new files": Kind(fold_histories.unpacked),
    "one file renamed all the time": Kind(fold_histories.one_file),
    "files moved out of a folder that dies": Kind(fold_histories.rescues),
    "flat, a tenth of it the watcher's own": Kind(fold_histories.flat_with_own),
    "flat, second delivery": Kind(fold_histories.flat, _again),
    "nested folders, second delivery": Kind(fold_histories.nested, _again),
    "flat, a dict": Kind(fold_histories.flat, _last_of_each),
}
GROWING = (
    "flat, the same files",
    "flat, files in turn",
    "flat",
    "flat, a dict",
    "nested folders",
)


def measure(*, quick: bool) -> Table:
    """Measure every kind of history at the length that a stream folds at once."""
    rows, rounds = (1_000, 1) if quick else (RUN_CHANGES, 9)
    taken = _taken(list(KINDS), rows, rounds)
    lines = []
    for kind, seconds in taken.items():
        rates = [rows / each for each in seconds]
        beside = ratio(seconds, taken["flat"])
        lines.append((kind, *spread(rates, more_is_better=True), beside))
    columns = (f"rows per second, {rows:,} rows", *SPREAD, "time beside flat")
    return Table("Fold", SPEED, columns, lines)


def measure_growth(*, quick: bool) -> Table:
    """Measure some kinds of history at all lengths."""
    sizes, rounds = (SIZES[:3], 1) if quick else (SIZES, 5)
    taken = {rows: _taken(GROWING, rows, rounds) for rows in sizes}
    lines = []
    for kind in GROWING:
        counted = {rows: [float(count_operations(kind, rows))] for rows in sizes}
        timed = {rows: taken[rows][kind] for rows in sizes}
        for rows in sizes:
            rate, each = rows / statistics.median(timed[rows]), counted[rows][0] / rows
            cells = number(rate), _grown(timed, rows), number(each), _grown(counted, rows)
            lines.append((kind, f"{rows:,}", *cells))
    columns = ("history", "rows", "rows/s", "time grew", "operations per row", "they grew")
    return Table("Fold by length", GROWTH, columns, lines)


def count_operations(kind: str, rows: int) -> int:
    """Count what the interpreter does to fold so many rows of a kind."""
    run = _history(KINDS[kind], rows)
    return operations.count(lambda: KINDS[kind].fold(run))


def _grown(costs: Mapping[int, Sequence[float]], rows: int) -> str:
    tenth = costs.get(rows // 10)
    return ratio(costs[rows], tenth) if tenth else ""


def _taken(kinds: Sequence[str], rows: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round for every one of `kinds`."""
    samples = iter(patched.run("bench.fold", ";".join(kinds), rows, rounds))
    return {kind: list(itertools.islice(samples, rounds)) for kind in kinds}


def inside(kinds: str, rows: int, rounds: int) -> list[float]:
    """Return the seconds of one fold: all rounds of the first kind, then those of the next."""
    chosen = [KINDS[name] for name in kinds.split(";")]
    histories = [json.dumps(_history(kind, rows)) for kind in chosen]
    os.environ |= worker.SETTINGS
    garbage.Collector().start()
    samples: list[list[float]] = [[] for _ in chosen]
    for _ in range(rounds):
        for kind, history, sample in zip(chosen, histories, samples, strict=True):
            sample.append(_seconds(kind, history))
    return list(itertools.chain(*samples))


def _history(kind: Kind, rows: int) -> list[Change]:
    app = App(rows)
    kind.write(app, rows)
    return app.rows[:rows]


def _seconds(kind: Kind, history: str) -> float:
    runs = [_run(history)]
    runs += [_run(history) for _ in range(SAMPLE_ROWS // len(runs[0]) - 1)]
    before = time.process_time()
    for run in runs:
        kind.fold(run)
    return (time.process_time() - before) / len(runs)


def _run(history: str) -> list[Change]:
    """Make the changes anew: rows from a database share no text, and nothing is hashed yet."""
    return [Change(*values) for values in json.loads(history)]

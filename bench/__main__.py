"""`python -m bench [NAME …] [--quick]`: measure and print Markdown tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from bench import (
    append,
    audit,
    catch_up,
    connects,
    fan_out,
    fold,
    fold_remains,
    full,
    inserts,
    latency,
    machine,
    memory,
    mover,
    nchan,
    places,
    soak,
)
from bench.table import Table

FIGURES: dict[str, Callable[..., Table]] = {
    "memory": memory.measure,
    "fan-out": fan_out.measure,
    "latency": latency.measure,
    "mover": mover.measure,
    "audit": audit.measure,
    "audit-cost": audit.measure_cost,
    "inserts": inserts.measure,
    "append": append.measure,
    "catch-up": catch_up.measure,
    "connects": connects.measure,
    "crowd": full.measure,
    "nchan": nchan.measure,
    "fold": fold.measure,
    "fold-growth": fold.measure_growth,
    "fold-remains": fold_remains.measure,
}
# Not among what is measured when nothing is named.
SOAK = "soak"


def main() -> None:
    """Print what the command line asks for; everything when it names nothing."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join([*FIGURES, SOAK])}"
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--minutes", type=float, help="how long a soak lasts")
    parser.add_argument("--seed", type=int, help="repeat a soak's choices")
    options = parser.parse_args()
    if unknown := set(options.names) - {*FIGURES, SOAK}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    command = " ".join(["python -m bench", *sys.argv[1:]])
    print(machine.table(command).markdown(), flush=True)
    for name in options.names or FIGURES:
        before = time.monotonic()
        print(_measure(name, options).markdown(), flush=True)
        print(f"{name}: {time.monotonic() - before:.0f} s", file=sys.stderr, flush=True)
    for engine in places.missing():
        print(f"!! NOT MEASURED: {places.TITLES[engine]} does not run here", file=sys.stderr)


def _measure(name: str, options: argparse.Namespace) -> Table:
    if name == SOAK:
        return soak.measure(quick=options.quick, minutes=options.minutes, seed=options.seed)
    return FIGURES[name](quick=options.quick)


if __name__ == "__main__":
    main()

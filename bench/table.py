"""What a measurement prints: a heading, how it was taken, and a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """One figure's rows under its heading. `how` says what exactly was measured."""

    title: str
    how: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Write it as Markdown; the first column is text, the others are numbers."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [_line(self.columns), _line(rule), *map(_line, self.rows)]
        return f"### {self.title}\n\n{self.how}\n\n" + "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


SPREAD = ("best", "median", "worst")


def spread(samples: Sequence[float], *, more_is_better: bool) -> list[str]:
    """Write best, median and worst of `samples`."""
    best, worst = (max, min) if more_is_better else (min, max)
    return [number(best(samples)), number(statistics.median(samples)), number(worst(samples))]


def number(value: float) -> str:
    """Write a number with as many digits as mean something."""
    if abs(value) >= 100:  # noqa: PLR2004 -- three digits before the point are enough
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004 -- as above


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Write the median of `ours` as a multiple of the median of `theirs`."""
    return f"{statistics.median(ours) / statistics.median(theirs):.2f} x"

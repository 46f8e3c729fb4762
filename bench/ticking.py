"""The application as it is, with doors that tell what its event loop and its memory do."""

from __future__ import annotations

from bench import ticks
from tests.server.harness_remains import app

__all__ = ["app"]

_ticks = ticks.Ticks()


@app.get("/bench/begin")
def begin() -> str:
    """Start to tick."""
    _ticks.begin()
    return ""


@app.get("/bench/gap")
def gap() -> list[float]:
    """Tell the longest gaps since the last question, in seconds."""
    return list(_ticks.longest_gap())

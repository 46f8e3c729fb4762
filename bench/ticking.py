"""The application as it is, with a door that tells how long the event loop stood still."""

from __future__ import annotations

from bench import ticks
from wsgi import app

__all__ = ["app"]

_ticks = ticks.Ticks()


@app.get("/bench/begin")
def begin() -> str:
    """Start to tick."""
    _ticks.begin()
    return ""


@app.get("/bench/gap")
def gap() -> str:
    """Tell the longest gap since the last question, in seconds."""
    return repr(_ticks.longest_gap())

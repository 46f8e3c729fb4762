"""What all streams of a worker share: its parts as they see them, and the settings they live by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from events_app import subscriptions
from events_app.clock import Clock
from events_app.database import Database
from events_app.delivery import Ledger
from events_app.herald import Herald
from events_app.resumption import Start
from events_app.subscriptions import Arrival
from events_app.tailer import Tailer
from events_app.tally import Tally


class Pace(NamedTuple):
    """The settings that streams live by; times in seconds."""

    debounce: float
    debounce_max: float
    keep_alive: float
    drain: float
    lifetime: float | None
    limits: subscriptions.Limits


class Surroundings(NamedTuple):
    """What all streams of a worker share. `run_aside` starts a function in another greenlet.

    `connect` is `Arrivals.connect`; `turns` bounds how many streams are at the database at once.
    """

    database: Database
    tailer: Tailer
    ledger: Ledger
    clock: Clock
    pace: Pace
    tally: Tally
    run_aside: Callable[[Callable[[], None]], object]
    connect: Callable[[Arrival, Callable[[], bool]], Start | None]
    turns: AbstractContextManager[object]
    herald: Herald

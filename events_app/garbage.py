"""The collector of garbage takes its turn with the event loop: often, and never for long.

Theory of operation
    Python collects when so many more objects were made than let go. A worker with thousands of
    streams makes many and lets as many go, by replacing one by the other: left to itself the
    collector would find tens of thousands of objects at once, look at each for a microsecond, and
    the loop would stand still meanwhile. So what is young is looked at whenever the loop turns, and
    what has survived that when there is enough of it.
"""

from __future__ import annotations

import gc

import gevent

# A full collection over 10,000 streams stalls everything for 150 to 450 ms, so it comes after 300
# million objects. The first two bound what a single turn of the loop may leave behind.
THRESHOLDS = (1_000, 3, 100_000)
# A look at so many takes two to three milliseconds. What a request in flight holds is among them:
# were they fewer, more of it would be taken for old before the request ends.
MOST_SURVIVORS = 2_000
# To count them takes some ten microseconds.
COUNT_TURNS = 4


class Collector:
    """Collects in the thread of the loop that it was made in."""

    def __init__(self) -> None:
        """Collect nothing yet."""
        self._turn = gevent.get_hub().loop.check(ref=False)

    def start(self) -> None:
        """Let what there is now stay for ever; collect what comes whenever the loop turns."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        self._turn.start(collect)

    def stop(self) -> None:
        """Turn no more."""
        self._turn.stop()
        self._turn.close()


def collect() -> None:
    """Collect what is young, and what survived when it is much."""
    gc.collect(0)
    if gc.get_count()[1] % COUNT_TURNS == 0 and len(gc.get_objects(1)) > MOST_SURVIVORS:
        gc.collect(1)

"""A long walk over many things in short passes: between two of them the event loop is free.

`gevent.sleep(0)` would not do: up to fifty greenlets that only pass the turn on run in one go,
however long each of them takes, before the loop looks at sockets and timers again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import gevent

T = TypeVar("T")

# A loop with more to do than it can is never idle: the walk must not wait for that.
LONGEST_PAUSE_SECONDS = 0.005


def pause() -> None:
    """Return when the loop has done what was waiting, or so much of it as fits the pause."""
    with gevent.Timeout(LONGEST_PAUSE_SECONDS, exception=False):
        gevent.idle()


def over(things: Iterable[T], each_pass: int) -> Iterator[T]:
    """Yield every one of `things` as they are now; after so many of them others may run.

    What others change meanwhile, such as that one of them is gone, is the caller's to look at.
    """
    for some in parts(things, each_pass):
        yield from some


def parts(things: Iterable[T], each_pass: int) -> Iterator[list[T]]:
    """Yield `things` as they are now in parts of so many; after each such part others may run."""
    everything = list(things)
    for first in range(0, len(everything), each_pass):
        part = everything[first : first + each_pass]
        yield part
        if len(part) == each_pass:
            pause()

"""What a worker does that cannot start: at the first start it ends the service, later it waits.

Theory of operation
    gunicorn ends the whole service when a worker cannot start, and all its streams with it. That is
    right as long as nobody has served: whoever starts it reads why. Later a worker comes in
    another's place, or beside others, and finds what is there by then: a broken key file, a package
    half installed, tables of another version. Such a one says so, waits, and leaves; gunicorn
    starts the next one, a new process, which looks at all of it anew.

Rules
    - Whoever waits takes no connection. Those who serve take them; where nobody does, clients stand
      in the kernel's queue, and are served by the first worker that can.
    - It leaves at once when it is told to, and when its master is gone.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

import gevent
from gunicorn.arbiter import Arbiter

from events_app import errors

# Short for somebody who has just mended it, and long enough for a log that can be read.
AGAIN_SECONDS = 10
_LOOKS_A_SECOND = 5


def shared_memory() -> mmap.mmap:
    """Make a master's byte, before it forks: no worker has served, none has failed."""
    return mmap.mmap(-1, 1)


class Service:
    """What the workers of one master know of each other: a byte of memory that they share."""

    _NOTHING, _HAS_SERVED, _ENDS = range(3)

    def __init__(self, memory: mmap.mmap) -> None:
        """Take what `shared_memory` made."""
        self._shared = memory

    @property
    def has_served(self) -> bool:
        """Whether any worker has ever started."""
        return self._shared[0] == self._HAS_SERVED

    @property
    def ends(self) -> bool:
        """Whether a worker has said that the service does not start, and nobody has served."""
        return self._shared[0] == self._ENDS

    def begin(self) -> None:
        """Say that a worker serves."""
        self._shared[0] = self._HAS_SERVED

    def end(self) -> None:
        """Say that the service does not start."""
        self._shared[0] = self._ENDS

    def forget_end(self) -> None:
        """Let the next worker say it: whoever said it was killed before gunicorn heard of it."""
        if self.ends:
            self._shared[0] = self._NOTHING


def give_up(worker: Any, fault: BaseException) -> None:
    """Return when `worker`, which cannot start for `fault`, is to leave and others go on.

    Raises what makes gunicorn end the service.
    """
    # With a socket of its own (--reuse-port) the kernel would go on to give it connections.
    for listening in worker.sockets:
        listening.close()
    if worker.service.has_served:
        worker.log.error(
            "a worker cannot start, and is tried again in %d s; the others go on: %s",
            AGAIN_SECONDS,
            words_of(fault),
            exc_info=None if _is_plain(fault) else fault,
        )
        _wait(worker)
        return
    if worker.service.ends:
        # gunicorn does not survive a second one that ends the service in the midst of its stop.
        _wait(worker)
        if worker.alive:
            worker.service.forget_end()
        return
    worker.service.end()
    _end_service(worker, fault)


def _wait(worker: Any) -> None:
    for _ in range(AGAIN_SECONDS * _LOOKS_A_SECOND):
        worker.notify()
        if not worker.alive:
            return
        gevent.sleep(1 / _LOOKS_A_SECOND)


def _end_service(worker: Any, fault: BaseException) -> None:
    if not _is_plain(fault):
        raise fault
    worker.log.critical("events-app does not start: %s", words_of(fault))
    # With any other code gunicorn would start the worker again, for ever.
    sys.exit(Arbiter.APP_LOAD_ERROR)


def _is_plain(fault: BaseException) -> bool:
    """Tell whether its words say all that there is to say."""
    return isinstance(fault, errors.EventsError | SystemExit)


def words_of(fault: BaseException) -> str:
    """Say why a worker cannot start."""
    if isinstance(fault, errors.EventsError):
        return fault.message
    if isinstance(fault, SystemExit):
        # What `wsgi.py` says to a person in a terminal has its reason behind it.
        return str(fault.__cause__ or f"the application ends itself: {fault.code}")
    return f"{type(fault).__name__}: {fault}"

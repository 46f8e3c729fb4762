"""gunicorn's gevent worker, which leaves nobody behind: not at its master's death, nor at its own.

Theory of operation
    When its master is gone, gunicorn's worker exits where it stands, and every stream breaks off.
    This one takes it for a SIGTERM: streams are told, cursors stored, and the port is free soon.
    When gunicorn's worker stops to listen, whom the kernel has let in and nobody has taken yet
    gets a reset. This one takes everybody first.
"""

from __future__ import annotations

import os
import time

import gevent
from gevent.server import StreamServer
from gunicorn.workers import ggevent

# In a storm of clients the queue may never be empty; one that is refused comes again.
LAST_SECONDS = 0.5


class Acceptor(StreamServer):  # type: ignore[misc] # gevent has no types
    """Takes connections; the last ones when it closes."""

    def close(self) -> None:
        """Take whoever waits in the kernel's queue, and listen no more."""
        # After an error gevent closes it within its loop, where nothing may wait.
        if not self.closed and gevent.getcurrent() is not gevent.get_hub():
            self.stop_accepting()
            self._take_the_last()
        super().close()

    def _take_the_last(self) -> None:
        """Return when the queue is empty and everybody's greenlet has begun.

        The first thing gunicorn does there is to ask the listening socket for its name.
        """
        until = time.monotonic() + LAST_SECONDS
        gevent.sleep(0)
        while self._take_all() and time.monotonic() < until:
            gevent.sleep(0)

    def _take_all(self) -> int:
        taken = 0
        while not self.full() and (connection := self.do_read()):
            self.do_handle(*connection)
            taken += 1
        return taken


class Worker(ggevent.GeventWorker):  # type: ignore[misc] # gunicorn has no types
    """One process that serves streams."""

    ppid: int
    alive: bool

    def run(self) -> None:
        """Serve until the end."""
        # The only way to bring one's own: gunicorn makes it under this name.
        ggevent.StreamServer = Acceptor
        super().run()

    def notify(self) -> None:
        """Say that this worker lives, once a second; begin to leave when the master does not."""
        parent = os.getppid()
        if parent != self.ppid:
            self.log.error("the master is gone, and so this worker ends")
            self.ppid = parent
            self.alive = False
        super().notify()

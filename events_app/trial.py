"""Whether workers would start with what is there now: the code, settings, keys and the database.

Asked before a reload, for gunicorn ends the old workers whether or not the new ones can start.

A program: it says nothing if they would, and otherwise what is wrong.
"""

from __future__ import annotations

import os
import sys

import gevent
from gevent import monkey

from events_app import errors, sidecar
from events_app.app import create_app

# In a process of its own, which reads the code anew, and patched like a worker.
COMMAND = (sys.executable, "-m", "gevent.monkey", "--module", "events_app.trial")

# Only a database that does not answer takes longer, and a worker would wait for that.
LONGEST_SECONDS = 20.0

# gevent's own would close when its loop turns, and the master has none.
_close = monkey.get_original("os", "close")


def fault() -> str:
    """Return what would keep workers from starting; an empty text if nothing would.

    Blocks, and is for gunicorn's master. Not by `subprocess`, of which gevent has its own: that
    waits by a signal handler, and the master would hear no more of its workers' ends.
    """
    reading, writing = os.pipe()
    said_into = [(os.POSIX_SPAWN_DUP2, writing, each) for each in (1, 2)]
    pid = os.posix_spawn(COMMAND[0], COMMAND, os.environ, file_actions=said_into)
    _close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as said:
        words = said.read().strip()
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        return ""
    return words or "the trial of a start ended without a word"


def main() -> None:
    """Do all that may keep a worker from starting; exit with what does."""
    try:
        parts = sidecar.of(create_app())
        with gevent.Timeout(LONGEST_SECONDS, exception=False):
            parts.refuse_unfit()
    except errors.EventsError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()

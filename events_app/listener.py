"""LISTEN on PostgreSQL: a hint that brings the tailer's next turn forward.

Nothing depends on a notification: the tailer polls all the same. The connection is its own,
outside the pool and straight to the server, because a pooler in transaction mode drops LISTEN.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
import psycopg
from sqlalchemy import make_url

from events_app import database, failures
from events_app.sequencer import CHANNEL

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
# A silent death of the connection costs no change, only the poll interval; still find out.
KEEP_ALIVE = {
    "connect_timeout": database.CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def run(url: str, ring: Callable[[], object]) -> None:
    """Call `ring` for each notification, and after each (re)connect; never returns."""
    listener = Listener(url, ring)
    while True:
        listener.listen()
        gevent.sleep(RETRY_SECONDS)


class Listener:
    """Listens to one database, and says when it cannot."""

    def __init__(self, url: str, ring: Callable[[], object]) -> None:
        """Listen at `url`, which may name several hosts."""
        parsed = make_url(url)
        _, arguments = parsed.get_dialect()().create_connect_args(parsed)
        self._arguments: dict[str, Any] = {**arguments, **KEEP_ALIVE}
        self._ring = ring
        self._interrupted = False

    def listen(self) -> None:
        """Ring until the connection ends; said once, not with every try."""
        try:
            with psycopg.connect(**self._arguments, autocommit=True) as connection:
                self._follow(connection)
        except psycopg.Error as error:
            if not self._interrupted:
                log.warning("LISTEN interrupted: %s", failures.words_of(error))
            self._interrupted = True

    def _follow(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        if self._interrupted:
            log.warning("LISTEN works again")
        self._interrupted = False
        self._ring()  # what was moved while nobody listened
        for _ in connection.notifies():
            self._ring()

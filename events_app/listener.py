"""LISTEN on PostgreSQL: a hint that brings the tailer's next turn forward.

Nothing depends on a notification: the tailer polls all the same. The connection is its own,
outside the pool and straight to the server, because a pooler in transaction mode drops LISTEN.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
import psycopg
from sqlalchemy import make_url

from events_app.sequencer import CHANNEL

log = logging.getLogger(__name__)

RETRY_SECONDS = 5
# A silent death of the connection costs no change, only the poll interval; still find out.
KEEP_ALIVE = {
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


def run(url: str, ring: Callable[[], object]) -> None:
    """Call `ring` for each notification, and after each (re)connect; never returns."""
    parsed = make_url(url).set(drivername="postgresql").update_query_dict(KEEP_ALIVE)
    address = parsed.render_as_string(hide_password=False)
    silent = False
    while True:
        try:
            _listen(address, ring)
        except psycopg.Error as error:
            log.log(logging.INFO if silent else logging.WARNING, "LISTEN interrupted: %s", error)
            silent = True
        gevent.sleep(RETRY_SECONDS)


def _listen(address: str, ring: Callable[[], object]) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        ring()  # what was moved while nobody listened
        for _ in connection.notifies():
            ring()

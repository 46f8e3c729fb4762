"""Ends what is watched through a grant that is there no more. One per worker."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import gevent
from sqlalchemy.exc import SQLAlchemyError

from events_app import failures, sharing
from events_app.admission import Admission
from events_app.database import Database
from events_app.scope import Watcher

log = logging.getLogger(__name__)

# Whoever loses a permission may hear of changes for so long: soon enough for a person who stops
# sharing, rare enough for a database with some hundred workers.
LOOK_SECONDS = 2.0


def run(database: Database, admission: Admission) -> None:
    """Look for ever; ends when the greenlet is killed."""
    while True:
        gevent.sleep(LOOK_SECONDS)
        try:
            look(database, admission)
        except SQLAlchemyError:
            continue  # away: nothing is read from it that could be told; the tailer says so
        except Exception:
            log.exception("grants cannot be looked at")


def look(database: Database, admission: Admission) -> None:
    """Withdraw what is watched through another grant than the present one, or through none."""
    guests = admission.through_shares()
    if not guests:
        return
    watchers = {each: each.watcher for each in guests}
    present = _present(database, list(watchers.values()))
    for guest, watcher in watchers.items():
        if watcher.is_resolved and present.get(watcher) != watcher:
            guest.withdraw()


def _present(database: Database, watchers: Sequence[Watcher]) -> Mapping[Watcher, Watcher | None]:
    """Look the grants up: none where a database that serves the journal refuses to tell them."""
    try:
        return database.read(lambda db: sharing.resolve_all(db, watchers))
    except SQLAlchemyError as error:
        if failures.is_away(error):
            raise
        log.error("grants cannot be read and permit nothing: %s", failures.words_of(error))
        return {}

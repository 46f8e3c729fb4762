"""What every worker does now and then: prune the journal, forget clients that never came back.

In small batches, so that nobody waits for them; two workers at it only share the work.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator

import gevent

from events_app import expiry, failures, journal
from events_app.database import Database
from events_app.settings import Settings
from events_app.tally import Tally

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
# Between two batches, so that moving and reading go first.
BATCH_PAUSE_SECONDS = 0.05


def run(database: Database, settings: Settings, tally: Tally) -> None:
    """Prune and expire for ever; ends when the greenlet is killed."""
    is_put_off = False
    while True:
        gevent.sleep(EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 -- guards nothing
        try:
            once(database, settings, tally)
        except Exception as error:  # noqa: BLE001 -- the next round tries again
            if not is_put_off:
                log.warning("upkeep is put off: %s", failures.words_of(error))
            is_put_off = True
        else:
            if is_put_off:
                log.warning("upkeep goes on")
            is_put_off = False


def once(database: Database, settings: Settings, tally: Tally) -> None:
    """Remove everything that is due. Raises what the database raises."""
    retention, age = settings.retention_seconds, settings.offline_max_age_seconds
    if retention is not None:
        _repeat(lambda: _prune(database, retention), "journal rows pruned")
    _repeat(lambda: _expire(database, age, tally), "subscriptions forgotten")


def _prune(database: Database, age_seconds: float) -> int:
    return database.write(lambda db: journal.prune(db, age_seconds))


def _expire(database: Database, age_seconds: float, tally: Tally) -> int:
    gone = database.write(lambda db: expiry.expire(db, age_seconds))
    tally.forgot("unseen", **gone._asdict())
    return sum(gone)


def batches(batch: Callable[[], int]) -> Iterator[int]:
    """Repeat until nothing is left; yield how many each batch removed."""
    while removed := batch():
        yield removed
        gevent.sleep(BATCH_PAUSE_SECONDS)


def _repeat(batch: Callable[[], int], what: str) -> None:
    if total := sum(batches(batch)):
        log.info("%s: %d", what, total)

"""The parts of one worker, joined: what sits in `app.extensions["events"]`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import gevent
from flask import Flask
from gevent.lock import BoundedSemaphore
from psycopg import waiting
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from events_app import (
    database,
    errors,
    failures,
    fitness,
    keys,
    listener,
    poll,
    revocation,
    settings,
    sharing,
    subscriptions,
    upkeep,
    withdrawal,
)
from events_app.admission import Admission, Caps
from events_app.arrivals import Arrivals
from events_app.clock import SystemClock
from events_app.database import Database
from events_app.delivery import Ledger
from events_app.herald import Herald
from events_app.jwks import Fetched
from events_app.line import Line
from events_app.peers import Peer, Watch
from events_app.revocation import Revocation
from events_app.scope import Watcher
from events_app.settings import Settings
from events_app.stream import Request, Stream
from events_app.surroundings import Pace, Surroundings
from events_app.tailer import Tailer
from events_app.tally import Tally
from events_app.writing import Writing

log = logging.getLogger(__name__)

EXTENSION = "events"
# A mover that is killed between two statements leaves a broken transaction to the pool, which says
# so with a traceback. A database that is away takes longer, and is not waited for.
LAST_TRANSACTION_SECONDS = 2.0
KILLS = 3

# A first frame leaves within a second, and is not put off for longer by a slow database.
LOOK_SECONDS = 0.5

T = TypeVar("T")


class Sidecar:
    """Everything a worker runs. Made per process, after the fork; `start` sets it going."""

    def __init__(self, configured: Settings) -> None:
        """Join the parts; connects to nothing and starts nothing.

        Raises `SettingsError` for a key file or an installed package that cannot be used.
        """
        self.settings = configured
        self.clock = SystemClock()
        self.tally = Tally()
        self.database = Database(configured.database_url)
        self.tailer = Tailer(self.database, self.clock, configured.poll_interval_seconds)
        self.ledger = Ledger(self.database, self.clock, configured.confirm_seconds)
        self.keys = keys.source(configured, self.clock)
        self.revocation = Revocation(revocation.installed(), configured.token_recheck_seconds)
        self.admission = Admission(_caps(configured), self.clock, self.tally)
        self.writing = Writing(self.database, self.tailer, self.clock)
        self._herald = Herald(
            self.database,
            self.tailer,
            self.clock,
            self.tally,
            configured.debounce_seconds,
            configured.debounce_max_seconds,
        )
        self._watch = Watch()
        self._greenlets: list[gevent.Greenlet[..., Any]] = []
        self._transacting: list[gevent.Greenlet[..., Any]] = []
        self._turns = BoundedSemaphore(database.STREAMS_AT_ONCE)
        pace = _pace(configured)
        self._around = Surroundings(
            self.database,
            self.tailer,
            self.ledger,
            self.clock,
            pace,
            self.tally,
            gevent.spawn,
            Arrivals(self.database, self.clock, pace.limits, self._turns).connect,
            self._turns,
            self._herald,
        )

    def start(self) -> None:
        """Begin to move, follow and store.

        Raises `SettingsError` without a key, `DatabaseError` for a database that answers and
        cannot serve us. One that does not answer is waited for.
        """
        self.refuse_unfit()
        self._transacting = [gevent.spawn(self.tailer.run), gevent.spawn(self.ledger.run)]
        parts = [self._watch.run, self._herald.run, self.revocation.run]
        parts += [self.keys.run] if isinstance(self.keys, Fetched) else []
        self._greenlets = [*self._transacting, *map(gevent.spawn, parts)]
        self._greenlets.append(gevent.spawn(upkeep.run, self.database, self.settings, self.tally))
        self._greenlets.append(gevent.spawn(withdrawal.run, self.database, self.admission))
        if self.database.is_postgresql:
            url = self.settings.listen_url or self.settings.database_url
            self._greenlets.append(gevent.spawn(listener.run, url, self.tailer.bell.set))

    def refuse_unfit(self) -> None:
        """Raise what `start` raises."""
        settings.require_keys(self.settings)
        self.refuse_blocking_driver()
        self._refuse_unusable_database()

    def _refuse_unusable_database(self) -> None:
        try:
            self.database.read(fitness.refuse_unusable)
        except SQLAlchemyError as error:
            where, words = settings.safe_url(self.settings.database_url), failures.words_of(error)
            if not failures.is_away(error):
                raise errors.DatabaseError(f"the database at {where} refuses: {words}") from error
            log.error("the database at %s is away, streams are held: %s", where, words)

    def refuse_blocking_driver(self) -> None:
        """Raise `UnsupportedDatabase` when psycopg was imported before gevent patched it."""
        if self.database.is_postgresql and waiting.wait is getattr(waiting, "wait_c", None):
            raise errors.UnsupportedDatabase(
                "psycopg waits in C and stops the event loop: it was imported before gevent "
                "patched the process; start gunicorn with -c gunicorn.conf.py"
            )

    def stop(self) -> None:
        """Tell every stream that the worker stops; they end over `EVENTS_DRAIN` seconds."""
        self.writing.stop()
        self.admission.stop()

    def close(self) -> None:
        """Store what is still to be stored, and let go of the database."""
        self.tailer.stop()
        self.ledger.stop()
        gevent.joinall(self._transacting, timeout=LAST_TRANSACTION_SECONDS)
        self._end_greenlets()
        self.ledger.flush()
        self.database.close()

    def _end_greenlets(self) -> None:
        """End what runs here; a transaction may swallow the word, and so it is said again."""
        for _ in range(KILLS):
            left = [each for each in self._greenlets if not each.ready()]
            gevent.killall(left, block=False)
            gevent.joinall(left, timeout=LAST_TRANSACTION_SECONDS)

    def look_up(self, work: Callable[[Connection], T]) -> T:
        """Read for a request that waits for its answer, in line with the streams.

        However many ask, the tailer and the ledger find a connection. Raises `DatabaseAway`.
        """
        try:
            with self._turns:
                return self.database.read(work)
        except SQLAlchemyError as error:
            if failures.is_away(error):
                raise errors.DatabaseAway from error
            raise

    def mounted(self, watcher: Watcher) -> Watcher:
        """Return `watcher` with what its share stands for.

        Raises `ForeignFolder` where that is not granted, and `DatabaseAway`.
        """
        if watcher.share is None:
            return watcher
        found = self.look_up(lambda db: sharing.resolve(db, watcher))
        if found is None:
            raise errors.ForeignFolder
        return found

    def mounted_soon(self, watcher: Watcher) -> Watcher:
        """Do the same for a stream, which is held rather than refused while the database is away.

        It looks its share up again when it begins. Raises `ForeignFolder`.
        """
        if watcher.share is None:
            return watcher
        look = gevent.spawn(self._mounted_or_why_not, watcher)
        try:
            found = look.get(timeout=LOOK_SECONDS)
        except gevent.Timeout:
            return watcher
        if isinstance(found, errors.ForeignFolder):
            raise found
        return watcher if isinstance(found, errors.DatabaseAway) else found

    def _mounted_or_why_not(
        self, watcher: Watcher
    ) -> Watcher | errors.ForeignFolder | errors.DatabaseAway:
        try:
            return self.mounted(watcher)
        except (errors.ForeignFolder, errors.DatabaseAway) as error:
            return error

    def open_stream(self, request: Request, peer: Peer, claims: str = "") -> Admitted:
        """Admit a stream, at once or when there is room, and return its frames.

        `claims` is what `Revocation.admit` returned for its token.

        Raises `TooManyStreams`.
        """
        came_at = self.clock.monotonic()
        self.admission.admit(request.watcher)
        good_for = request.token_seconds - (self.clock.monotonic() - came_at)
        request = request._replace(token_seconds=good_for)
        dead_after = self.settings.confirm_seconds / 2 or self.settings.send_timeout_seconds
        peer.limit(self.settings.send_timeout_seconds, dead_after)
        stream = Stream(self._around, request, peer)
        self._watch.add(peer, stream.peer_closed)
        self.revocation.watch(stream, claims)
        self.admission.enter(stream)
        return Admitted(self, stream, peer)

    def answer_poll(self, request: poll.Request, peer: Peer, claims: str = "") -> poll.Page:
        """Return a page of changes. One that is waited for takes a stream's place meanwhile.

        `claims` is what `Revocation.admit` returned for its token. Raises `TooManyStreams`,
        `CannotResume`, `DatabaseAway`, and what says that nothing is permitted any more.
        """
        asked = poll.Poll(self._around, request)
        if not request.wait_seconds:
            return asked.page()
        self.admission.admit(request.watcher)
        self._watch.add(peer, asked.give_up)
        self.admission.enter(asked)
        try:
            page = asked.page()
            self._permit_still(request.watcher, claims)
        finally:
            self._watch.remove(peer)
            self.admission.leave(asked)
        return page

    def _permit_still(self, watcher: Watcher, claims: str) -> None:
        """Look again, after a wait, whether what was read may be told.

        What was there before a permission went may be told; what came afterwards may not, and the
        looks at open streams are seconds apart. Raises `ForeignFolder`, `DatabaseAway` and what
        `Revocation.admit` raises.
        """
        if claims:
            self.revocation.admit(json.loads(claims))
        if self.mounted(watcher) != watcher:
            raise errors.ForeignFolder

    def dismiss(self, stream: Stream, peer: Peer) -> None:
        """Count a stream out that has ended."""
        self._watch.remove(peer)
        self.revocation.forget(stream)
        self.admission.leave(stream)


class Admitted(Iterable[bytes]):
    """The frames of an admitted stream.

    A generator that was never begun runs no `finally`, so leaving is not left to one: the server
    calls `close` in any case.
    """

    __slots__ = ("_frames", "_peer", "_sidecar", "_stream")

    def __init__(self, sidecar: Sidecar, stream: Stream, peer: Peer) -> None:
        """Wrap the frames of `stream`."""
        self._sidecar = sidecar
        self._stream = stream
        self._peer = peer
        self._frames = stream.frames()

    def __iter__(self) -> Iterator[bytes]:
        """Give the server the frames themselves: one iterator less between it and a stream."""
        return self._frames

    def may_write_past(self, line: Line) -> None:
        """Let frames be written by `line` while the server waits for the next one."""
        self._stream.may_write_past(line)

    def close(self) -> None:
        """End the stream and count it out."""
        try:
            self._frames.close()
        finally:
            self._sidecar.dismiss(self._stream, self._peer)


def _caps(configured: Settings) -> Caps:
    return Caps(
        of_worker=configured.max_streams,
        of_user=configured.max_streams_per_user,
        of_subscription=configured.max_streams_per_subscription,
    )


def _pace(configured: Settings) -> Pace:
    return Pace(
        debounce=configured.debounce_seconds,
        debounce_max=configured.debounce_max_seconds,
        keep_alive=configured.keep_alive_seconds,
        drain=configured.drain_seconds,
        lifetime=configured.stream_lifetime_seconds,
        limits=subscriptions.Limits(
            configured.replay_max_rows, configured.max_subscriptions_per_user
        ),
    )


def of(app: Flask) -> Sidecar:
    """Return the sidecar that belongs to `app`."""
    found: Sidecar = app.extensions[EXTENSION]
    return found

"""One connection's life: a generator of frames.

Theory of operation
    A stream begins *held*: the subscription is taken in another greenlet, and keep-alives go out
    while the database is away or a backlog is being moved. Then it says `subscribed` or `resumed`
    and *follows*: its follower reads what is new, and a run that has settled is sent. There is one
    loop, and it waits in one place, on one bell.

Rules
    - Every `id` is the follower's safe point: it never passes a pending row. Parts of a batch
      repeat the `id` that the client has, which takes one that moves for the end of the batch.
    - The greenlet that waits is shallow: whatever needs SQL runs in another one and rings the bell.
      Stack pages that were touched once never come back while a greenlet lives.
    - Nothing is told after the end of the watched folder but `reconnect-required`, whose `id` does
      not resume. When that and every other end comes, `ending` says.
    - It never ends because the database is away.
    - Where it stands with others, it is told with them (`audience`), and its greenlet only waits.
      Others write for it while it waits, and at no other time: nothing comes between the bytes of a
      frame.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

from gevent.event import Event

from events_app import chronicle, ending, schema, sharing, sse, subscriptions
from events_app.audience import Audience, Kind, Telling
from events_app.chronicle import Chronicle
from events_app.clock import Clock
from events_app.database import Database
from events_app.delivery import Delivery, Ledger
from events_app.ending import Ending
from events_app.event import Cursor, Point
from events_app.follower import Follower
from events_app.herald import Herald
from events_app.line import Line
from events_app.peers import Peer
from events_app.resumption import Start
from events_app.scope import Watcher
from events_app.subscriptions import Arrival
from events_app.tailer import Tailer
from events_app.tally import Tally

# The first frame leaves within a second, whatever the database does.
FIRST_KEEP_ALIVE_SECONDS = 0.8
RETRY_SECONDS = 1.0
# Streams that were told the same change fall silent together. Were their next keep-alives due in
# one turn of the loop, it would stand still till the last is written.
KEEP_ALIVE_SPREAD = 0.1


class Pace(NamedTuple):
    """The settings that streams live by; times in seconds."""

    debounce: float
    debounce_max: float
    keep_alive: float
    drain: float
    lifetime: float | None
    limits: subscriptions.Limits


class Surroundings(NamedTuple):
    """What all streams of a worker share. `run_aside` starts a function in another greenlet.

    `connect` is `Arrivals.connect`; `turns` bounds how many streams are at the database at once.
    """

    database: Database
    tailer: Tailer
    ledger: Ledger
    clock: Clock
    pace: Pace
    tally: Tally
    run_aside: Callable[[Callable[[], None]], object]
    connect: Callable[[Arrival, Callable[[], bool]], Start | None]
    turns: AbstractContextManager[object]
    herald: Herald


class Request(NamedTuple):
    """What one client asked for. `token_seconds` is how long its token is still good."""

    watcher: Watcher
    last_event_id: str | None
    payload: sse.Payload
    token_seconds: float


class Stream:
    """One connection of one watcher."""

    __slots__ = (
        "_around",
        "_audience",
        "_bell",
        "_busy",
        "_chronicle",
        "_closed",
        "_delivery",
        "_ending",
        "_epoch",
        "_follower",
        "_heard",
        "_is_idle",
        "_keep_alive",
        "_line",
        "_peer",
        "_repeated_upto",
        "_request",
        "_retry_at",
        "_said",
        "_start",
        "_unfinished",
        "_written_at",
    )

    def __init__(self, around: Surroundings, request: Request, peer: Peer) -> None:
        """Prepare; nothing happens before `frames` is iterated."""
        now = around.clock.monotonic()
        self._around = around
        self._request = request
        self._peer = peer
        self._bell = Event()
        self._closed = False
        self._follower: Follower | None = None
        self._audience: Audience | None = None
        self._line: Line | None = None
        self._unfinished: tuple[Telling, bytes] | None = None
        self._is_idle = False
        self._heard = 0
        self._delivery: Delivery | None = None
        self._start: Start | None = None
        self._epoch = self._repeated_upto = 0
        self._said = Point(0, 0)
        self._busy = False
        self._retry_at = now
        share = 1 - random.uniform(0, KEEP_ALIVE_SPREAD)  # noqa: S311 -- guards nothing
        self._keep_alive = share * around.pace.keep_alive
        self._written_at = now + FIRST_KEEP_ALIVE_SECONDS - self._keep_alive
        self._ending = Ending(now, request.token_seconds, around.pace.lifetime)
        self._chronicle = Chronicle(around.tally, request.watcher, now)

    @property
    def watcher(self) -> Watcher:
        """Who watches what."""
        return self._request.watcher

    # -- told from outside ---------------------------------------------------------------------

    def stop(self, *, late: bool = False) -> None:
        """End soon: the server is shutting down; `late`: it was, when this stream came."""
        if self._ending.stop(self._now(), self._around.pace.drain, late=late):
            self.wake()

    def withdraw(self) -> None:
        """End at once and tell nothing more: what permitted it is gone."""
        self._ending.withdraw(self._now())
        self.wake()

    def revoke(self) -> None:
        """End at once: its token was revoked."""
        self._ending.revoke(self._now())
        self.wake()

    def peer_closed(self) -> None:
        """End at once: nobody listens."""
        self._closed = True
        self.wake()

    def may_write_past(self, line: Line) -> None:
        """Let others write frames by `line` while the greenlet of this stream waits."""
        self._line = line

    # -- the loop ------------------------------------------------------------------------------

    @property
    def lag_positions(self) -> int:
        """Positions from what this client was told to the last row that was read.

        Where nothing of its user's lies between them, it lags behind nothing.
        """
        follower = self._audience or self._follower
        if follower is None:
            return 0
        tailer, read, safe = self._around.tailer, follower.read, self._safe()
        if safe == read and tailer.is_silent_after(self.watcher.owner_id, read.position):
            return 0
        return max(0, tailer.end.position - safe.position)

    def frames(self) -> Generator[bytes]:
        """Yield the frames until the end; close the generator when the peer is gone."""
        why = chronicle.DROPPED
        try:
            while not self._closed:
                yield from self._due_frames()
                if self._ending.is_due(self._now()):
                    yield from self._last_frame()
                    why = self._ending.reason.name.lower()
                    return
                self._wait()
        finally:
            self._is_idle = False
            if self._closed and why == chronicle.DROPPED:
                why = chronicle.CLIENT_LEFT
            self._chronicle.ends(why, self._now())
            self._closed = True
            handled = self._safe().position
            if self._audience is not None:
                self._audience.remove(self)
                self._audience = None  # which may be about to tell it
            if self._follower is not None:
                self._around.tailer.remove_bell(self.watcher.owner_id, self._bell)
            if self._delivery is not None:
                self._around.ledger.close(self._delivery, handled)

    def _wait(self) -> None:
        """Wait until something is to be done; only meanwhile may others write for this greenlet."""
        self._join()
        self._is_idle = True
        self._around.clock.wait(self._bell, self._pause())
        self._is_idle = False
        self._bell.clear()

    def _due_frames(self) -> Iterator[bytes]:
        if self._unfinished is not None:
            self._finish(*self._unfinished)
        if self._audience is not None:
            self._keep_up(self._audience)
        elif self._follower is None:
            yield from self._begin()
        if self._follower is not None:
            yield from self._follow(self._follower)
        if self._now() >= self._written_at + self._keep_alive:
            frame = sse.frame(sse.KEEP_ALIVE, self._id_at(self._safe()))
            yield from self._send(sse.KEEP_ALIVE, frame)

    def _pause(self) -> float:
        times = [self._ending.at, self._written_at + self._keep_alive]
        if (due_at := self._run_due_at()) is not None:
            times.append(due_at)
        if not self._busy and self._retry_at > self._now():
            times.append(self._retry_at)
        return max(0.0, min(times) - self._now())

    def _now(self) -> float:
        return self._around.clock.monotonic()

    def _aside(self, work: Callable[[], None]) -> None:
        """Run `work`, which needs SQL, in another greenlet, unless one is at it or failed now."""
        if not self._busy and self._now() >= self._retry_at:
            self._busy = True
            self._around.run_aside(lambda: self._try(work))

    def _try(self, work: Callable[[], None]) -> None:
        try:
            # Its client may be back already, and a late connect would take the cursor from it.
            if not self._closed:
                work()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is tried again
            self._chronicle.waits(error)
            self._retry_at = self._now() + RETRY_SECONDS
        else:
            self._chronicle.goes_on()
        finally:
            self._busy = False
            self.wake()

    # -- held ----------------------------------------------------------------------------------

    def _begin(self) -> Iterator[bytes]:
        if self._start is None:
            tailer = self._around.tailer
            if tailer.backlogged or tailer.trouble is not None:
                self._retry_at = self._now() + RETRY_SECONDS
            self._aside(self._connect)
        if self._start is not None:
            # What is needed of it is kept; ten thousand idle streams are to hold little.
            start, self._start = self._start, None
            self._epoch, self._repeated_upto = start.epoch, start.repeated_upto
            self._follower = self._follow_from(start.point)
            self._delivery = self._open_delivery(start)
            name, cursor = _first_frame(start), self._id_at(self._safe())
            del start
            frame = sse.frame(name, cursor, retry_seconds=ending.return_seconds())
            yield from self._send(name, frame)

    def _connect(self) -> None:
        if not self._mount():
            return
        request, around = self._request, self._around
        arrival = Arrival(request.watcher, request.last_event_id)
        self._start = start = around.connect(arrival, lambda: self._closed)
        if start is None:
            return
        source = "stored cursor" if request.last_event_id is None else "Last-Event-ID"
        # Not when the frame is sent: logging is deep, and would cost the waiting greenlet a page.
        self._chronicle.begins(_first_frame(start), start.reason or source, start.point.position)
        around.tally.forgot("room", **start.displaced._asdict())

    def _mount(self) -> bool:
        """Look up what a share stands for; what was granted when it was asked for may be gone."""
        if self.watcher.share is None:
            return True
        with self._around.turns:
            found = self._around.database.read(lambda db: sharing.resolve(db, self.watcher))
        if found is None:
            self.withdraw()
            return False
        self._request = self._request._replace(watcher=found)
        return True

    def _follow_from(self, point: Point) -> Follower:
        around = self._around
        around.tailer.add_bell(self.watcher.owner_id, self._bell)
        return Follower(
            around.tailer,
            around.database,
            around.clock,
            self._request.watcher,
            self._epoch,
            point,
            self._repeated_upto,
        )

    def _open_delivery(self, start: Start) -> Delivery | None:
        key = subscriptions.key_of(self._request.watcher)
        if key is None or start.generation is None:
            return None
        state = schema.LIVE if start.resumed else schema.NEW
        delivery = Delivery(
            key,
            start.epoch,
            start.generation,
            self._peer,
            start.point.position,
            state,
            sent=start.repeated_upto,
        )
        self._around.ledger.open(delivery)
        return delivery

    # -- following -----------------------------------------------------------------------------

    def _follow(self, follower: Follower) -> Iterator[bytes]:
        while (moved := follower.advance()) or self._run_is_due():
            if not moved or self._run_is_due():
                yield from self._send_run(follower)
                # Else who reads more slowly than changes come would never be ended.
                if self._closed or self._ending.is_due(self._now()):
                    return
        if follower.end is not None:
            self._ending.give_up(self._now(), follower.end)
        elif follower.needs_page():
            self._aside(lambda: self._fetch_page(follower))

    def _fetch_page(self, follower: Follower) -> None:
        with self._around.turns:
            if not self._closed:
                follower.fetch_page()

    def _run_due_at(self) -> float | None:
        if self._follower is None:
            return None
        return self._follower.due_at(self._around.pace.debounce, self._around.pace.debounce_max)

    def _run_is_due(self) -> bool:
        due_at = self._run_due_at()
        return due_at is not None and self._now() >= due_at

    def _send_run(self, follower: Follower) -> Iterator[bytes]:
        told = follower.fold_run()
        before, after = self._id_at(self._said) or "", self._id_at(told.after) or ""
        frames = sse.event_frames(told.changes, before, after, self._request.payload)
        follower.pass_run()
        for number, frame in enumerate(frames, start=1):
            point = told.after if number == len(frames) else self._said
            yield from self._send(sse.EVENT, frame, point, told.after)
        self._chronicle.told(told.rows, len(told.changes))

    # -- in an audience ------------------------------------------------------------------------

    def _join(self) -> None:
        """Be told with others what all of them are told, where that can be."""
        follower = self._follower
        if follower is None or self._line is None or not follower.has_caught_up:
            return
        if self._busy or follower.safe.position < self._repeated_upto:
            return
        watcher = self.watcher._replace(client_id=None)
        kind = Kind(watcher, self._request.payload, self._epoch)
        audience = self._around.herald.audience(kind, follower.safe)
        if audience is not None:
            audience.members[self] = None
            self._audience, self._heard, self._follower = audience, audience.number, None
            self._around.tailer.remove_bell(watcher.owner_id, self._bell)

    def _keep_up(self, audience: Audience) -> None:
        """Stand where the audience stands now, or go on alone."""
        audience.catch_up()
        # That may have been without us already.
        if self._audience is not None and (audience.is_over or self._heard != audience.number):
            self._go_alone(audience)

    def _go_alone(self, audience: Audience) -> None:
        point = self._safe()
        audience.remove(self)
        self._audience, self._follower = None, self._follow_from(point)

    def leave(self) -> None:
        """Go on alone, from where this stream stands."""
        if self._audience is not None:
            self._go_alone(self._audience)
            self.wake()

    def wake(self) -> None:
        """Look around; until then nobody writes for this stream."""
        self._is_idle = False
        self._bell.set()

    def hear(self, audience: Audience, telling: Telling, now: float) -> bool:
        """Take a frame to the kernel while the greenlet waits; tell whether all of it is there.

        If not, this stream is no member any more: its greenlet goes on before the telling, or
        finishes it.
        """
        if self._audience is not audience or self._heard == telling.number:
            return False
        line = self._line
        if line is None or not self._is_idle:
            self.leave()
            return False
        rest = line.send(telling.frame, telling.chunk)
        self._heard = telling.number
        if rest:
            self._unfinished = telling, rest
            if self._delivery is not None:
                self._delivery.sending(telling.after.position)
            self.leave()
            return False
        self._said, self._written_at = telling.after, now
        if self._delivery is not None:
            self._around.ledger.heard(self._delivery, telling.written)
        return True

    def _finish(self, telling: Telling, rest: bytes) -> None:
        """Write what the kernel did not take at once of a frame, as slowly as it takes it."""
        if self._line is not None:
            self._line.finish(telling.frame, rest)
        self._unfinished = None
        self._note_written(sse.EVENT, telling.frame, telling.after)
        self._chronicle.told(telling.rows, telling.changes)

    # -- writing -------------------------------------------------------------------------------

    def _safe(self) -> Point:
        if self._audience is not None:
            return self._audience.safe(self._heard)
        return Point(0, 0) if self._follower is None else self._follower.safe

    def _id_at(self, point: Point) -> str | None:
        """Return the cursor at `point`; before the start the client's own, or none."""
        if self._follower is None and self._audience is None:
            return self._request.last_event_id
        partly = point.position < self._repeated_upto
        return self._cursor(point)._replace(partly=partly).text()

    def _cursor(self, point: Point) -> Cursor:
        return Cursor.at(self._epoch, point, self.watcher.user_id, self.watcher.folder)

    def _send(
        self,
        name: str,
        frame: bytes,
        point: Point | None = None,
        tells_upto: Point | None = None,
    ) -> Iterator[bytes]:
        """Yield the frame; that we go on afterwards means that the kernel has taken it.

        `point` is where its `id` stands. A part of a batch stands before the rows it tells of,
        which go up to `tells_upto`.
        """
        if self._ending.is_withdrawn and name != sse.RECONNECT_REQUIRED:
            return
        said = point or self._safe()
        if self._delivery is not None:
            self._delivery.sending((tells_upto or said).position)
        yield frame
        self._note_written(name, frame, said)

    def _note_written(self, name: str, frame: bytes, said: Point) -> None:
        self._said, self._written_at = said, self._now()
        self._chronicle.wrote(name, frame)
        if self._delivery is not None:
            self._around.ledger.wrote(self._delivery, said.position, change=name == sse.EVENT)

    def _last_frame(self) -> Iterator[bytes]:
        follower = self._follower
        cursor = self._id_at(self._safe())
        is_over = follower is not None and follower.end is not None
        if is_over or self._ending.is_withdrawn:
            # Without this a browser would replay into the same end for ever.
            cursor = self._cursor(self._safe()).fresh().text()
            if self._delivery is not None:
                self._delivery.state = schema.FRESH
        yield from self._send(sse.RECONNECT_REQUIRED, sse.frame(sse.RECONNECT_REQUIRED, cursor))


def _first_frame(start: Start) -> str:
    return sse.RESUMED if start.resumed else sse.SUBSCRIBED

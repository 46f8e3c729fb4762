"""One connection's life: a generator of frames.

Theory of operation
    A stream begins *held*: the subscription is taken in another greenlet (`beginning`), and
    keep-alives go out while the database is away or a backlog is being moved. Then it says
    `subscribed` or `resumed` and *follows*, standing alone or with others (`footing`). Alone, its
    follower reads what is new, and a run that has settled is sent. With others it hears what all of
    them are told, and has nothing to do but to keep alive. There is one loop, and it waits in one
    place, on one bell.

Rules
    - Every `id` is the follower's safe point: it never passes a pending row. Parts of a batch
      repeat the `id` that the client has, which takes one that moves for the end of the batch.
    - The greenlet that waits is shallow: whatever needs SQL runs in another one and rings the bell.
      Stack pages that were touched once never come back while a greenlet lives.
    - Nothing is told after the end of the watched folder but `reconnect-required`, whose `id` does
      not resume. When that and every other end comes, `ending` says.
    - It never ends because the database is away.
    - Others write for it while its greenlet waits, and at no other time: nothing comes between the
      bytes of a frame.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from gevent.event import Event

from events_app import beginning, chronicle, ending, schema, sse
from events_app.audience import Telling
from events_app.beginning import Beginning
from events_app.chronicle import Chronicle
from events_app.delivery import Delivery
from events_app.ending import Ending
from events_app.event import Cursor, Point
from events_app.follower import Follower
from events_app.footing import Footing
from events_app.line import Line
from events_app.peers import Peer
from events_app.scope import Watcher
from events_app.surroundings import Surroundings

# The first frame leaves within a second, whatever the database does.
FIRST_KEEP_ALIVE_SECONDS = 0.8
RETRY_SECONDS = 1.0
# Streams that were told the same change fall silent together. Were their next keep-alives due in
# one turn of the loop, it would stand still till the last is written.
KEEP_ALIVE_SPREAD = 0.1


class Request(NamedTuple):
    """What one client asked for. `token_seconds` is how long its token is still good."""

    watcher: Watcher
    last_event_id: str | None
    payload: sse.Payload
    token_seconds: float


class Stream:
    """One connection of one watcher.

    `lent_line` is the way to the client's kernel, while others may write there for this stream.
    """

    __slots__ = (
        "_around",
        "_beginning",
        "_bell",
        "_busy",
        "_chronicle",
        "_closed",
        "_delivery",
        "_ending",
        "_footing",
        "_keep_alive",
        "_line",
        "_payload",
        "_retry_at",
        "_said",
        "_unfinished",
        "_written_at",
        "lent_line",
        "watcher",
    )

    def __init__(self, around: Surroundings, request: Request, peer: Peer) -> None:
        """Prepare; nothing happens before `frames` is iterated."""
        now = around.clock.monotonic()
        self._around = around
        self.watcher = request.watcher
        self._payload = request.payload
        self._bell = Event()
        self._closed = False
        self._chronicle = Chronicle(around.tally, request.watcher, now)
        self._beginning: Beginning | None = Beginning(
            around, self._chronicle, peer, request.last_event_id
        )
        self._footing: Footing | None = None
        self._delivery: Delivery | None = None
        self._line: Line | None = None
        self.lent_line: Line | None = None
        self._unfinished: tuple[Telling, bytes] | None = None
        self._said = Point(0, 0)
        self._busy = False
        self._retry_at = now
        share = 1 - random.uniform(0, KEEP_ALIVE_SPREAD)  # noqa: S311 -- guards nothing
        self._keep_alive = share * around.pace.keep_alive
        self._written_at = now + FIRST_KEEP_ALIVE_SECONDS - self._keep_alive
        self._ending = Ending(now, request.token_seconds, around.pace.lifetime)

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
        """Positions from what this client was told to the last row that was read."""
        return 0 if self._footing is None else self._footing.lag_positions(self)

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
            self.lent_line = None
            if self._closed and why == chronicle.DROPPED:
                why = chronicle.CLIENT_LEFT
            self._chronicle.ends(why, self._now())
            self._closed = True
            handled = self._safe().position
            if self._footing is not None:
                self._footing.give_up(self)
                self._footing = None
            if self._delivery is not None:
                self._around.ledger.close(self._delivery, handled)

    def _wait(self) -> None:
        """Wait until something is to be done; only meanwhile may others write for this greenlet."""
        if self._line is not None and self._footing is not None and not self._busy:
            self._footing.join(self, self._payload)
        self.lent_line = self._line
        self._around.clock.wait(self._bell, self._pause())
        self.lent_line = None
        self._bell.clear()

    def _due_frames(self) -> Iterator[bytes]:
        if self._unfinished is not None:
            self._finish(*self._unfinished)
        if self._footing is not None:
            self._footing.keep_up(self)
        elif self._beginning is not None:
            yield from self._begin(self._beginning)
        if (follower := self._follower) is not None:
            yield from self._follow(follower)
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

    def _begin(self, held: Beginning) -> Iterator[bytes]:
        if held.start is None:
            if held.must_wait:
                self._retry_at = self._now() + RETRY_SECONDS
            self._aside(lambda: self._connect(held))
        if (start := held.start) is not None:
            self._beginning = None
            self._footing = Footing(self._around, self.watcher, self._bell, start)
            self._delivery = held.open_delivery(self.watcher, start)
            name, cursor = beginning.first_frame(start), self._id_at(self._safe())
            frame = sse.frame(name, cursor, retry_seconds=ending.return_seconds())
            yield from self._send(name, frame)

    def _connect(self, held: Beginning) -> None:
        found = held.mount(self.watcher)
        if found is None:
            self.withdraw()
        else:
            self.watcher = found
            held.connect(found, lambda: self._closed)

    # -- following -----------------------------------------------------------------------------

    @property
    def _follower(self) -> Follower | None:
        """What reads for this stream alone; None while it is held, or told with others."""
        return None if self._footing is None else self._footing.follower

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
        if (follower := self._follower) is None:
            return None
        return follower.due_at(self._around.pace.debounce, self._around.pace.debounce_max)

    def _run_is_due(self) -> bool:
        due_at = self._run_due_at()
        return due_at is not None and self._now() >= due_at

    def _send_run(self, follower: Follower) -> Iterator[bytes]:
        told = follower.fold_run()
        before, after = self._id_at(self._said) or "", self._id_at(told.after) or ""
        frames = sse.event_frames(told.changes, before, after, self._payload)
        follower.pass_run()
        for number, frame in enumerate(frames, start=1):
            point = told.after if number == len(frames) else self._said
            yield from self._send(sse.EVENT, frame, point, told.after)
        self._chronicle.told(told.rows, len(told.changes))

    # -- told with others ----------------------------------------------------------------------

    def wake(self) -> None:
        """Look around; until then nobody writes for this stream."""
        self.lent_line = None
        self._bell.set()

    def leave(self) -> None:
        """Go on alone, from where this stream stands."""
        if self._footing is not None and self._footing.leave(self):
            self.wake()

    def heard(self, telling: Telling, now: float) -> None:
        """Note that all of a frame was written for this stream `now` (monotonic seconds)."""
        self._said, self._written_at = telling.after, now
        if self._delivery is not None:
            self._around.ledger.heard(self._delivery, telling.written)

    def heard_in_part(self, telling: Telling, rest: bytes) -> None:
        """Write the rest of a frame before anything else, as slowly as the kernel takes it."""
        self._unfinished = telling, rest
        if self._delivery is not None:
            self._delivery.sending(telling.after.position)

    def _finish(self, telling: Telling, rest: bytes) -> None:
        if self._line is not None:
            self._line.finish(telling.frame, rest)
        self._unfinished = None
        self._note_written(sse.EVENT, telling.frame, telling.after)
        self._chronicle.told(telling.rows, telling.changes)

    # -- writing -------------------------------------------------------------------------------

    def _safe(self) -> Point:
        """Return the point up to which everything was told."""
        return Point(0, 0) if self._footing is None else self._footing.safe(self)

    def _id_at(self, point: Point) -> str | None:
        """Return the cursor at `point`; before the start the client's own, or none."""
        if self._footing is not None:
            return self._footing.cursor(point).text()
        return None if self._beginning is None else self._beginning.last_event_id

    def _fresh_id(self) -> str:
        """Return a cursor that resumes in no history, also where none was begun yet."""
        cursor = Cursor.at(0, self._safe(), self.watcher.user_id, self.watcher.folder)
        return cursor.fresh().text()

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
            cursor = self._fresh_id()
            if self._delivery is not None:
                self._delivery.state = schema.FRESH
        yield from self._send(sse.RECONNECT_REQUIRED, sse.frame(sse.RECONNECT_REQUIRED, cursor))

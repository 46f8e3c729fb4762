"""How one stream begins: its share is looked up, its subscription taken, its delivery opened.

Rules
    - Whatever needs SQL is called in another greenlet than the one that waits, and once more when
      it failed: until all of it is done the stream is held.
    - It is let go when the stream follows: ten thousand idle streams are to hold little.
"""

from __future__ import annotations

from collections.abc import Callable

from events_app import schema, sharing, sse, subscriptions
from events_app.chronicle import Chronicle
from events_app.delivery import Delivery
from events_app.peers import Peer
from events_app.resumption import Start
from events_app.scope import Watcher
from events_app.subscriptions import Arrival
from events_app.surroundings import Surroundings


class Beginning:
    """The beginning of one stream. `start` is where it starts, when that is known."""

    __slots__ = ("_around", "_chronicle", "_peer", "last_event_id", "start")

    def __init__(
        self, around: Surroundings, chronicle: Chronicle, peer: Peer, last_event_id: str | None
    ) -> None:
        """Prepare for a client that brought `last_event_id`; nothing happens yet."""
        self._around = around
        self._chronicle = chronicle
        self._peer = peer
        self.last_event_id = last_event_id
        self.start: Start | None = None

    @property
    def must_wait(self) -> bool:
        """Tell whether nothing could follow yet: old rows are being moved, or none can be read."""
        tailer = self._around.tailer
        return tailer.backlogged or tailer.trouble is not None

    def mount(self, watcher: Watcher) -> Watcher | None:
        """Look up what a share stands for; None where nothing is granted any more.

        What was granted when it was asked for may be gone. Raises what the database raises.
        """
        if watcher.share is None:
            return watcher
        with self._around.turns:
            return self._around.database.read(lambda db: sharing.resolve(db, watcher))

    def connect(self, watcher: Watcher, is_over: Callable[[], bool]) -> None:
        """Take the subscription; `start` says where that is, and nothing while it must wait.

        It takes none for a stream that `is_over`. Raises what the database raises.
        """
        arrival = Arrival(watcher, self.last_event_id)
        self.start = start = self._around.connect(arrival, is_over)
        if start is None:
            return
        source = "stored cursor" if self.last_event_id is None else "Last-Event-ID"
        # Not when the frame is sent: logging is deep, and would cost the waiting greenlet a page.
        self._chronicle.begins(first_frame(start), start.reason or source, start.point.position)
        self._around.tally.forgot("room", **start.displaced._asdict())

    def open_delivery(self, watcher: Watcher, start: Start) -> Delivery | None:
        """Let the ledger look after what is delivered; None where nothing is remembered."""
        key = subscriptions.key_of(watcher)
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


def first_frame(start: Start) -> str:
    """Name the frame that begins a stream."""
    return sse.RESUMED if start.resumed else sse.SUBSCRIBED

"""Whatever happens in the middle of a telling, no `id` says more or less than what was told.

A telling to thousands goes in passes, between which the loop is free. Here a pass is one member,
and between two of them anything may happen, several times.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import gevent
import pytest
from sqlalchemy import select

from events_app import herald, passes, schema, tailer
from events_app.event import Cursor
from events_app.scope import Watcher
from events_app.stream import Request
from tests import reused
from tests.frames import Frame
from tests.hall import Hall, Listener
from tests.worker import CLIENT, OTHER, watcher

SEEDS = 12
FOLDERS = ("/", "/docs", "/docs", "/docs")
USERS = ("42", "42", "42", "42", "43")
CLIENTS = (CLIENT, OTHER, None)
# A frame with it does not fit what is left of the kernel's buffer.
LONG_PATH = ["x" * 200] * 19
# What may happen, and how often.
HAPPENINGS = {
    "come": 3,
    "change": 4,
    "wake": 2,
    "keep_alive": 3,
    "leave": 2,
    "stall": 2,
    "go_on": 4,
    "go": 2,
    "revoke": 1,
    "withdraw": 1,
    "stop": 1,
}


class Entry(NamedTuple):
    """A row of the journal: each is about a file of its own, so that nothing is folded."""

    position: int
    user_id: str
    client_id: str | None
    file_id: str
    from_path: str

    def is_for(self, who: Watcher) -> bool:
        """Tell whether `who` is told of it."""
        is_own = self.client_id is not None and self.client_id == who.client_id
        below = f"{who.folder.path.rstrip('/')}/"
        return self.user_id == who.user_id and self.from_path.startswith(below) and not is_own


class Story:
    """What happens to the listeners of a hall, in the middle of tellings and between them."""

    def __init__(self, hall: Hall, chance: random.Random) -> None:
        self.hall = hall
        self.chance = chance
        self._files = 0
        self._is_happening = False
        self._is_over = False

    def pause(self) -> None:
        """Let something happen where a walk lets others run."""
        if self._is_happening or self._is_over:
            gevent.idle()
            return
        self._is_happening = True
        for _ in range(self.chance.randint(1, 4)):
            self.happen()
            for _ in range(self.chance.randint(0, 3)):
                gevent.idle()
        self._is_happening = False

    def tell(self) -> None:
        """Let it happen, and then let everybody hear everything."""
        for _ in range(12):
            self.come()
        for _ in range(self.chance.randint(5, 30)):
            self.happen()
            self.hall.clock.settle()
            if self.chance.random() < 0.3:
                self.hall.clock.advance(self.chance.choice([0.25, 2, 5, 30]))
            self.hold()
        self._is_over = True
        for each in self._alive():
            each.reads = True
        self.hall.worker.turn()
        self.hall.clock.advance(60)
        last = self.hold()
        for each in self._alive():
            assert position(each.frames[-1]) == last

    def _alive(self) -> list[Listener]:
        return [each for each in self.hall.listeners if not each.greenlet.dead]

    def hold(self) -> int:
        """Fail unless everybody was told what the ids say; return the last position."""
        columns = (schema.journal.c[name] for name in Entry._fields)
        query = select(*columns).order_by(schema.journal.c.position)
        found = self.hall.worker.database.read(lambda db: db.execute(query).all())
        entries = [Entry._make(row) for row in found]
        for each in self.hall.listeners:
            hold_to(each, entries)
        return len(entries)

    def happen(self) -> None:
        """Let one thing happen."""
        (name,) = self.chance.choices(list(HAPPENINGS), list(HAPPENINGS.values()))
        if name in {"come", "change"}:
            getattr(self, name)()
        elif alive := self._alive():
            getattr(self, name)(self.chance.choice(alive))

    def come(self) -> None:
        folder, client = self.chance.choice(FOLDERS), self.chance.choice(CLIENTS)
        who = watcher(folder, client, self.chance.choice(USERS))
        heard = [frame.id for each in self._of(who) for frame in each.frames]
        request = Request(who, self.chance.choice([None, *heard]), "array", 86_400)
        self.hall.let_in(request, together=self.chance.random() < 0.9)

    def _of(self, who: Watcher) -> list[Listener]:
        return [each for each in self.hall.listeners if each.stream.watcher == who]

    def change(self) -> None:
        for _ in range(self.chance.choice([1, 1, 3])):
            self._files += 1
            name = str(self._files)
            folder = self.chance.choice(FOLDERS).rstrip("/")
            long = LONG_PATH if self.chance.random() < 0.25 else []
            self.hall.worker.write(
                "create",
                "/".join([folder, name, *long]),
                file_id=name,
                user_id=self.chance.choice(USERS),
                client_id=self.chance.choice([None, None, *CLIENTS]),
            )
        self.hall.worker.turn()

    @staticmethod
    def wake(listener: Listener) -> None:
        listener.stream.wake()

    @staticmethod
    def keep_alive(listener: Listener) -> None:
        """Let it be time for one."""
        listener.stream._written_at -= 60
        listener.stream.wake()

    @staticmethod
    def leave(listener: Listener) -> None:
        listener.stream.leave()

    @staticmethod
    def stall(listener: Listener) -> None:
        listener.reads = False

    @staticmethod
    def go_on(listener: Listener) -> None:
        listener.reads = True

    @staticmethod
    def go(listener: Listener) -> None:
        listener.go()

    @staticmethod
    def revoke(listener: Listener) -> None:
        listener.stream.revoke()

    @staticmethod
    def withdraw(listener: Listener) -> None:
        listener.stream.withdraw()

    @staticmethod
    def stop(listener: Listener) -> None:
        listener.stream.stop()


def cursor(frame: Frame) -> Cursor:
    found = Cursor.parse(frame.id or "")
    assert found is not None, frame
    return found


def position(frame: Frame) -> int:
    return cursor(frame).point.position


def hold_to(listener: Listener, entries: list[Entry]) -> None:
    """Fail unless it was told exactly what lies between its first `id` and each later one."""
    if not listener.frames or listener.frames[0].name == "reconnect-required":
        return  # it ended before it began
    begin, *frames = listener.frames
    assert begin.name in {"subscribed", "resumed"}, begin
    told: list[str] = []
    before = position(begin)
    for frame in frames:
        told += [each["file_id"] for each in frame.changes] if frame.name == "event" else []
        upto = position(frame)
        due = [
            each.file_id
            for each in entries
            if position(begin) < each.position <= upto and each.is_for(listener.stream.watcher)
        ]
        # The parts of a batch tell of what their `id` does not say yet; and what no longer is
        # permitted is not told, and its `id` is good for nothing.
        is_part = frame.name == "event" and upto == before
        is_withdrawn = cursor(frame) == cursor(frame).fresh()
        wrong = (listener.stream.watcher, frame, told, due)
        assert is_withdrawn or told[: len(due)] == due, wrong
        assert is_part or due[: len(told)] == told, wrong
        before = upto


@pytest.mark.parametrize("debounce", [0, 5])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_ids_say_what_was_told_whatever_comes_in_between(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, seed: int, debounce: float
) -> None:
    """How often the loop turns is not the seed's to say: what is held is true of every story."""
    hall = Hall(reused.url(request, "sqlite"), debounce)
    story = Story(hall, random.Random(seed))  # noqa: S311 -- guards nothing
    with pytest.MonkeyPatch.context() as patched:
        for module, name in ((herald, "MEMBERS_IN_PASS"), (herald, "WAKES_IN_PASS")):
            patched.setattr(module, name, 1)
        patched.setattr(tailer, "BELLS_IN_PASS", 1)
        patched.setattr(passes, "pause", story.pause)
        try:
            story.tell()
        finally:
            story._is_over = True
            hall.close()
    assert "members go on alone" not in caplog.text
    assert len(hall.worker.herald) == 0
    assert hall.worker.holds_nothing()

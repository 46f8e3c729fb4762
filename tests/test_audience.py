"""Streams that are told together hear what each would hear alone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gevent
import hypothesis
import pytest
from gevent.event import Event
from hypothesis import strategies as st

from events_app import follower, herald, journal, passes, sse
from events_app.audience import Audience
from events_app.window import Window
from tests import reused
from tests.hall import Hall, Listener, Seat
from tests.worker import CLIENT, OTHER, watcher

CLIENTS = (CLIENT, OTHER, None)
FOLDERS = ("/", "/docs")
PAYLOADS: tuple[sse.Payload, ...] = ("array", "object")
STEPS = 25
# A frame with it does not fit what is left of the kernel's buffer.
LONG_PATH = ["x" * 200] * 19

Opens = Callable[[float], contextlib.AbstractContextManager[Hall]]


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of a seat do everything at the same time."""
    monkeypatch.setattr(random, "uniform", lambda least, _: least)


@pytest.fixture
def open_hall(request: pytest.FixtureRequest) -> Opens:
    """Open a hall on an empty journal."""

    @contextlib.contextmanager
    def opened(debounce: float) -> Iterator[Hall]:
        hall = Hall(reused.url(request, "sqlite"), debounce)
        try:
            yield hall
        finally:
            hall.close()

    return opened


class Story:
    """What happens to the seats of a hall, step by step."""

    def __init__(self, hall: Hall, data: st.DataObject) -> None:
        self.hall = hall
        self.seats: list[Seat] = []
        self._data = data
        self._files = 0

    def _pick(self, *several: object) -> int:
        return self._data.draw(st.integers(0, len(several) - 1))

    def tell(self, among: Sequence[str]) -> None:
        """Let it happen, step by step."""
        for _ in range(3):
            self.come()
        for _ in range(self._data.draw(st.integers(1, STEPS))):
            doing = among[self._pick(*among)]
            hypothesis.note(doing)
            getattr(self, doing)()
            for seat in self.seats:
                if seat.together.reads:
                    seat.compare()
        self.end()

    def end(self) -> None:
        """Let everybody hear everything."""
        for seat in self.seats:
            seat.together.reads = seat.alone.reads = True
        self.hall.clock.advance(40)
        for seat in self.seats:
            seat.compare()
        tally = self.hall.worker.tally
        assert tally.sent_bytes == sum(each.response.sent for each in self.hall.listeners)

    # -- changes -------------------------------------------------------------------------------

    def _file(self) -> str:
        self._files += 1
        return f"{FOLDERS[self._pick(*FOLDERS)].rstrip('/')}/{self._files}"

    def change(self) -> None:
        users = ("42", "42", "42", "43")
        client = CLIENTS[self._pick(*CLIENTS)]
        user = users[self._pick(*users)]
        self.hall.commit("create", self._file(), client_id=client, user_id=user)

    def many_changes(self) -> None:
        for _ in range(12):
            self.hall.worker.write("create", self._file())
        self.hall.worker.turn()
        self.hall.clock.settle()

    def long_paths(self) -> None:
        """Commit one or several that do not fit the kernel's buffer together, or no frame."""
        for _ in range(self._data.draw(st.sampled_from([1, 2, 9]))):
            path = self._file()
            self.hall.worker.write("create", "/".join([path, *LONG_PATH]), file_id=path)
        self.hall.worker.turn()
        self.hall.clock.settle()

    def rename(self) -> None:
        path = self._file()
        self.hall.commit("rename", path, f"{path} again", client_id=CLIENTS[self._pick(*CLIENTS)])

    def bad_row(self) -> None:
        self.hall.commit("create", "/docs/\x00")

    def lose_root(self) -> None:
        self.hall.commit("delete", "/docs")

    # -- clients -------------------------------------------------------------------------------

    def come(self) -> None:
        client, folder = CLIENTS[self._pick(*CLIENTS)], FOLDERS[self._pick(*FOLDERS)]
        self._sit_down(client, folder, None, PAYLOADS[self._pick(*PAYLOADS)])

    def _sit_down(
        self, client: str | None, folder: str, last: str | None, payload: sse.Payload
    ) -> None:
        who = watcher(folder, client)
        together, alone = (
            self.hall.listen(who, last, payload=payload, together=told) for told in (True, False)
        )
        self.seats.append(Seat(together, alone))

    def _somebody(self) -> Seat | None:
        return self.seats[self._pick(*self.seats)] if self.seats else None

    def _leave(self) -> Seat | None:
        seat = self._somebody()
        if seat is not None:
            for each in seat:
                each.go()
            self.hall.clock.settle()
        return seat

    def go(self) -> None:
        self._leave()

    def come_back(self) -> None:
        seat = self._leave()
        if seat is not None and seat.alone.frames:
            who, last = seat.alone.stream.watcher, seat.alone.frames[-1].id
            self._sit_down(who.client_id, who.folder.path, last, PAYLOADS[self._pick(*PAYLOADS)])

    def stall(self) -> None:
        if seat := self._somebody():
            seat.together.reads = seat.alone.reads = False

    def go_on(self) -> None:
        if seat := self._somebody():
            seat.together.reads = seat.alone.reads = True
            self.hall.clock.settle()

    def _tell_both(self, what: Callable[[Listener], object]) -> None:
        if seat := self._somebody():
            for each in seat:
                what(each)
            self.hall.clock.settle()

    def withdraw(self) -> None:
        self._tell_both(lambda each: each.stream.withdraw())

    def revoke(self) -> None:
        self._tell_both(lambda each: each.stream.revoke())

    def stop(self) -> None:
        self._tell_both(lambda each: each.stream.stop())

    # -- the rest ------------------------------------------------------------------------------

    def wait(self) -> None:
        self.hall.clock.advance(self._data.draw(st.sampled_from([0.25, 2, 5, 7.5, 30])))

    def forget(self) -> None:
        """Let everybody who is behind read by SQL."""
        tailer = self.hall.worker.tailer
        tailer._window = Window(tailer.end)

    def begin_anew(self) -> None:
        self.hall.worker.database.write(lambda db: journal.raise_epoch(db, 0))
        self.hall.worker.turn()
        self.hall.clock.settle()


# What may happen, the more often the more of it.
ANYTHING = (
    *["change", "change", "change", "wait", "wait", "come", "come", "rename", "long_paths"],
    *["many_changes", "come_back", "go", "stall", "go_on", "withdraw", "revoke", "stop"],
    *["forget", "lose_root", "begin_anew", "bad_row"],
)
SLOW = ("change", "change", "long_paths", "long_paths", "wait", "stall", "stall", "go_on", "go")


@pytest.mark.parametrize("debounce", [0, 5])
@pytest.mark.parametrize("among", [ANYTHING, SLOW], ids=["anything", "slow readers"])
@hypothesis.given(data=st.data())
@hypothesis.settings(
    max_examples=30,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_everybody_hears_what_they_would_hear_alone(
    open_hall: Opens, debounce: float, among: Sequence[str], data: st.DataObject
) -> None:
    """Frames, ids and times are those of a stream alone; and so is what counts as delivered."""
    with open_hall(debounce) as hall:
        Story(hall, data).tell(among)


class MakesRoom(Event):  # type: ignore[misc] # gevent has no types
    """Rings when a change has been read."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def set(self) -> None:
        self._listener.make_room()


def fill(hall: Hall, listener: Listener) -> None:
    """Let keep-alives fill what the kernel holds, until the greenlet waits in the middle of one."""
    listener.reads = False
    while listener.waits:
        hall.clock.advance(26)


def test_what_a_kernel_does_not_take_at_once_follows_and_nothing_comes_between(
    open_hall: Opens,
) -> None:
    """Its own greenlet writes the rest, before anything else; then it is told with others again."""
    with open_hall(0) as hall:
        slow, swift = hall.listen(watcher(client_id=CLIENT)), hall.listen(watcher(client_id=OTHER))
        slow.reads = False
        for number in range(5):
            path = "/".join([f"/{number}", *LONG_PATH])
            hall.commit("create", path, file_id=str(number))
        assert slow.is_alone
        assert not swift.is_alone
        slow.reads = True
        hall.clock.advance(26)
        assert slow.changes == swift.changes
        assert not slow.is_alone


def test_nobody_writes_while_a_greenlet_does(open_hall: Opens) -> None:
    """It is in the middle of a keep-alive when a change comes; the kernel has room again then."""
    with open_hall(0) as hall:
        slow, swift = hall.listen(watcher(client_id=CLIENT)), hall.listen(watcher(client_id=OTHER))
        fill(hall, slow)
        assert not slow.is_alone
        # As the change is read, and before the greenlet that waits for room can have noticed.
        hall.worker.tailer.add_bell("42", MakesRoom(slow))
        hall.commit("create", "/a")
        slow.reads = True
        hall.clock.settle()
        assert [frame.name for frame in slow.frames[-2:]] == ["keep-alive", "event"]
        assert slow.changes == swift.changes != []
        hall.clock.advance(26)
        assert not slow.is_alone


def test_who_may_have_heard_it_already_is_told_alone(open_hall: Opens) -> None:
    """In a second delivery a rename is told otherwise than to the others."""
    with open_hall(0) as hall:
        hall.listen(watcher(client_id=OTHER))
        hall.listen(watcher(client_id=CLIENT))
        hall.worker.ledger.tick()
        hall.worker.write("rename", "/a", "/b")
        hall.worker.tailer._step()
        again = hall.listen(watcher(client_id=CLIENT))
        assert again.is_alone
        hall.worker.turn()
        hall.clock.settle()
        assert [each["type"] for each in again.changes] == ["delete", "create"]


def test_what_one_frame_cannot_tell_everybody_tells_alone(open_hall: Opens) -> None:
    """The parts of a batch repeat the `id` that each has; afterwards they are told together."""
    with open_hall(0) as hall:
        payloads: list[sse.Payload] = ["array", "object"]
        for payload in payloads * 2:
            hall.listen(watcher(client_id=None), payload=payload)
        hall.worker.write("create", "/a")
        hall.worker.write("create", "/b")
        hall.worker.turn()
        hall.clock.settle()
        assert [len(each.changes) for each in hall.listeners] == [2] * 4
        assert [len(each.frames) for each in hall.listeners] == [2, 3, 2, 3]
        hall.clock.advance(26)
        assert not any(each.is_alone for each in hall.listeners)
        assert len(hall.worker.herald) == 2


def test_who_leaves_in_the_middle_of_a_telling_hears_it_once(
    open_hall: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also who is back among the others before it is over, and who is ahead of them by then."""
    monkeypatch.setattr(herald, "MEMBERS_IN_PASS", 1)
    with open_hall(0) as hall:
        listeners = [hall.listen(watcher(client_id=None)) for _ in range(4)]
        first, back, ahead, _ = listeners

        def leave(listener: Listener) -> None:
            listener.stream.leave()
            for _ in range(9):
                gevent.sleep(0)
            assert listener.waits

        def come_back() -> None:
            leave(back)
            assert not back.is_alone

        def hear_more() -> None:
            hall.worker.write("create", "/b")
            hall.worker.turn()
            leave(ahead)
            assert ahead.is_alone

        between = [come_back, hear_more]

        def pause() -> None:
            first.receive()
            if first.changes and between:
                between.pop(0)()

        monkeypatch.setattr(passes, "pause", pause)
        hall.commit("create", "/a")
        assert between == []
        told = [[change["from"] for change in each.changes] for each in listeners]
        assert told == [["/a", "/b"]] * 4


def test_nothing_is_told_any_more_once_that_is_not_permitted(
    open_hall: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even before the greenlet of that stream has looked up."""
    with open_hall(0) as hall:
        stranger, friend = (hall.listen(watcher(client_id=None)) for _ in range(2))
        frames_of = sse.event_frames

        def withdrawn_meanwhile(*run: Any) -> Sequence[bytes]:
            stranger.stream.withdraw()
            return frames_of(*run)

        monkeypatch.setattr(sse, "event_frames", withdrawn_meanwhile)
        hall.commit("create", "/a")
        assert [frame.name for frame in stranger.frames] == ["subscribed", "reconnect-required"]
        assert len(friend.changes) == 1


class FaultyLine:
    """Stands for a fault of ours."""

    def send(self, frame: bytes, chunk: bytes) -> bytes:
        raise RuntimeError(f"neither {len(frame)} nor {len(chunk)} bytes are written")


def test_what_goes_wrong_ends_one_audience_and_loses_nothing(
    open_hall: Opens, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One has heard, the next one cannot be told, the third was not asked: all of them hear."""
    with open_hall(0) as hall:
        listeners = [hall.listen(watcher(client_id=None)) for _ in range(3)]
        bystander = hall.listen(watcher("/docs", client_id=None))

        # An error of the system is what is expected there; this stands for what nobody expects.
        monkeypatch.setattr(listeners[1].stream, "lent_line", FaultyLine())
        hall.commit("create", "/a")
        assert "members go on alone" in caplog.text
        assert [len(each.changes) for each in listeners] == [1, 1, 1]
        assert hall.worker.tally.frames["event"] == 3
        assert not bystander.is_alone


def test_who_goes_in_the_middle_of_a_telling_disturbs_nobody(
    open_hall: Opens, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between two passes the loop is free, and the one who goes was to be told in the next one."""
    with open_hall(0) as hall:
        first, going, last = (hall.listen(watcher(client_id=None)) for _ in range(3))

        def go_then() -> None:
            going.go()
            gevent.joinall([going.greenlet])

        monkeypatch.setattr(herald, "MEMBERS_IN_PASS", 1)
        monkeypatch.setattr(passes, "pause", go_then)
        hall.commit("create", "/a")
        assert caplog.text == ""
        assert [len(each.changes) for each in (first, going, last)] == [1, 0, 1]
        assert not any(each.is_alone for each in (first, last))


def test_what_cannot_be_written_as_a_frame_is_not_lost(
    open_hall: Opens, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run was folded already, and nobody has heard any of it."""
    write = sse.event_frames

    def fail_once(*arguments: Any) -> Any:
        monkeypatch.setattr(sse, "event_frames", write)
        raise MemoryError(f"no room for {len(arguments)} things")

    with open_hall(0) as hall:
        listeners = [hall.listen(watcher(client_id=None)) for _ in range(3)]
        monkeypatch.setattr(sse, "event_frames", fail_once)
        hall.commit("create", "/a")
        assert "members go on alone" in caplog.text
        assert [len(each.changes) for each in listeners] == [1, 1, 1]


def test_what_a_full_run_leaves_is_told_at_once(
    open_hall: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody rings for rows that have been there when the run was full."""
    monkeypatch.setattr(follower, "RUN_CHARACTERS", 4)
    with open_hall(0) as hall:
        together, alone = (
            hall.listen(watcher(client_id=None), together=each) for each in (True, False)
        )
        for _ in range(5):
            hall.worker.write("modify", "/a")
        hall.worker.turn()
        hall.clock.settle()
        assert [len(each.changes) for each in (together, alone)] == [3, 3]
        assert together.frames[-1].id == alone.frames[-1].id
        assert not together.is_alone


def test_what_is_due_does_not_wait_for_those_who_call_again_and_again(
    open_hall: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    look = Audience.due_at
    with open_hall(5) as hall:
        quiet = hall.listen(watcher(client_id=None))
        hall.listen(watcher(client_id=None, user_id="43"))

        def call_again(audience: Audience, *seconds: float) -> float | None:
            if audience.kind.watcher.user_id == "43" and len(looks) < 100:
                quiet.receive()
                looks.append(len(quiet.changes))
                audience.set()
            return look(audience, *seconds)

        hall.commit("create", "/a")
        hall.clock.advance(4.75)
        monkeypatch.setattr(Audience, "due_at", call_again)
        hall.worker.write("create", "/b", user_id="43")
        hall.clock.now += 0.25
        hall.worker.turn()
        hall.clock.settle()
        assert looks == [1] * 100


def test_an_http_1_0_client_gets_frames_without_chunks(open_hall: Opens) -> None:
    with open_hall(0) as hall:
        old, new = (hall.listen(watcher(client_id=None), chunked=which) for which in (False, True))
        hall.commit("create", "/a")
        assert not old.is_alone
        assert old.came.startswith(b"event: subscribed")
        assert old.told == new.told
        assert len(old.changes) == 1


def test_nothing_is_left_when_everybody_has_gone(open_hall: Opens) -> None:
    with open_hall(5) as hall:
        listeners = [hall.listen(watcher(path, client_id=None)) for path in ("/", "/docs") * 2]
        hall.commit("create", "/docs/a")
        for each in listeners:
            each.go()
        hall.clock.advance(10)
        assert len(hall.worker.herald) == 0
        assert hall.worker.holds_nothing()


def test_what_was_told_is_counted_for_each(open_hall: Opens) -> None:
    with open_hall(5) as hall:
        for _ in range(3):
            hall.listen(watcher(client_id=None))
        for path in ("/a", "/a"):
            hall.commit("modify", path)
        hall.clock.advance(5)
        tally = hall.worker.tally
        assert tally.frames == {"subscribed": 3, "event": 3}
        assert (tally.folded_rows, tally.told_changes) == (6, 3)
        assert tally.sent_bytes == sum(len(each.body) for each in hall.listeners)

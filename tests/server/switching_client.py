"""A client that keeps a copy of a folder by streams, by pages, and by either after the other.

Theory of operation
    It is a model of a client that trusts what it is told: it works by path, and fetches what was
    created or modified when a batch is done, as the app's tree is at the batch's `id`. Whenever its
    `id` moves, its copy must be that tree: that is more than what a client could check, and it
    finds at once what would show only later, or never.
    There are two times of doubt. What it lists is ahead of what it was told, so it lists again when
    it has been told of as much; and what it comes back for by its client id alone it may have heard
    before, so then its copy is held to the tree when that has been told again.

Rules
    - A client id alone stands for what streams have told. A client that took pages since, that fell
      back on what it had saved, that let bytes lie unread, or that has just done something where
      others do brings its last cursor.
    - What it does itself it does in its home, where nobody else changes anything, or when it knows
      of everything, and saves it at once.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import random
import socket
import struct
import threading
import time
import traceback
from typing import Any

import httpx

from events_app import event
from tests.frames import Frame, Reader
from tests.server.switching_app import Truth, View, is_at_home
from tests.serving import Server

CONFIRM_SECONDS = 2.0
# What lies unread in a socket for longer may count as received: far below the time of that.
UNREAD_SECONDS = 0.5
LOOK_SECONDS = 0.1
SHORT_SECONDS, LONG_SECONDS = 0.8, 3.5
LONG_SHARE = 0.15
SHOWN = 40
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# What stands in place of a content that must be fetched.
MODIFIED, CREATED = -1, -2


@dataclasses.dataclass(frozen=True)
class Habits:
    """Who watches what, and how."""

    name: str
    user: str
    uri: str
    watched: str
    client_id: str | None = None
    payload: str = "array"
    home: str | None = None
    may_lose_folder: bool = False


@dataclasses.dataclass
class Copy:
    """What a client has, and how far it knows."""

    entries: View = dataclasses.field(default_factory=dict)
    position: int = -1
    cursor: str | None = None
    # Up to here it may be ahead of what it is told, by a listing or by what it hears again.
    doubt_upto: int = 0
    lists_again: bool = False
    # Of what it has done itself.
    own_upto: int = 0

    @property
    def is_exact(self) -> bool:
        return self.position >= self.doubt_upto

    def apply(self, change: dict[str, str]) -> str:
        """Do what is said; return what is wrong with it, if it may not be wrong."""
        path, file_id, to_path = change["from"], change["file_id"], change["to"]
        wrong = self._wrong(change) if self.is_exact else ""
        if change["type"] == "modify" and path in self.entries:
            # What was not listed yet is not listed by being modified.
            unlisted = self.entries[path][1] == CREATED
            self.entries[path] = (file_id, CREATED if unlisted else MODIFIED)
        elif change["type"] in {"create", "modify"}:
            self._remove(path)
            self.entries[path] = (file_id, CREATED)
        elif change["type"] == "delete":
            self._remove(path)
        else:
            # Of a folder that is still to be listed only what was created in it may be here.
            moved = {path: (file_id, CREATED)} | self._remove(path)
            self._remove(to_path)
            self.entries |= {to_path + each[len(path) :]: it for each, it in moved.items()}
        return wrong

    def _wrong(self, change: dict[str, str]) -> str:
        path, arrives_at = change["from"], change["to"]
        if change["type"] != "create":
            there = self.entries.get(path)
            if there is None and not self._is_unlisted(path):
                return "names what is not there"
            if there is not None and there[0] != change["file_id"]:
                return f"means another entry than {there}"
        folder = (arrives_at or path).rpartition("/")[0]
        if folder and folder not in self.entries and not self._is_unlisted(folder):
            return "goes where there is no folder"
        return ""

    def _is_unlisted(self, path: str) -> bool:
        """Say whether a folder above came as one, with what is in it still to be listed."""
        while path := path.rpartition("/")[0]:
            if self.entries.get(path, ("", 0))[1] == CREATED:
                return True
        return False

    def _remove(self, path: str) -> View:
        found = _at_or_below(path, self.entries)
        for each in found:
            del self.entries[each]
        return found

    def fetch(self, there: View) -> None:
        """Get what is owed from the app, a new folder with all that is in it."""
        for path, (file_id, content) in sorted(self.entries.items()):
            if content == CREATED and path in self.entries:
                self._remove(path)
                below = {
                    each: it for each, it in there.items() if f"{each}/".startswith(f"{path}/")
                }
                self.entries |= below
            elif content == MODIFIED and there.get(path, ("", 0))[0] == file_id:
                self.entries[path] = there[path]


class Client(threading.Thread):
    """Does one thing after the other, at random, until it is told to end and knows everything."""

    def __init__(self, server: Server, truth: Truth, habits: Habits, seed: str) -> None:
        super().__init__(daemon=True, name=habits.name)
        self.habits = habits
        self.copy = Copy()
        self.faults: list[str] = []
        self.did: collections.Counter[str] = collections.Counter()
        self.log: collections.deque[str] = collections.deque(maxlen=SHOWN)
        self._server = server
        self._truth = truth
        self._random = random.Random(f"{seed} {habits.name}")  # noqa: S311 -- guards nothing
        self._saved = Copy()
        self._calm = threading.Event()
        self._leave = threading.Event()
        # Whether the server's memory of the client id is of what is known here.
        self._is_remembered = False
        self._has_resumed = False
        self._drained_at = 0.0
        self._pending: list[dict[str, str]] = []
        self._http = httpx.Client(timeout=30)

    def finish(self) -> None:
        """Do nothing of its own any more, and end when everything was told."""
        self._calm.set()

    def leave(self) -> None:
        """End now."""
        self._leave.set()

    @property
    def is_done(self) -> bool:
        if self._leave.is_set() or self.faults:
            return True
        known = self.copy.position >= self._truth.rows and self.copy.is_exact
        return self._calm.is_set() and known

    def run(self) -> None:
        try:
            while not self.is_done:
                self._random.choices(
                    [self._stream, self._follow_pages, self._die], [0.5, 0.35, 0.15]
                )[0]()
        except Exception:  # noqa: BLE001 -- whatever it is, the test must hear of it
            self._fault(traceback.format_exc())
        finally:
            self._http.close()

    def _fault(self, what: str) -> None:
        self.faults.append(what)

    def _note(self, what: str) -> None:
        self.did[what] += 1
        self.log.append(f"{what} at {self.copy.position}")

    # -- what is known -----------------------------------------------------------------------------

    def _expected(self) -> View:
        """Return what there must be: the tree as it was told of, and what was done here since."""
        there = self._truth.view(max(self.copy.position, self.copy.own_upto), self.habits.watched)
        if (home := self._home()) is None:
            return there
        now = self._truth.view(self._truth.rows, self.habits.watched)
        others = {path: it for path, it in there.items() if not is_at_home(path, [home])}
        return others | {path: it for path, it in now.items() if is_at_home(path, [home])}

    def _home(self) -> str | None:
        home = self.habits.home
        return None if home is None else home.removeprefix(self.habits.watched)

    def _list(self, cursor: str, position: int) -> None:
        """Forget everything and list the folder, which is ahead of the cursor."""
        rows = self._truth.rows
        self.copy = Copy(
            self._truth.view(rows, self.habits.watched),
            position,
            cursor,
            doubt_upto=rows,
            lists_again=True,
            own_upto=self.copy.own_upto,
        )
        self._settle()
        self._note("lists")

    def _take(self, changes: list[dict[str, str]], cursor: str, position: int) -> None:
        """Apply a batch; it tells of everything up to `position`."""
        self.log.append(f"    told {self.copy.position}..{position} {changes}")
        if position < self.copy.position:
            self._fault(f"the cursor went back from {self.copy.position} to {position}")
        for change in changes:
            if wrong := self.copy.apply(change):
                self._fault(f"at {position} {change} {wrong}")
        self.copy.position, self.copy.cursor = position, cursor
        self._settle()
        if not self._calm.is_set() and self._random.random() < 0.3:
            self._save()

    def _settle(self) -> None:
        """Fetch what is owed, and hold the copy to the app's tree as it was told of."""
        if not self.copy.is_exact:
            return
        expected = self._expected()
        if self.copy.lists_again:
            self.copy.entries, self.copy.lists_again = expected, False
            return
        self.copy.fetch(expected)
        if wrong := sorted(self.copy.entries.items() ^ expected.items())[:SHOWN]:
            self._fault(f"at {self.copy.position} these differ: {wrong}")

    def _save(self) -> None:
        self._saved = copy.deepcopy(self.copy)

    def _die(self) -> None:
        """Begin again from what was saved."""
        if self._calm.is_set() or self._saved.cursor is None:
            return
        self.copy = copy.deepcopy(self._saved)
        self._is_remembered = False
        self._note("dies")

    # -- what it does itself -----------------------------------------------------------------------

    def _act(self) -> None:
        """Change something now and then."""
        habits = self.habits
        if habits.client_id is None or habits.home is None or self._pending:
            return
        knows = self.copy.is_exact and self.copy.position == self._truth.rows
        if self.copy.cursor is None or self._random.random() > (0.5 if knows else 0.15):
            return
        with self._truth.lock:
            if self._calm.is_set() or not self._is_home_known():
                return
            if self.copy.is_exact and self.copy.position == self._truth.rows:
                self._truth.work_as(habits.client_id, habits.user)
                self.copy.own_upto = self._truth.rows
                self.copy.entries = self._truth.view(self._truth.rows, habits.watched)
                self._note("changes anything")
            else:
                self._truth.live(habits.home, habits.client_id, habits.user)
                self._come_home()
                self._note("changes its home")
            self._save()

    def _is_home_known(self) -> bool:
        """Say whether the folder itself is there: not so while a listing is still to be done."""
        return self._home() in self.copy.entries

    def _come_home(self) -> None:
        home = self._home()
        assert home is not None
        now = self._truth.view(self._truth.rows, self.habits.watched)
        others = {p: it for p, it in self.copy.entries.items() if not is_at_home(p, [home])}
        self.copy.entries = others | {p: it for p, it in now.items() if is_at_home(p, [home])}

    # -- by streams --------------------------------------------------------------------------------

    def _stream(self) -> None:
        """Listen for a while, and go in one way or another."""
        habits = self.habits
        has_just_acted = self.copy.own_upto > self.copy.position
        is_by_id = self._is_remembered and not has_just_acted and self._random.random() < 0.5
        by_cursor = not is_by_id
        cursor = self.copy.cursor if by_cursor else None
        if self.copy.cursor is not None:
            self._note("streams by cursor" if by_cursor else "streams by client id")
        self._pending = []
        with Reader(
            self._server,
            habits.user,
            habits.client_id,
            habits.uri,
            last_event_id=cursor,
            query=f"&payload={habits.payload}",
        ) as reader:
            assert reader.status == httpx.codes.OK, reader.head
            self._drained_at = time.monotonic()
            self._listen(reader, by_cursor=by_cursor)
            self._cut(reader)
        self._pending = []

    def _listen(self, reader: Reader, *, by_cursor: bool) -> None:
        longest = LONG_SECONDS if self._random.random() < LONG_SHARE else SHORT_SECONDS
        until = time.monotonic() + self._random.uniform(0, longest)
        frames = self._random.randint(1, 12)
        has_begun = False
        while not (has_begun and (self.is_done or frames <= 0 or time.monotonic() > until)):
            try:
                frame = reader.frame(LOOK_SECONDS)
            except TimeoutError:
                self._drained_at = time.monotonic()
                self._act()
                continue
            if frame is None:
                return
            if not has_begun:
                has_begun = self._begin(frame, by_cursor=by_cursor)
                continue
            frames -= 1
            self._hear(frame)
            self._act()

    def _begin(self, frame: Frame, *, by_cursor: bool) -> bool:
        """Hear a first frame; a stream that is held begins with others."""
        if frame.name == "keep-alive":
            return False
        assert frame.name in {"subscribed", "resumed"}, frame
        assert frame.id is not None
        cursor = _parsed(frame.id)
        position = cursor.point.position
        if frame.name == "subscribed":
            if self.copy.cursor is not None and not self._may_be_lost(by_cursor=by_cursor):
                self._fault(f"subscribed, at {position}")
            self._list(frame.id, position)
            self._has_resumed = False
        else:
            self._has_resumed = True
            if by_cursor and position != self.copy.position:
                self._fault(f"resumed at {position} and not at {self.copy.position}")
            self._resume(position, frame.id, again=cursor.partly or not by_cursor)
        self._is_remembered = self.habits.client_id is not None
        return True

    def _resume(self, position: int, cursor: str, *, again: bool) -> None:
        self.log.append(f"    resumed at {position}")
        if position > self.copy.position:
            self._pass_over(position)
        if again:
            self.copy.doubt_upto = max(self.copy.doubt_upto, self._truth.rows)
            self._note("hears again")
        self.copy.position, self.copy.cursor = position, cursor

    def _pass_over(self, position: int) -> None:
        """Resume further on than what was told: there may be nothing to tell in between."""
        before, self.copy.position = self._expected(), position
        if self._expected() != before:
            self._fault(f"resumed further on, at {position}")

    def _may_be_lost(self, *, by_cursor: bool) -> bool:
        """Say whether there may be no past: that a first frame arrived must have been seen."""
        return self.habits.may_lose_folder or (not by_cursor and not self._has_resumed)

    def _hear(self, frame: Frame) -> None:
        assert frame.id is not None, frame
        position = _parsed(frame.id).point.position
        if frame.name == "event":
            self._pending += frame.changes
            if position == self.copy.position:
                return  # a part of a batch
        elif self._pending:
            self._fault(f"{frame} within a batch")
        elif frame.name == "reconnect-required":
            assert self.habits.may_lose_folder, frame
            self.copy.cursor = frame.id
            return
        changes, self._pending = self._pending, []
        self._take(changes, frame.id, position)

    def _cut(self, reader: Reader) -> None:
        """Go: in order, having heard what is there; or at once; or in the middle of a frame."""
        how = self._random.choice(["goes in order", "breaks off", "breaks off within a frame"])
        self._note(how)
        if how == "goes in order":
            self._hear_the_rest(reader)
            return
        if how == "breaks off within a frame" and not reader.ended:
            self._hear_a_piece(reader)
        reset = (socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        reader.connection.setsockopt(*reset)
        reader.connection.close()
        if time.monotonic() - self._drained_at > UNREAD_SECONDS:
            self._is_remembered = False

    def _hear_the_rest(self, reader: Reader) -> None:
        while True:
            try:
                frame = reader.frame(0)
            except TimeoutError:
                return
            if frame is None:
                return
            self._hear(frame)

    def _hear_a_piece(self, reader: Reader) -> None:
        """Take some bytes that no frame is made of."""
        reader.connection.settimeout(2 * LOOK_SECONDS)
        try:
            reader.connection.recv(self._random.randint(1, 60))
        except TimeoutError:
            self._drained_at = time.monotonic()

    # -- by pages ----------------------------------------------------------------------------------

    def _follow_pages(self) -> None:
        """Ask for some pages, one after the other."""
        self._is_remembered = False
        for _ in range(self._random.randint(1, 5)):
            if self.is_done:
                return
            self._page()
            self._act()

    def _page(self) -> None:
        habits, query = self.habits, dict[str, Any]()
        if self.copy.cursor is not None:
            wait = self._random.choice([0, 0, 1])
            query = {"cursor": self.copy.cursor, "wait": wait, "limit": self._limit()}
            self._note("waits for a page" if wait else "asks for a page")
        answer = self._http.get(
            f"{self._server.events_url}/changes",
            params={"uri": habits.uri, **query},
            headers=self._server.headers(habits.user, habits.client_id),
        )
        data = answer.json().get("data", {})
        if answer.status_code == httpx.codes.GONE:
            if not habits.may_lose_folder:
                self._fault(f"refused: {data}")
            self._list(data["cursor"], _parsed(data["cursor"]).point.position)
            return
        assert answer.status_code == httpx.codes.OK, answer.text
        cursor = _parsed(data["cursor"])
        if self.copy.cursor is not None and _parsed(self.copy.cursor).partly:
            self.copy.doubt_upto = max(self.copy.doubt_upto, self._truth.rows)
        if not query:
            self._list(data["cursor"], cursor.point.position)
            return
        self._take(data["events"], data["cursor"], cursor.point.position)

    def _limit(self) -> int:
        return self._random.choice([1, 2, 3, 5, 500])


def _at_or_below(path: str, view: View) -> View:
    return {each: it for each, it in view.items() if f"{each}/".startswith(f"{path}/")}


def _parsed(text: str) -> event.Cursor:
    cursor = event.Cursor.parse(text)
    assert cursor is not None, text
    return cursor

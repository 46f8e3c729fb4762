"""Other people's clients read the real stream: from the first frame, over a restart, to the last.

One history is told to all of them at once (`tests.readers.show`), on SQLite; one library and one
model read it on the other databases too.
"""

import email.utils
import itertools
import re
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import databases, serving
from tests.conftest import missing
from tests.readers import chunks, history
from tests.readers.desktop import Desktop
from tests.readers.flutter import Flutter
from tests.readers.heard import Change, Heard
from tests.readers.listener import FRAME, LAST, Curl, Model, Response, Stream
from tests.readers.show import (
    KEEP_IDS,
    MODELS,
    TOLD,
    WAIT_SECONDS,
    Show,
    cast,
    changes,
    connections,
)

# Long enough for one transaction to be told in one batch.
SETTINGS = {"EVENTS_DEBOUNCE": "0.2"}

READERS = {
    "sqlite": (*KEEP_IDS, *MODELS),
    "postgresql": ("httpx-sse", "desktop"),
    "mariadb": ("httpx-sse", "desktop"),
}


def perform(engine: str, folders: pytest.TempPathFactory) -> Show:
    if engine != "sqlite" and databases.server_address(engine) is None:
        missing(f"the {engine} server")
    folder = folders.mktemp(engine)
    with databases.migrated(engine, folder) as url:
        server = serving.Server(url, folder / "gunicorn.log", SETTINGS)
        show = cast(server, READERS[engine], folder)
        show.run(server)
    return show


# One fixture each, not one with a parameter: such a one would be made anew for each reader.
@pytest.fixture(scope="module")
def sqlite_show(tmp_path_factory: pytest.TempPathFactory) -> Show:
    return perform("sqlite", tmp_path_factory)


@pytest.fixture(scope="module")
def postgresql_show(tmp_path_factory: pytest.TempPathFactory) -> Show:
    return perform("postgresql", tmp_path_factory)


@pytest.fixture(scope="module")
def mariadb_show(tmp_path_factory: pytest.TempPathFactory) -> Show:
    return perform("mariadb", tmp_path_factory)


@pytest.fixture
def show(request: pytest.FixtureRequest, engine: str) -> Show:
    found = request.getfixturevalue(f"{engine}_show")
    assert isinstance(found, Show)
    return found


@pytest.fixture
def heard(show: Show, name: str) -> list[Heard]:
    if name in show.missing:
        missing(show.missing[name])
    return show.heard[name]


def each(*names: str) -> pytest.MarkDecorator:
    """Run with every one of these readers, on every database it reads from."""
    cases = [(engine, name) for engine, cast in READERS.items() for name in cast if name in names]
    return pytest.mark.parametrize(("engine", "name"), cases)


on_sqlite = pytest.mark.parametrize("engine", ["sqlite"])


@each(*KEEP_IDS, *MODELS)
class TestReader:
    """What every reader shows."""

    def test_is_told_at_first_that_it_must_list(self, heard: list[Heard]) -> None:
        assert (heard[0].name, heard[0].changes) == ("subscribed", ())

    def test_hears_every_change_once_and_in_order(self, heard: list[Heard]) -> None:
        assert changes(connections(heard)[0]) == TOLD

    def test_hears_no_frame_but_the_five(self, heard: list[Heard]) -> None:
        first = connections(heard)[0]
        assert {frame.name for frame in first[1:-1]} == {"event", "keep-alive"}
        assert first[-1].name == LAST
        assert all(frame.changes == () for frame in heard if frame.name != "event")

    def test_is_resumed_after_the_restart(self, heard: list[Heard]) -> None:
        """However often a server that is going asks it to come back: never again must it list."""
        later = connections(heard)[1:]
        assert {frames[0].name for frames in later} - {LAST} == {"resumed"}
        names = {frame.name for frames in later for frame in frames[1:]}
        assert names <= {"event", "keep-alive", LAST}


@each(*KEEP_IDS)
class TestReaderWithIds:
    """What a reader shows that comes back with Last-Event-ID."""

    def test_gets_an_id_with_every_frame(self, heard: list[Heard]) -> None:
        assert all(frame.id for frame in heard)

    def test_gets_a_new_id_with_the_last_frame_of_a_batch_only(self, heard: list[Heard]) -> None:
        events = [frame.id for frame in connections(heard)[0] if frame.name == "event"]
        assert set(events[:-1]) == {heard[0].id}
        assert events[-1] != heard[0].id

    def test_hears_what_it_has_missed_and_nothing_twice(self, heard: list[Heard]) -> None:
        assert changes(heard) == TOLD + history.MISSED


def deadline() -> float:
    return time.monotonic() + WAIT_SECONDS


def is_part(told: list[Change], everything: list[Change]) -> bool:
    starts = range(len(everything) - len(told) + 1)
    return any(everything[start : start + len(told)] == told for start in starts)


@each(*MODELS)
class TestModel:
    """What the models show: a client id and no ids, and one byte at a time."""

    def test_hears_what_it_has_missed_behind_what_may_come_twice(self, heard: list[Heard]) -> None:
        """Each connection goes on with no gap from somewhere before, and repeats no rename."""
        later = [changes(frames) for frames in connections(heard)[1:]]
        everything = history.second_delivery(TOLD) + history.MISSED
        assert [told for told in later if not is_part(told, everything)] == []
        assert later[-1][-len(history.MISSED) :] == history.MISSED

    def test_never_gives_up_a_connection_that_it_got(self, show: Show, name: str) -> None:
        assert model_of(show, name).faults == []

    def test_gets_only_whole_frames_in_a_chunk(self, show: Show, name: str) -> None:
        """A frame is one write. One that was held from its first moment on may have no id."""
        whole = re.compile(
            rb"(event: [a-z-]+\n(id: [\w-]+\n)?(retry: \d+\n)?data: [\x20-\x7e]+\n\n)+"
        )
        model = model_of(show, name)
        pieces = [piece for one in model.connections for piece in one.chunked.chunks if piece]
        assert pieces != []
        assert [piece for piece in pieces if not whole.fullmatch(piece)] == []

    def test_hears_a_frame_with_the_chunk_that_brought_it(self, show: Show, name: str) -> None:
        """No frame stands behind one that makes a reader wait for more."""
        for connection in model_of(show, name).connections:
            reader = MODELS[name]()
            pieces = [piece for piece in connection.chunked.chunks if LAST.encode() not in piece]
            counts = [len(list(reader.feed(bytes(piece)))) for piece in pieces]
            assert counts == [piece.count(b"\n\n") for piece in pieces]

    def test_hears_the_same_however_the_bytes_are_cut(self, show: Show, name: str) -> None:
        body = b"".join(short_frames(model_of(show, name)))
        whole = read(name, [body])
        assert changes(whole)[: len(history.FIRST)] == history.FIRST
        assert all(read(name, pieces) == whole for pieces in chunks.every_split(body))


def model_of(show: Show, name: str) -> Model:
    model = show.listeners[name]
    assert isinstance(model, Model)
    return model


def short_frames(model: Model) -> list[bytes]:
    """Return what the model got, each frame once, without the giant and without the end."""
    body = b"".join(itertools.chain(*(one.chunked.chunks for one in model.connections)))
    frames = dict.fromkeys(frame + b"\n\n" for frame in body.split(b"\n\n")[:-1])
    return [frame for frame in frames if len(frame) < 4096 and LAST.encode() not in frame]


def read(name: str, pieces: Sequence[bytes]) -> list[Heard]:
    reader = MODELS[name]()
    heard = [frame for piece in pieces for frame in reader.feed(piece)]
    return heard + list(reader.end())


@on_sqlite
def test_flutter_drops_nothing(show: Show) -> None:
    readers = model_of(show, "flutter").readers
    assert [reader.dropped for reader in readers if isinstance(reader, Flutter)] == [
        [] for _ in readers
    ]


def test_desktop_counts_no_fault_over_a_reload(sqlite_url: str, tmp_path: Path) -> None:
    """It comes back at once; the sixth refusal or abrupt end would silence it for an hour."""
    with serving.Server(sqlite_url, tmp_path / "gunicorn.log").running() as server:
        assert server.process is not None
        model = Model(Stream(server.events_url, server.token(), str(uuid.uuid4())), Desktop)
        model.start()
        model.transcript.wait_for(bool, deadline())
        old = server.worker_pids()
        server.process.send_signal(signal.SIGHUP)
        serving.eventually(lambda: not set(old) & set(server.worker_pids()))
        server.append("create", "/new")
        model.transcript.wait_for(lambda heard: changes(heard) != [], deadline())
        heard, faults = model.transcript.read(), [*model.faults, *model.unreached]
    model.stop()
    assert faults == []
    begins = [frames[0].name for frames in connections(heard)]
    assert (begins[0], set(begins[1:]) - {LAST}) == ("subscribed", {"resumed"})
    assert [change["from"] for change in changes(heard)] == ["/new"]


# -- the wire on one screen: exactly what curl gets ------------------------------------------------
# With A, B, C for the ids as they come, and R for the milliseconds to wait.

SUBSCRIBED = b"event: subscribed\nid: A\nretry: R\ndata: []\n\n"
FIRST = (
    b"event: event\nid: A\ndata: ["
    b'{"type":"create","file_id":"f1","from":"/plan.md","to":""},'
    b'{"type":"create","file_id":"f2","from":"/\\u540d\\u524d \\ud83d\\uddc2\\ufe0f.txt","to":""},'
    b'{"type":"modify","file_id":"f3",'
    b'"from":"/a\\nb\\r\\nc\\n\\nevent: subscribed\\ndata: []\\n\\n","to":""},'
    b'{"type":"create","file_id":"f4","from":"/\\u00e9","to":""},'
    b'{"type":"create","file_id":"f5","from":"/e\\u0301","to":""},'
    b'{"type":"rename","file_id":"f6","from":"/alt","to":"/neu/\\u00df \\u2028\\ufeff\\u007f"},'
    b'{"type":"delete","file_id":"f7","from":"/ \\"\\\\ %41?#\\t... ","to":""}'
    b"]\n\n"
)
LONG = (
    b'event: event\nid: B\ndata: [{"type":"rename","file_id":"f8","from":"/'
    + b"\\u0001" * 4000
    + b'","to":"/'
    + b"\\u0001" * 4000
    + b'\\u0002"}]\n\n'
)
KEEP_ALIVE = b"event: keep-alive\nid: B\ndata: []\n\n"
RECONNECT_REQUIRED = b"event: reconnect-required\nid: B\ndata: []\n\n"
RESUMED = b"event: resumed\nid: B\nretry: R\ndata: []\n\n"
MISSED = (
    b"event: event\nid: C\ndata: ["
    b'{"type":"create","file_id":"f9","from":"/verpasst \\u2713","to":""},'
    b'{"type":"rename","file_id":"f10","from":"/p","to":"/q"},'
    b'{"type":"delete","file_id":"f11","from":"/r","to":""}'
    b"]\n\n"
)

HEADERS = {
    "Server": "gunicorn",
    "Connection": "close",
    "Transfer-Encoding": "chunked",
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


@pytest.fixture
def curl(show: Show) -> Curl:
    if "curl" in show.missing:
        missing(show.missing["curl"])
    listener = show.listeners["curl"]
    assert isinstance(listener, Curl)
    return listener


def golden(responses: Sequence[Response]) -> list[list[bytes]]:
    """Cut each body into frames, with one letter for each id and R for any time to wait."""
    letters: dict[bytes, bytes] = {}

    def lettered(match: re.Match[bytes]) -> bytes:
        letter = letters.setdefault(match[1], b"%c" % (ord("A") + len(letters)))
        return b"\nid: " + letter + b"\n"

    bodies = [re.sub(rb"\nid: (.*)\n", lettered, response.body) for response in responses]
    bodies = [re.sub(rb"\nretry: [1-9]\d{3}\n", b"\nretry: R\n", body) for body in bodies]
    return [[frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]] for body in bodies]


@on_sqlite
class TestCurl:
    """Byte for byte; that a frame is nothing but FRAME is seen by its transcript too."""

    def test_gets_exactly_these_bytes(self, curl: Curl) -> None:
        first, *later = golden(curl.responses)
        assert [frame for frame in first if b"keep-alive" not in frame] == [
            SUBSCRIBED,
            FIRST,
            LONG,
            RECONNECT_REQUIRED,
        ]
        assert KEEP_ALIVE in first
        # A server that is going may take it in again, and ask it once more to come back.
        again = dict.fromkeys(
            frame for frames in later for frame in frames if b"keep-alive" not in frame
        )
        again.pop(RECONNECT_REQUIRED, None)
        assert list(again)[:2] == [RESUMED, MISSED]

    def test_gets_nothing_between_and_behind_the_frames(self, curl: Curl) -> None:
        bodies = [response.body for response in curl.responses]
        assert [body for body in bodies if not re.fullmatch(b"(%s)+" % FRAME.pattern, body)] == []

    def test_is_told_in_the_frame_that_begins_how_long_to_wait_and_in_no_other(
        self, curl: Curl
    ) -> None:
        frames = [frame for frames in golden(curl.responses) for frame in frames]
        told = {frame.split(b"\n")[0] for frame in frames if b"\nretry: R\n" in frame}
        assert told == {b"event: subscribed", b"event: resumed"}
        assert [
            frame for frame in frames if b"\nretry" in frame and b"\nretry: R" not in frame
        ] == []

    def test_gets_exactly_these_headers(self, curl: Curl) -> None:
        """None that compresses, redirects or lets anyone keep or hold back the stream."""
        for response in curl.responses:
            status, *fields = response.head.decode("ascii").strip().split("\r\n")
            headers = dict(field.split(": ", 1) for field in fields)
            assert email.utils.parsedate_to_datetime(headers.pop("Date"))
            assert (status, headers) == ("HTTP/1.1 200 OK", HEADERS)

    def test_sees_every_connection_end_cleanly_behind_its_last_frame(self, curl: Curl) -> None:
        """It exits with 18 where the final chunk is missing."""
        assert {response.exit_code for response in curl.responses} == {0}
        lasts = [frames[-1] for frames in golden(curl.responses)]
        assert [last for last in lasts if not last.startswith(b"event: reconnect-required\n")] == []

"""One history told to many readers at once, with a restart in the middle.

They connect, and are told that they are new. The app commits the history; they hear it, and a
keep-alive after it. The server is stopped, the app commits more, the server comes back. They come
back by themselves, and hear what they have missed.
"""

import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import sqlalchemy

from tests.readers import history, programs
from tests.readers.desktop import Desktop
from tests.readers.flutter import Flutter
from tests.readers.heard import Change, Heard
from tests.readers.listener import (
    LAST,
    Curl,
    HttpxSse,
    LaunchDarkly,
    Listener,
    Model,
    Program,
    Reader,
    Stream,
)
from tests.readers.sdk import Sdk
from tests.serving import Server

MODELS: Mapping[str, Callable[[], Reader]] = {"desktop": Desktop, "sdk": Sdk, "flutter": Flutter}
# They come back with Last-Event-ID, so nothing may come twice; the models have a client id only.
KEEP_IDS = ("curl", "httpx-sse", "launchdarkly-eventsource", "eventsource", "go-sse")

# A restart takes 3 s on two busy cores, and npm's eventsource waits 3 s before it comes back.
WAIT_SECONDS = 20

USER = "42"
TOLD = history.FIRST + history.LONG

INSERT = sqlalchemy.text(
    "INSERT INTO file_event_outbox (user_id, type, file_id, from_path, to_path)"
    " VALUES (:user_id, :type, :file_id, :from_path, :to_path)"
)


@dataclasses.dataclass
class Show:
    """What became of each reader; those that can't be had are missing, with the reason."""

    listeners: dict[str, Listener] = dataclasses.field(default_factory=dict)
    heard: dict[str, list[Heard]] = dataclasses.field(default_factory=dict)
    """What each had heard when it had missed nothing any more."""
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    def run(self, server: Server) -> None:
        """Run it; readers that are stuck cost time here and are found out by the tests."""
        server.start()
        try:
            self._run(server)
        finally:
            # The server first: readers that wait for bytes end with it.
            server.stop()
            for listener in self.listeners.values():
                listener.stop()

    def _run(self, server: Server) -> None:
        for listener in self.listeners.values():
            listener.start()
        self._wait(lambda heard: heard != [])
        commit(server, TOLD)
        self._wait(lambda heard: len(changes(heard)) >= len(TOLD))
        self._wait(lambda heard: [frame.name for frame in heard[-1:]] == ["keep-alive"])
        server.stop()
        commit(server, history.MISSED)
        server.start()
        self._wait(lambda heard: changes(heard)[-len(history.MISSED) :] == history.MISSED)
        self.heard = {name: each.transcript.read() for name, each in self.listeners.items()}

    def _wait(self, enough: Callable[[list[Heard]], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        for listener in self.listeners.values():
            listener.transcript.wait_for(enough, deadline)


def cast(server: Server, names: Sequence[str], folder: Path) -> Show:
    """Bring the readers `names` together; programs are built in `folder`."""
    show = Show()
    for name in names:
        # The SDK takes one change a frame.
        payload = "&payload=object" if name == "sdk" else ""
        url = f"{server.events_url}?uri={history.URI}{payload}"
        stream = Stream(url, server.token(USER), str(uuid.uuid4()))
        try:
            show.listeners[name] = _listener(name, stream, folder)
        except programs.MissingError as reason:
            show.missing[name] = f"{name} ({reason})"
    return show


def _listener(name: str, stream: Stream, folder: Path) -> Listener:
    match name:
        case "curl":
            return Curl(stream, programs.curl(), folder / "head")
        case "httpx-sse":
            return HttpxSse(stream)
        case "launchdarkly-eventsource":
            return LaunchDarkly(stream)
        case "eventsource":
            return Program(stream, programs.node())
        case "go-sse":
            return Program(stream, programs.go(folder))
        case _:
            return Model(stream, MODELS[name])


def commit(server: Server, told: Sequence[Change]) -> None:
    """Write the rows of these changes in one transaction, as an app does."""
    engine = sqlalchemy.create_engine(server.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(INSERT, [{"user_id": USER, **history.row(each)} for each in told])


def changes(heard: Sequence[Heard]) -> list[Change]:
    """Join the changes of all frames."""
    return [change for frame in heard for change in frame.changes]


def connections(heard: Sequence[Heard]) -> list[list[Heard]]:
    """Cut a transcript behind each end that the server asked for."""
    cut: list[list[Heard]] = [[]]
    for frame in heard:
        cut[-1].append(frame)
        if frame.name == LAST:
            cut.append([])
    return [frames for frames in cut if frames]

"""Readers that run: each in a thread or process of its own, writing down what it hears.

Each comes back by itself after any end of a connection, in its own way: with the client id, with
`Last-Event-ID`, or with both.
"""

import abc
import dataclasses
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import httpx
import httpx_sse
import ld_eventsource
from ld_eventsource.config import ConnectStrategy, ErrorStrategy, RetryDelayStrategy

from tests.readers import heard, wire
from tests.readers.desktop import ClientFaultError
from tests.readers.heard import Heard
from tests.readers.sdk import ThrownError
from tests.readers.transcript import Transcript

# How soon a reader without a pause of its own comes back.
PAUSE_SECONDS = 0.1

LAST = "reconnect-required"


@dataclasses.dataclass(frozen=True)
class Stream:
    """Where and as whom to read."""

    url: str
    token: str
    client_id: str

    def headers(self) -> dict[str, str]:
        """Make the headers of a request as this client."""
        return {"Authorization": f"Bearer {self.token}", "X-Cr-Client-Id": self.client_id}


class Listener(abc.ABC):
    """A reader at work."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.transcript = Transcript()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; a reader that waits for bytes ends with the server or its next frame."""
        self._stopped.set()
        self._interrupt()
        self._thread.join()

    def _interrupt(self) -> None:
        """Wake what can be woken; most wait for bytes and can't be."""
        return

    @abc.abstractmethod
    def _run(self) -> None:
        """Listen until stopped."""


class Reconnecting(Listener):
    """A reader whose application makes each connection, as httpx-sse and the models need it."""

    unreachable: tuple[type[Exception], ...] = (OSError, wire.CutOffError)

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.unreached: list[str] = []
        """What stood in the way of a connection."""

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._connect()
            except self.unreachable as error:
                self.unreached.append(repr(error))
                self._stopped.wait(PAUSE_SECONDS)

    @abc.abstractmethod
    def _connect(self) -> None:
        """Listen to one connection."""


class HttpxSse(Reconnecting):
    """httpx-sse, coming back with client id and Last-Event-ID as its manual shows."""

    unreachable = (httpx.TransportError,)

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._last: dict[str, str] = {}

    def _connect(self) -> None:
        headers = self.stream.headers() | self._last
        with (
            httpx.Client(timeout=wire.SILENCE_SECONDS) as client,
            httpx_sse.connect_sse(client, "GET", self.stream.url, headers=headers) as source,
        ):
            source.response.raise_for_status()
            for event in source.iter_sse():
                self._last = {"Last-Event-ID": event.id}
                self.transcript.add(heard.from_frame(event.event, event.data, event.id))
                if self._stopped.is_set():
                    return


class LaunchDarkly(Listener):
    """launchdarkly-eventsource: no client id, and a Last-Event-ID that it keeps by itself."""

    def _run(self) -> None:
        connect = ConnectStrategy.http(
            self.stream.url, headers={"Authorization": f"Bearer {self.stream.token}"}
        )
        with ld_eventsource.SSEClient(
            connect,
            initial_retry_delay=PAUSE_SECONDS,
            retry_delay_strategy=RetryDelayStrategy.default(max_delay=1),
            error_strategy=ErrorStrategy.always_continue(),
        ) as client:
            for action in client.all:
                if self._stopped.is_set():
                    return
                if isinstance(action, ld_eventsource.actions.Event):
                    self.transcript.add(
                        heard.from_frame(action.event, action.data, action.last_event_id or "")
                    )


class Program(Listener):
    """A program that prints a line of JSON for each frame and keeps Last-Event-ID by itself."""

    def __init__(self, stream: Stream, command: Sequence[str]) -> None:
        super().__init__(stream)
        self._process = subprocess.Popen(
            [*command, stream.url],
            env=os.environ | {"READER_TOKEN": stream.token},
            stdout=subprocess.PIPE,
            text=True,
        )

    def _run(self) -> None:
        with self._process as process:
            for line in process.stdout or ():
                frame = json.loads(line)
                self.transcript.add(heard.from_frame(frame["event"], frame["data"], frame["id"]))

    def _interrupt(self) -> None:
        self._process.terminate()


@dataclasses.dataclass
class Response:
    """What curl wrote of one connection."""

    body: bytes = b""
    head: bytes = b""
    exit_code: int | None = None


class Curl(Listener):
    """One curl after another, each sent the last id that was seen; every byte is kept."""

    def __init__(self, stream: Stream, command: Sequence[str], head_file: Path) -> None:
        super().__init__(stream)
        self.responses: list[Response] = []
        self._command = [*command, "-sN", "--compressed", "-D", str(head_file)]
        self._head_file = head_file
        self._last: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def _run(self) -> None:
        while not self._stopped.wait(PAUSE_SECONDS):
            self._listen()

    def _listen(self) -> None:
        headers = self.stream.headers() | self._last
        options = [f"-H{name}: {value}" for name, value in headers.items()]
        response = Response()
        with subprocess.Popen(
            [*self._command, *options, self.stream.url], stdout=subprocess.PIPE
        ) as self._process:
            for frame in _frames(self._process, response):
                self._last = {"Last-Event-ID": frame.id}
                self.transcript.add(frame)
        response.exit_code = self._process.returncode
        response.head = self._head_file.read_bytes()
        if response.body:
            self.responses.append(response)

    def _interrupt(self) -> None:
        if self._process is not None:
            self._process.terminate()


def _frames(process: subprocess.Popen[bytes], response: Response) -> Iterator[Heard]:
    seen = 0
    while process.stdout and (piece := os.read(process.stdout.fileno(), 65536)):
        response.body += piece
        while (end := response.body.find(b"\n\n", seen)) >= 0:
            yield golden_frame(response.body[seen : end + 2])
            seen = end + 2


FRAME = re.compile(
    rb"event: ([a-z-]+)\nid: ([\x21-\x7e]+)\n(?:retry: [1-9]\d*\n)?data: ([\x20-\x7e]+)\n\n"
)


def golden_frame(text: bytes) -> Heard:
    """Read a frame that is exactly as the protocol has it; any other goes by its bytes."""
    match = FRAME.fullmatch(text)
    if match is None:
        return Heard(repr(text))
    name, frame_id, data = (group.decode("ascii") for group in match.groups())
    return heard.from_frame(name, data, frame_id)


class Reader(Protocol):
    """A behavioural model: one connection of it."""

    def feed(self, chunk: bytes) -> Iterator[Heard]:
        """Take a chunk."""
        ...

    def end(self) -> Iterator[Heard]:
        """Take the end."""
        ...


class Model(Reconnecting):
    """A behavioural model on a bare socket that hands it one byte at a time.

    It comes back with the client id alone, at once, as the client does.
    """

    def __init__(self, stream: Stream, new: Callable[[], Reader]) -> None:
        super().__init__(stream)
        self.readers: list[Reader] = []
        self.connections: list[wire.Connection] = []
        self.faults: list[str] = []
        """What made the client give up a connection that it got."""
        self._new = new

    def _connect(self) -> None:
        with wire.Connection(self.stream.url, self.stream.headers(), step=1) as connection:
            self.readers.append(self._new())
            self.connections.append(connection)
            if connection.status != httpx.codes.OK:
                self.faults.append(f"refused with {connection.status}")
                raise ConnectionRefusedError
            try:
                self._listen(self.readers[-1], connection)
            except (ClientFaultError, wire.CutOffError, ThrownError) as fault:
                self._give_up(fault)

    def _listen(self, reader: Reader, connection: wire.Connection) -> None:
        for piece in connection.body():
            for frame in reader.feed(piece):
                self.transcript.add(frame)
                if frame.name == LAST or self._stopped.is_set():
                    return
        for frame in reader.end():
            self.transcript.add(frame)

    def _give_up(self, fault: Exception) -> None:
        # The SDK does not know this name and throws; its caller iterates anew, which is right.
        if isinstance(fault, ThrownError) and fault.name == LAST:
            self.transcript.add(Heard(LAST))
        else:
            self.faults.append(repr(fault))

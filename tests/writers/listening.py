"""An ordinary SSE client that waits for what writers commit."""

import contextlib
import time
from collections.abc import Callable, Iterator

from tests.readers.heard import Heard
from tests.readers.listener import HttpxSse, Stream
from tests.serving import Server

HEAR_SECONDS = 20

Change = dict[str, str]


@contextlib.contextmanager
def listening(server: Server, user: str, client_id: str) -> Iterator[HttpxSse]:
    """Listen as `user`, from the moment when the stream has begun."""
    listener = HttpxSse(Stream(server.events_url, server.token(user), client_id))
    listener.start()
    try:
        wait(listener, lambda frames: any(frame.name == "subscribed" for frame in frames))
        yield listener
    finally:
        listener.stop()


def wait(listener: HttpxSse, enough: Callable[[list[Heard]], bool]) -> None:
    """Wait for what `listener` shall have heard; fail with what it did hear."""
    heard = listener.transcript.wait_for(enough, time.monotonic() + HEAR_SECONDS)
    told = [frame for frame in listener.transcript.read() if frame.name != "keep-alive"]
    assert heard, f"not heard within {HEAR_SECONDS} s; heard so far: {told}"


def changes(frames: list[Heard]) -> list[Change]:
    """Join the changes of all frames."""
    return [change for frame in frames for change in frame.changes]


def wait_for_changes(listener: HttpxSse, count: int) -> list[Change]:
    """Wait until so many changes were heard; return all that were."""
    wait(listener, lambda frames: len(changes(frames)) >= count)
    return changes(listener.transcript.read())

"""gunicorn under the sidecar's role, and listeners on its stream."""

import contextlib
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import jwt

from tests.readers.heard import Heard
from tests.readers.listener import HttpxSse, Stream
from tests.writers import roles

START_SECONDS = 30
HEAR_SECONDS = 20
TOKEN_SECONDS = 600

# Changes go out at once and unfolded as far as they can; a listener that is told to stop looks up
# at its next frame.
SETTINGS = {
    "EVENTS_DEBOUNCE": "0",
    "EVENTS_KEEP_ALIVE": "0.2",
    "EVENTS_POLL_INTERVAL": "0.05",
}

Change = dict[str, str]


class Service:
    """A running server."""

    def __init__(self, database: roles.Roles, port: int) -> None:
        self.database = database
        self.environment = (
            SETTINGS
            | database.environment("sidecar")
            | {"EVENTS_JWT_SECRET": secrets.token_urlsafe(48)}
        )
        self.address = f"http://127.0.0.1:{port}"
        self.port = port

    def token(self, user: str) -> str:
        """Make a token as an issuer does that shares the secret."""
        claims = {"sub": user, "exp": int(time.time()) + TOKEN_SECONDS}
        return jwt.encode(claims, self.environment["EVENTS_JWT_SECRET"], algorithm="HS256")

    def flask(self, *arguments: str) -> str:
        """Run one of our commands with the server's settings; what it printed."""
        return roles.ours(
            "flask", "--app", "wsgi", "events", *arguments, environment=self.environment
        )

    @contextlib.contextmanager
    def listening(self, user: str, client_id: str) -> Iterator[HttpxSse]:
        """Listen as `user`, from the moment when the stream has begun."""
        stream = Stream(f"{self.address}/api/v4/file/events", self.token(user), client_id)
        listener = HttpxSse(stream)
        listener.start()
        try:
            wait(listener, lambda frames: any(f.name == "subscribed" for f in frames))
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
    """Wait until so many changes were heard; all that were."""
    wait(listener, lambda frames: len(changes(frames)) >= count)
    return changes(listener.transcript.read())


@contextlib.contextmanager
def served(database: roles.Roles, log: Path) -> Iterator[Service]:
    """Serve `database` by two workers under the sidecar's role."""
    service = Service(database, _free_port())
    with log.open("wb") as output:
        gunicorn = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"),
                *("--bind", f"127.0.0.1:{service.port}", "--workers", "2", "wsgi:app"),
            ],
            cwd=roles.ROOT,
            env=roles.plain_environment() | service.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        assert _ready(service, gunicorn), log.read_text()
        yield service
    finally:
        gunicorn.terminate()
        gunicorn.wait()


def _ready(service: Service, gunicorn: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while gunicorn.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{service.address}/readyz").status_code == httpx.codes.OK:
                return True
        time.sleep(0.1)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

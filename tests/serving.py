"""gunicorn as it runs in production, and the app's side of the same database."""

from __future__ import annotations

import contextlib
import copy
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import jwt
import sqlalchemy

from events_app import outbox
from tests.databases import ROOT, plain_environment

START_SECONDS = 30
STOP_SECONDS = 20
CONNECT_SECONDS = 20
LOOK_SECONDS = 0.02
LISTEN_BACKLOG = 64
EVENTS_PATH = "/api/v4/file/events"

# Quick enough for tests; a test that is about one of them says its own.
SETTINGS = {
    "EVENTS_DEBOUNCE": "0",
    "EVENTS_KEEP_ALIVE": "1",
    "EVENTS_POLL_INTERVAL": "0.05",
    "EVENTS_DRAIN": "0.2",
}

T = TypeVar("T")

# Opens a connection to (host, port) within so many seconds.
Dial = Callable[[tuple[str, int], float], socket.socket]


def free_port() -> int:
    """Return a port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(look: Callable[[], T | None], seconds: float = 20.0, what: str = "") -> T:
    """Call `look` until it returns something true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or look}"
        time.sleep(LOOK_SECONDS)
    return found


class Server:
    """Two workers on the database at `url`. `settings` are `EVENTS_` variables."""

    def __init__(
        self,
        url: str,
        log: Path,
        settings: Mapping[str, str] | None = None,
        *,
        workers: int = 2,
        secret: str | None = None,
        application: str = "wsgi:app",
        root: Path = ROOT,
    ) -> None:
        self.root = root
        self.application = application
        self.secret = secret or secrets.token_urlsafe(48)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.events_url = self.url + EVENTS_PATH
        self.binds = [f"127.0.0.1:{self.port}"]
        self.log = log
        self.workers = workers
        self.database_url = url
        self.environment = plain_environment() | SETTINGS | dict(settings or {})
        self.environment |= {"EVENTS_DATABASE_URL": url}
        if "EVENTS_JWT_ALGORITHM" not in self.environment:  # the others have no use for it
            self.environment["EVENTS_JWT_SECRET"] = self.secret
        self.process: subprocess.Popen[bytes] | None = None
        self.listener: socket.socket | None = None
        self._dial: Dial = socket.create_connection
        self._address = ("127.0.0.1", self.port)

    def connect(self) -> socket.socket:
        """Open a connection as a client does."""
        return self._dial(self._address, CONNECT_SECONDS)

    def seen_by(self, dial: Dial, address: tuple[str, int] | None = None) -> Self:
        """Return it as clients see it who come another way."""
        seen = copy.copy(self)
        seen._dial, seen._address = dial, address or self._address
        return seen

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Run it, and end it however the test ends."""
        try:
            self.start()
            yield self
        finally:
            self.stop()

    def start(self, *, ready: bool = True) -> None:
        """Start gunicorn; with `ready`, return when it follows the journal."""
        with self.log.open("ab") as log, contextlib.ExitStack() as stack:
            listeners = self._listeners(stack)
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"),
                    *(f"--bind=fd://{listener.fileno()}" for listener in listeners),
                    *(f"--bind={each}" for each in self.binds),
                    *("--workers", str(self.workers), self.application),
                ],
                cwd=self.root,
                env=self.environment,
                pass_fds=[listener.fileno() for listener in listeners],
                stdout=log,
                stderr=log,
            )
        if ready:
            eventually(self.is_ready, START_SECONDS, self.log.read_text())

    def _listeners(self, stack: contextlib.ExitStack) -> list[socket.socket]:
        """Return what gunicorn inherits, of which it says: all sockets or none."""
        if self.listener is None:
            return []
        near = socket.create_server(("127.0.0.1", self.port), backlog=LISTEN_BACKLOG)
        return [stack.enter_context(near), self.listener]

    def is_ready(self) -> bool:
        """Ask for readiness."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == httpx.codes.OK
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal and wait; return the exit code."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return 0
        workers = children(process.pid)
        process.send_signal(number)
        try:
            return process.wait(STOP_SECONDS)
        finally:
            process.kill()
            for worker in workers if number == signal.SIGKILL else ():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(worker, signal.SIGKILL)

    def worker_pids(self) -> list[int]:
        """List the workers."""
        assert self.process is not None
        return child_pids(self.process.pid)

    def token(self, user: str = "42", **claims: Any) -> str:
        """Make a token as the app's login does; a claim of None is left out."""
        all_claims: dict[str, Any] = {"sub": user, "exp": int(time.time()) + 3600} | claims
        kept = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode(kept, self.secret, "HS256")

    def headers(self, user: str = "42", client_id: str | None = None) -> dict[str, str]:
        """Make the headers of a stream's request."""
        found = {"Authorization": f"Bearer {self.token(user)}"}
        return found | ({"X-Cr-Client-Id": client_id} if client_id else {})

    def append(self, kind: str, path: str, to_path: str | None = None, **columns: Any) -> None:
        """Commit one change of user 42 (or `user_id`), as an app does."""
        values = {"user_id": "42", "file_id": f"f-{path}"} | columns
        engine = sqlalchemy.create_engine(self.database_url, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            outbox.append(
                connection,
                values.pop("user_id"),
                kind,
                values.pop("file_id"),
                path,
                to_path,
                **values,
            )


def child_pids(pid: int) -> list[int]:
    """List the children of a process."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def children(pid: int) -> list[int]:
    """Open a descriptor of each child of a process, which never means another one."""
    return [os.pidfd_open(child) for child in child_pids(pid)]

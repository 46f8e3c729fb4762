"""gunicorn with one worker, or some, and what the kernel says of it."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self
from urllib.error import URLError

import jwt

from bench.ticks import Gap
from events_app.api import EVENTS_PATH
from tests import serving
from tests.databases import ROOT, plain_environment

START_SECONDS = 30
STOP_SECONDS = 20
SECRET = secrets.token_urlsafe(48)

# Caps and pauses that would bound the figure instead of the work.
SETTINGS = {
    "EVENTS_JWT_SECRET": SECRET,
    "EVENTS_DEBOUNCE": "0",
    "EVENTS_DRAIN": "0",
    "EVENTS_MAX_STREAMS_PER_USER": "100000",
    "EVENTS_MAX_SUBSCRIPTIONS_PER_USER": "100000",
}


class Served(NamedTuple):
    """What gunicorn serves, and by which configuration."""

    application: str
    configuration: str


OURS = Served("wsgi:app", "gunicorn.conf.py")
OURS_TICKING = Served("bench.ticking:app", "gunicorn.conf.py")
RIVAL_PLAIN = Served("bench.rivals:plain", "bench/rivals_conf.py")
RIVAL_FLASK = Served("bench.rivals:flask", "bench/rivals_conf.py")


class Worker:
    """A running gunicorn. Memory and time are those of its first worker."""

    def __init__(
        self,
        served: Served,
        database_url: str | None = None,
        settings: Mapping[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        """Prepare to serve; `settings` are `EVENTS_` variables."""
        self.port = serving.free_port()
        self._served = served
        self._count = workers
        self._environment = plain_environment() | SETTINGS | dict(settings or {})
        if database_url is not None:
            self._environment["EVENTS_DATABASE_URL"] = database_url
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Run it, and end it."""
        command = [
            *(sys.executable, "-m", "gunicorn", "-c", self._served.configuration),
            *("--bind", f"127.0.0.1:{self.port}", "--workers", str(self._count)),
            self._served.application,
        ]
        with (
            tempfile.TemporaryFile() as log,
            subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            ) as process,
        ):
            try:
                self._process = process
                self._wait_until_ready(process)
                self.pid = serving.child_pids(process.pid)[0]
                yield self
            except BaseException:
                log.seek(0)
                lines = log.read().decode(errors="replace").splitlines(keepends=True)
                sys.stderr.writelines(lines[-20:])
                raise
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
                process.kill()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(URLError, OSError):
                self.ask("/readyz")
                return
            time.sleep(0.02)
        raise TimeoutError("gunicorn does not serve")

    def ask(self, path: str) -> str:
        """Get a page of the worker."""
        address = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(address, timeout=START_SECONDS) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """Read one of the worker's numbers."""
        found = re.search(rf"^{name}{{worker=.*}} (.+)$", self.ask("/metrics"), re.MULTILINE)
        if found is None:
            raise LookupError(f"the worker has no number {name}")
        return float(found[1])

    def holds(self) -> dict[str, int]:
        """Tell what the worker holds, by name, after its garbage was collected."""
        answer: dict[str, int] = json.loads(self.ask("/remains"))
        return answer

    def longest_gap(self) -> Gap:
        """Tell how long the loop stood still since the last question, if it ticks."""
        return Gap(*json.loads(self.ask("/bench/gap")))

    def terminate(self) -> subprocess.Popen[bytes]:
        """Tell gunicorn to stop; return its process."""
        if self._process is None:
            raise OSError("gunicorn was not started")
        self._process.terminate()
        return self._process

    def request(self, user_id: str, client_id: str) -> str:
        """Write the request for a stream of the whole tree."""
        claims = {"sub": user_id, "exp": int(time.time()) + 3600}
        token = jwt.encode(claims, SECRET, "HS256")
        return (
            f"GET {EVENTS_PATH} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
            f"Authorization: Bearer {token}\r\nX-Cr-Client-Id: {client_id}\r\n\r\n"
        )

    def memory_kilobytes(self) -> int:
        """Return the worker's proportional set size: pages shared with its master count by half.

        What streams add is never shared, so it counts whole.
        """
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        found = re.search(r"^Pss: +(\d+) kB$", text, re.MULTILINE)
        if found is None:
            raise OSError("the kernel does not tell the proportional set size")
        return int(found[1])

    def cpu_seconds(self) -> float:
        """Return the time, of user and system, that all threads of the worker have run."""
        nanoseconds = 0
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                nanoseconds += int((thread / "schedstat").read_text("ascii").split()[0])
        return nanoseconds / 1e9

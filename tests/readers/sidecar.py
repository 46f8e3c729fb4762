"""gunicorn on a migrated SQLite database, which can be stopped and come back at its address."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx
import jwt
import sqlalchemy

ROOT = Path(__file__).resolve().parents[2]

START_SECONDS = 30
STOP_SECONDS = 20
LOOK_SECONDS = 0.05

INSERT = sqlalchemy.text(
    "INSERT INTO file_event_outbox (user_id, type, file_id, from_path, to_path)"
    " VALUES (:user_id, :type, :file_id, :from_path, :to_path)"
)


class Sidecar:
    """Two workers over one database. `settings` are `EVENTS_` variables."""

    def __init__(self, database_url: str, log: Path, settings: Mapping[str, str]) -> None:
        self._secret = secrets.token_urlsafe(48)
        self._database_url = database_url
        own = {"EVENTS_DATABASE_URL": database_url, "EVENTS_JWT_SECRET": self._secret}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("EVENTS_")}
        self._environment = inherited | dict(settings) | own
        self._log = log
        self._port = _free_port()
        self._gunicorn: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def migrate(self) -> None:
        """Make the tables."""
        command = [sys.executable, "-m", "alembic", "upgrade", "head"]
        subprocess.run(command, cwd=ROOT, env=self._environment, check=True, capture_output=True)

    def start(self) -> None:
        """Run until `stop`; returns when it is ready."""
        address = f"127.0.0.1:{self._port}"
        options = ["-c", "gunicorn.conf.py", "--bind", address, "--workers", "2", "wsgi:app"]
        with self._log.open("ab") as log:
            self._gunicorn = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *options],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self._gunicorn.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(LOOK_SECONDS)

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == httpx.codes.OK
        return False

    def reload(self) -> None:
        """Replace the workers; the address stays open."""
        assert self._gunicorn is not None
        self._gunicorn.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        assert self._gunicorn is not None
        self._gunicorn.terminate()
        try:
            self._gunicorn.wait(STOP_SECONDS)
        finally:
            self._gunicorn.kill()

    def token(self, user_id: str) -> str:
        """Make an access token, as the app's own login would."""
        return jwt.encode({"sub": user_id, "exp": time.time() + 3600}, self._secret, "HS256")

    def append(self, user_id: str, rows: Iterable[Mapping[str, str | None]]) -> None:
        """Commit changes of `user_id` in one transaction, as an app does."""
        engine = sqlalchemy.create_engine(self._database_url)
        with engine.begin() as connection:
            connection.execute(INSERT, [{"user_id": user_id, **row} for row in rows])
        engine.dispose()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

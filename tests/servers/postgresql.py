"""PostgreSQL for the tests."""

import pathlib
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence

from tests.servers import server

FOLDERS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/local/pgsql/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)

# Test data is thrown away, so nothing waits for a disk. All that decides about visibility, locking
# and time-outs stays at its default: that is what the tests are about.
SETTINGS = {
    "listen_addresses": server.HOST,
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "off",
    "full_page_writes": "off",
}


class PostgreSQL(server.Server):
    """PostgreSQL: the newest release that is installed."""

    name = "postgresql"
    title = "PostgreSQL"
    packages = ("postgresql",)
    accounts = ("postgres", "nobody")
    default_port = 55432
    oldest = (13,)
    processes = ("postgres",)
    gentle_signal = signal.SIGINT  # "fast": clients are cut off; SIGTERM would wait for them

    def find(self) -> server.Programs | None:
        """Look on PATH and where distributions put what is not on PATH."""
        return max(_installed(), key=lambda found: found.version, default=None)

    def creation(self, programs: server.Programs) -> Sequence[str]:
        """Make the role a superuser of initdb, so that no client program is needed."""
        command = [
            str(programs.create),
            f"--pgdata={self.data}",
            f"--username={server.ROLE}",
            f"--pwfile={self.password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        if programs.version >= (15,):
            # People's databases sort by a language. Text of ours that relies on the order of
            # bytes without saying so has to fail here.
            command += ["--locale-provider=icu", "--icu-locale=en-US"]
        return command

    def command(self, programs: server.Programs, port: int) -> Sequence[str]:
        """Serve TCP only: a path to a socket may be too long."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        return [str(programs.server), "-D", str(self.data), f"--port={port}", *settings]

    def prepare(self) -> None:
        """Delete the lock file of a killed server.

        If its number is another process's by now, PostgreSQL would refuse to start. That none of
        ours is alive was checked before.
        """
        self._lock_file.unlink(missing_ok=True)

    def ready(self, state: server.State) -> bool:
        """Read what pg_ctl waits for: the eighth line of the lock file."""
        try:
            lines = self._lock_file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(state.process) and lines[7].strip() == "ready"

    def url(self, state: server.State) -> str:
        """Name the one database that every cluster has."""
        password = self.password_file.read_text()
        address = f"{server.ROLE}:{password}@{server.HOST}:{state.port}"
        return f"postgresql+psycopg://{address}/postgres"

    @property
    def _lock_file(self) -> pathlib.Path:
        return self.data / "postmaster.pid"


def _installed() -> Iterator[server.Programs]:
    for folder in _folders():
        program, create = folder / "postgres", folder / "initdb"
        if program.exists() and create.exists():
            command = [str(program), "--version"]
            text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            if match := re.search(r"(\d+)[\d.]*", text):
                yield server.Programs(program, create, text.strip(), (int(match[1]),))


def _folders() -> Iterator[pathlib.Path]:
    if on_path := shutil.which("postgres"):
        yield pathlib.Path(on_path).resolve().parent
    for pattern in FOLDERS:
        yield from pathlib.Path("/").glob(pattern)

"""MariaDB for the tests."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence

from tests.servers import server

SERVER_NAMES = ("mariadbd", "mysqld")
CREATE_NAMES = ("mariadb-install-db", "mysql_install_db")
FOLDERS = (
    "/usr/sbin",
    "/usr/bin",
    "/usr/libexec",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/local/mysql/bin",
    "/usr/local/mysql/scripts",
    "/opt/homebrew/opt/mariadb/bin",
    "/usr/local/opt/mariadb/bin",
)

# Test data is thrown away, so a commit need not reach the disk. Isolation levels, locking and
# time-outs stay at their defaults: that is what the tests are about.
SETTINGS = {
    "bind-address": server.HOST,
    "skip-name-resolve": "ON",
    "socket": "mariadb.sock",  # below the data folder: a full path may be too long for a socket
    "pid-file": "mariadb.pid",
    "max-connections": "300",
    "character-set-server": "utf8mb4",
    "innodb-flush-log-at-trx-commit": "2",
}

GREETING_SECONDS = 2.0


class MariaDB(server.Server):
    """MariaDB: the release that is installed."""

    name = "mariadb"
    title = "MariaDB"
    # The core packages have no service and no maintainer scripts: just the programs. The client's
    # has one that the server's needs to make its data.
    packages = ("mariadb-server-core", "mariadb-client-core")
    accounts = ("mysql", "nobody")
    default_port = 53306
    oldest = (10, 6)
    processes = SERVER_NAMES

    def find(self) -> server.Programs | None:
        """Look on PATH and where distributions put what is not on PATH."""
        return max(_installed(), key=lambda found: found.version, default=None)

    def creation(self, programs: server.Programs) -> Sequence[str]:
        """Leave out the role: the server makes it at every start, see ``prepare``."""
        return [
            str(programs.create),
            "--no-defaults",
            f"--datadir={self.data}",
            "--auth-root-authentication-method=socket",
            "--skip-test-db",
        ]

    def command(self, programs: server.Programs, port: int) -> Sequence[str]:
        """Read no settings of the machine."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        return [
            str(programs.server),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--port={port}",
            f"--init-file={self._first_statements}",
            *settings,
        ]

    def prepare(self) -> None:
        """Write the statements that make the role: the server runs them before it greets."""
        self._process_file.unlink(missing_ok=True)
        password = self.password_file.read_text()
        role = f"'{server.ROLE}'@'{server.HOST}'"
        server.write_private(
            self._first_statements,
            f"CREATE USER IF NOT EXISTS {role} IDENTIFIED BY '{password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {role} WITH GRANT OPTION;\n",
        )
        owner = self.folder.stat()
        os.chown(self._first_statements, owner.st_uid, owner.st_gid)

    def ready(self, state: server.State) -> bool:
        """Read its greeting, and the process file, which it writes once the port is its own."""
        try:
            if self._process_file.read_text().strip() != str(state.process):
                return False
            address = (server.HOST, state.port)
            with socket.create_connection(address, timeout=GREETING_SECONDS) as connection:
                return b"MariaDB" in connection.recv(128)
        except OSError:
            return False

    def url(self, state: server.State) -> str:
        """Name no database."""
        password = self.password_file.read_text()
        return f"mysql+pymysql://{server.ROLE}:{password}@{server.HOST}:{state.port}/"

    @property
    def _process_file(self) -> pathlib.Path:
        return self.data / "mariadb.pid"

    @property
    def _first_statements(self) -> pathlib.Path:
        return self.folder / "first.sql"


def _installed() -> Iterator[server.Programs]:
    create = _find(CREATE_NAMES)
    if create is None or _find(("my_print_defaults",)) is None:
        return
    for name in SERVER_NAMES:
        if program := _find((name,)):
            text = subprocess.run(
                [program, "--version"], capture_output=True, text=True, check=False
            ).stdout
            if match := re.search(r"(\d+)\.(\d+)\.\d+-MariaDB", text):
                release = text.strip().partition("Ver ")[2]
                yield server.Programs(program, create, release, (int(match[1]), int(match[2])))


def _find(names: Sequence[str]) -> pathlib.Path | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *FOLDERS])
    found = (shutil.which(name, path=path) for name in names)
    return next((pathlib.Path(program) for program in found if program), None)

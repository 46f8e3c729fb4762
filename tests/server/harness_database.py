"""Database servers that a test may break: each on its own port, in its own folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Self

import sqlalchemy
from sqlalchemy import make_url, text

from tests import conftest
from tests.servers import mariadb, postgresql, server
from tests.serving import eventually, free_port

# Few enough that a test can take them all; the workers' pools and listeners leave some.
MOST_CONNECTIONS = 40


class Breakable(server.Server):
    """A server of the tests' own; what is above it says which engine."""

    # What ends it without a farewell to anybody.
    harsh_signal = signal.SIGKILL

    def __init__(self, place: pathlib.Path) -> None:
        super().__init__()
        self.place = place
        self.default_port = free_port()
        # Restarted, it has to be where it was, whatever is set for the servers that all share.
        self.port_variable = ""

    @contextlib.contextmanager
    def running_here(self) -> Iterator[sqlalchemy.URL]:
        """Run it and throw it away; the administrator's URL."""
        try:
            yield make_url(self.start())
        except server.UnavailableError as reason:
            conftest.missing(str(reason))
        finally:
            self.remove()

    def crash(self) -> None:
        """End it at once."""
        state = self.running()
        assert state is not None
        os.kill(state.process, self.harsh_signal)
        eventually(lambda: not self._left(), what=f"{self.title} is gone")


class PostgreSQL(Breakable, postgresql.PostgreSQL):
    """A PostgreSQL to break."""

    harsh_signal = signal.SIGQUIT  # what `pg_ctl stop -m immediate` sends

    def command(self, programs: server.Programs, port: int) -> Sequence[str]:
        """Let few in."""
        return [*super().command(programs, port), f"--max_connections={MOST_CONNECTIONS}"]


class Standby(PostgreSQL):
    """A copy of a running PostgreSQL that follows it over `line`, a port of the loopback."""

    def __init__(self, place: pathlib.Path, primary: sqlalchemy.URL, line: int) -> None:
        super().__init__(place)
        self._primary = primary
        self._line = line

    def creation(self, programs: server.Programs) -> Sequence[str]:
        """Copy the primary; what is copied says whom to follow."""
        address = f"host={server.HOST} port={self._line} user={self._primary.username}"
        return [
            str(programs.create.parent / "pg_basebackup"),
            f"--pgdata={self.data}",
            f"--dbname={address} password={self._primary.password}",
            *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
        ]

    def url(self, state: server.State) -> str:
        """Name it with the primary's passwords, which it has copied."""
        return self._primary.set(port=state.port).render_as_string(hide_password=False)


class MariaDB(Breakable, mariadb.MariaDB):
    """A MariaDB to break, and to copy: `number` is its own among those that follow each other."""

    def __init__(self, place: pathlib.Path, number: int = 1) -> None:
        super().__init__(place)
        self._number = number

    def command(self, programs: server.Programs, port: int) -> Sequence[str]:
        """Let few in, and write down what another one may follow."""
        return [
            *super().command(programs, port),
            f"--max-connections={MOST_CONNECTIONS}",
            *("--log-bin=changes", "--log-slave-updates"),
            f"--server-id={self._number}",
        ]


ENGINES: dict[str, type[PostgreSQL | MariaDB]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}


def text_of(url: sqlalchemy.URL) -> str:
    """Write a URL with its password."""
    return url.render_as_string(hide_password=False)


def make_read_only(administrator: Administrator, *, yes: bool) -> None:
    """Let a whole server refuse the writes of all but administrators, or take them again."""
    if administrator.is_postgresql:
        administrator.run(
            "SET default_transaction_read_only = off",
            f"ALTER SYSTEM SET default_transaction_read_only = {'on' if yes else 'off'}",
            "SELECT pg_reload_conf()",
        )
    else:
        administrator.run(f"SET GLOBAL read_only = {int(yes)}")


class Administrator:
    """One connection that stays, also when nobody else gets one."""

    def __init__(self, url: sqlalchemy.URL) -> None:
        self._engine = sqlalchemy.create_engine(
            url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
        )
        self._connection = self._engine.connect()
        self.is_postgresql = self._engine.dialect.name == "postgresql"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.invalidate()  # its server may be dead
        self._connection.close()

    def run(self, *statements: str) -> None:
        """Run statements that return nothing."""
        for statement in statements:
            self._connection.exec_driver_sql(statement)

    def list(self, query: str, **values: Any) -> list[Any]:
        """Return the first column of the answer."""
        return list(self._connection.scalars(text(query), values))

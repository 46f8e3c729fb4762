"""Three servers that follow each other: the second succeeds by plan, the third by accident.

The last one lacks what was committed since it was cut off.
"""

from __future__ import annotations

import abc
import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import URL

from tests.server.harness_database import (
    Administrator,
    MariaDB,
    PostgreSQL,
    Standby,
    make_read_only,
    text_of,
)
from tests.server.harness_proxy import Proxy
from tests.servers.server import HOST
from tests.serving import eventually
from tests.writers import roles
from tests.writers.roles import Roles

# A transaction has no number before it writes; ours write within milliseconds.
QUIET_LOOKS = 10


class Succession(abc.ABC):
    """`at` are the addresses in the first server; those in another one differ by their port.

    `address` is that of the workers. `port` is the present primary's.
    """

    at: Roles
    address: URL
    port: int

    @abc.abstractmethod
    def hand_over(self) -> None:
        """Make the first server read-only and the second, which has everything, the primary.

        Whoever is connected to the first one may stay there.
        """

    @abc.abstractmethod
    def leave_heir_behind(self) -> None:
        """Let the third server have all there is, and hear of nothing any more."""

    @abc.abstractmethod
    def die(self) -> None:
        """Let the second server die, and the third be the primary, which workers cannot reach."""

    @abc.abstractmethod
    def open_line(self) -> None:
        """Let workers reach the third server."""


class OfPostgreSQL(Succession):
    """Streaming standbys; the workers' address names all three."""

    def __init__(self, at: Roles, folder: Path, stack: contextlib.ExitStack) -> None:
        self.at = at
        self._folder = folder
        self._stack = stack
        self._first = stack.enter_context(Administrator(at.admin))
        self._second = Standby(folder / "second", at.admin, int(at.admin.port or 0))
        self._second_url = stack.enter_context(self._second.running_here())
        self.port = int(at.admin.port or 0)
        self._replication = stack.enter_context(Proxy((HOST, int(self._second_url.port or 0))))
        self._third = Standby(folder / "third", self._second_url, self._replication.port)
        self._line = Proxy((HOST, self._third.default_port))
        stack.callback(self._line.cut)
        ports = (self.port, self._second_url.port, self._line.port)
        hosts = [("host", f"{HOST}:{port}") for port in ports]
        self.address = at.sidecar.set(host=None, port=None).update_query_pairs(
            [*hosts, ("target_session_attrs", "read-write")]
        )

    def hand_over(self) -> None:
        make_read_only(self._first, yes=True)
        self._stack.callback(make_read_only, self._first, yes=False)
        with Administrator(self._second_url) as second:
            wait_for_writers(self._first)
            wait_for_standby(self._first, second)
            second.run("SELECT pg_promote()")
            # It copied the setting too.
            make_read_only(second, yes=False)
        self.port = int(self._second_url.port or 0)
        self._third_url = self._stack.enter_context(self._third.running_here())

    def leave_heir_behind(self) -> None:
        with Administrator(self._second_url) as second, Administrator(self._third_url) as third:
            wait_for_standby(second, third)
        self._replication.cut()

    def die(self) -> None:
        self._second.crash()
        with Administrator(self._third_url) as third:
            third.run("SELECT pg_promote()")
        self.port = int(self._third_url.port or 0)

    def open_line(self) -> None:
        self._line.restore()


class OfMariaDB(Succession):
    """Replicas; the workers go through a proxy, which is led from one to the next."""

    def __init__(
        self,
        at: Roles,
        servers: Sequence[MariaDB],
        administrators: Sequence[Administrator],
        stack: contextlib.ExitStack,
    ) -> None:
        self.at = at
        self._servers = servers
        self._administrators = administrators
        self._line = stack.enter_context(Proxy((HOST, servers[0].default_port)))
        self._lead_to(0)
        self.address = at.sidecar.set(port=self._line.port)

    def _lead_to(self, number: int) -> None:
        self.port = self._servers[number].default_port
        self._line.lead_to((HOST, self.port))

    def hand_over(self) -> None:
        first, second, _ = self._administrators
        make_read_only(first, yes=True)
        wait_for_replica(first, second)
        second.run("STOP SLAVE")
        make_read_only(second, yes=False)
        self._lead_to(1)

    def leave_heir_behind(self) -> None:
        _, second, third = self._administrators
        wait_for_replica(second, third)
        third.run("STOP SLAVE")

    def die(self) -> None:
        self._line.cut()
        self._servers[1].crash()
        make_read_only(self._administrators[2], yes=False)
        self._lead_to(2)

    def open_line(self) -> None:
        self._line.restore()


@contextlib.contextmanager
def of_postgresql(folder: Path) -> Iterator[Succession]:
    """Prepare three PostgreSQL servers; the third is made when it is needed."""
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(PostgreSQL(folder / "first").running_here())
        at = stack.enter_context(roles.prepared(text_of(admin)))
        yield OfPostgreSQL(at, folder, stack)


@contextlib.contextmanager
def of_mariadb(folder: Path) -> Iterator[Succession]:
    """Prepare three MariaDB servers."""
    with contextlib.ExitStack() as stack:
        servers = [MariaDB(folder / str(number), number) for number in (1, 2, 3)]
        urls = [stack.enter_context(each.running_here()) for each in servers]
        administrators = [stack.enter_context(Administrator(url)) for url in urls]
        password = urls[0].password
        for behind in administrators[1:]:
            behind.run(f"SET PASSWORD = PASSWORD('{password}')")
        for ahead, behind in zip(urls, administrators[1:], strict=False):
            make_read_only(behind, yes=True)
            follow(behind, ahead.set(password=password))
        yield OfMariaDB(
            stack.enter_context(roles.prepared(text_of(urls[0]))), servers, administrators, stack
        )


def follow(replica: Administrator, primary: URL) -> None:
    """Let a MariaDB replicate another one from its beginning."""
    replica.run(
        f"CHANGE MASTER TO MASTER_HOST = '{HOST}', MASTER_PORT = {primary.port},"
        f" MASTER_USER = '{primary.username}', MASTER_PASSWORD = '{primary.password}',"
        " MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1",
        "START SLAVE",
    )


def wait_for_writers(primary: Administrator) -> None:
    """Wait until nobody writes any more: what began before the server was read-only may end yet."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
    )
    looks: deque[bool] = deque(maxlen=QUIET_LOOKS)

    def has_been_quiet() -> bool:
        looks.append(primary.list(query) == [0])
        return len(looks) == QUIET_LOOKS and all(looks)

    eventually(has_been_quiet, what="nobody writes any more")


def wait_for_standby(primary: Administrator, standby: Administrator) -> None:
    """Wait until a standby has replayed what its primary has written."""
    (end,) = primary.list("SELECT CAST(pg_current_wal_lsn() AS text)")
    query = f"SELECT pg_last_wal_replay_lsn() >= '{end}'"
    eventually(lambda: standby.list(query) == [True], what="the standby has everything")


def wait_for_replica(primary: Administrator, replica: Administrator) -> None:
    """Wait until a replica has done what its primary has done."""
    (end,) = primary.list("SELECT @@gtid_binlog_pos")
    assert replica.list(f"SELECT MASTER_GTID_WAIT('{end}', 20)") == [0]

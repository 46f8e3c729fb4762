"""Two hosts and a router between them, which can stop forwarding without a word to either.

Each is a network namespace of this machine. A socket belongs to the namespace in which it was made
and is used from anywhere, so neither the server nor its clients need to run inside: only the
server's listening socket and the clients' ends are made there.
"""

from __future__ import annotations

import contextlib
import ctypes
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tests import conftest

# <linux/sched.h>; the os module has setns() from Python 3.12 on.
_CLONE_NEWNET = 0x40000000
_HERE = Path("/proc/thread-self/ns/net")
_NAMESPACES = Path("/run/netns")

SERVER_HOST = "10.203.1.1"
CLIENT_HOST = "10.203.2.1"

# iproute2's batch language. Nothing outside of the three namespaces is touched.
_WIRES = f"""
link add near type veth peer name wire netns {{server}}
link add far type veth peer name wire netns {{client}}
addr add 10.203.1.2/30 dev near
addr add 10.203.2.2/30 dev far
link set near up
link set far up
-n {{server}} addr add {SERVER_HOST}/30 dev wire
-n {{server}} link set wire up
-n {{server}} route add default via 10.203.1.2
-n {{client}} addr add {CLIENT_HOST}/30 dev wire
-n {{client}} link set wire up
-n {{client}} route add default via 10.203.2.2
"""

T = TypeVar("T")


class Network:
    """The line between the server's host and the clients'."""

    def __init__(self, name: str) -> None:
        self.server, self.client, self._router = (f"{name}-{part}" for part in "scr")

    @property
    def namespaces(self) -> tuple[str, str, str]:
        """Name the three hosts."""
        return self.server, self.client, self._router

    def lay(self) -> None:
        """Join the hosts."""
        for line in _WIRES.strip().splitlines():
            words = line.format(server=self.server, client=self.client).split()
            where = [] if words[0] == "-n" else ["-n", self._router]
            ip(*where, *words)
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        ip("netns", "exec", self._router, "sh", "-c", forward)

    def listen(self) -> socket.socket:
        """Make a socket that listens on the server's host."""
        return inside(self.server, lambda: socket.create_server((SERVER_HOST, 0), backlog=64))

    def dial(self, address: tuple[str, int], seconds: float) -> socket.socket:
        """Connect from the clients' host."""
        return inside(self.client, lambda: socket.create_connection(address, seconds))

    def cut(self) -> None:
        """Forward nothing any more, in neither direction; no FIN, no ICMP, no carrier lost."""
        for host in (SERVER_HOST, CLIENT_HOST):
            ip("-n", self._router, "route", "add", "blackhole", f"{host}/32")

    def mend(self) -> None:
        """Forward again."""
        for host in (SERVER_HOST, CLIENT_HOST):
            ip("-n", self._router, "route", "del", "blackhole", f"{host}/32")

    def send_queues(self) -> list[int]:
        """For each connection that the server's host believes in: the bytes not yet taken."""
        shown = ip("netns", "exec", self.server, "ss", "-Htn", "state", "established")
        return [int(line.split()[1]) for line in shown.splitlines()]


def ip(*arguments: str) -> str:
    """Run iproute2; return what it printed."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Do `work` in `namespace`; only this thread goes there, and comes back."""
    with (
        _HERE.open("rb") as home,
        (_NAMESPACES / namespace).open("rb") as there,
    ):
        _enter(there.fileno())
        try:
            return work()
        finally:
            _enter(home.fileno())


def _enter(number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(number, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def laid() -> Iterator[Network]:
    """Give a network of one's own; say so loudly where this machine does not let us."""
    conftest.toolchain("ip")
    network = Network(f"events-{secrets.token_hex(3)}")
    try:
        try:
            for name in network.namespaces:
                ip("netns", "add", name)
            network.lay()
        except OSError as error:
            conftest.missing(f"the right to make network namespaces ({error})")
        yield network
    finally:
        for name in network.namespaces:
            with contextlib.suppress(OSError):
                ip("netns", "del", name)

"""Many clients in one process of their own: raw sockets, one epoll, no thread per client.

A program that obeys commands, one JSON line each: {"open": [request, …], "port": …},
{"await": changes, "seconds": …}, {"keep-alives": count, "seconds": …}, {"ends": seconds},
{"watch": true}, {"heard": true}, {"close": true}; it answers each with one line.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
from typing import Any, NamedTuple

# More would only wait in the server's backlog.
CONNECTING_AT_ONCE = 100
OPEN_SECONDS = 120
# A pair of addresses has 28,000 ports, and those of closed connections are not free at once.
SOURCES = 8
# A client of this machine that sleeps in epoll is woken within the server's send, at the server's
# cost: a multiple of the send itself. Clients elsewhere cost no such thing, so where the server's
# time is measured the crowd sleeps by the clock.
NAP_SECONDS = 0.002

CHANGE = b'"file_id":'
KEEP_ALIVE = b"event: keep-alive\n"
GOODBYE = b"event: reconnect-required\n"
# RFC 9112, section 7.1: the chunk that ends the body, behind the end of the one before it.
CLEAN_END = b"\r\n0\r\n\r\n"
# The last one is nchan's.
GREETING = re.compile(
    rb"event: (?:subscribed|resumed)\n(?:id: .*\n)?(?:retry: .*\n)?data: |^: hi\n", re.MULTILINE
)
NUMBER = re.compile(rb'"file_id":"number-(\d+)"')


class Client:
    """One connection and what it has received of a frame that is not whole yet."""

    __slots__ = ("connection", "greeted", "rest", "told")

    def __init__(self, connection: socket.socket) -> None:
        """Begin with nothing received."""
        self.connection = connection
        self.greeted = self.told = False
        self.rest = b""


class End(NamedTuple):
    """How a stream ended: whether it was told and its body was complete, and when (monotonic)."""

    told: bool
    clean: bool
    at: float


class Crowd:
    """All connections, and what they have heard together."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._greeted = 0
        self._changes = self._keep_alives = 0
        self._ends: list[End] | None = None
        self._last_at = 0.0
        self._prompt = False
        self._heard: list[tuple[int, float]] = []

    def obey(self, command: dict[str, Any]) -> Any:
        """Do what one line says; return the answer."""
        if "open" in command:
            return self.open(command["open"], command["port"])
        if "await" in command:
            return self.wait(command["await"], command["seconds"])
        if "keep-alives" in command:
            return self.wait_for_keep_alives(command["keep-alives"], command["seconds"])
        if "ends" in command:
            return self.wait_for_ends(command["ends"])
        if "watch" in command:
            self._prompt = True
            return True
        if "heard" in command:
            heard, self._heard = self._heard, []
            return heard
        return self.close()

    def open(self, requests: list[str], port: int) -> int:
        """Open a stream for each request; return how many have heard their first frame."""
        deadline = time.monotonic() + OPEN_SECONDS
        before = self._greeted
        opened = 0
        while self._greeted < before + len(requests) and time.monotonic() < deadline:
            while opened < len(requests) and opened - self._greeted + before < CONNECTING_AT_ONCE:
                self._connect(requests[opened], port)
                opened += 1
            self._receive(0.1)
        return self._greeted - before

    def _connect(self, request: str, port: int) -> None:
        source = f"127.0.0.{2 + len(self._clients) % SOURCES}"
        connection = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
        connection.sendall(request.encode())
        connection.settimeout(0)
        self._clients[connection.fileno()] = Client(connection)
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def wait(self, changes: int, seconds: float) -> dict[str, float]:
        """Receive until so many changes have come in all, or the time is up."""
        deadline = time.monotonic() + seconds
        while self._changes < changes and time.monotonic() < deadline:
            time.sleep(NAP_SECONDS)
            self._receive(0)
        return {"changes": self._changes, "last_at": self._last_at}

    def wait_for_keep_alives(self, count: int, seconds: float) -> int:
        """Receive until so many keep-alives have come, or the time is up; return how many."""
        deadline = time.monotonic() + seconds
        before = self._keep_alives
        while self._keep_alives < before + count and time.monotonic() < deadline:
            time.sleep(NAP_SECONDS)
            self._receive(0)
        return self._keep_alives - before

    def wait_for_ends(self, seconds: float) -> list[End]:
        """Receive until every stream has ended, or the time is up; return how each ended."""
        ends: list[End] = []
        self._ends = ends
        deadline = time.monotonic() + seconds
        while self._clients and time.monotonic() < deadline:
            self._receive(0.1)
        self._ends = None
        return ends

    def _receive(self, seconds: float) -> None:
        for number, _ in self._epoll.poll(max(0.0, seconds)):
            client = self._clients[number]
            received = self._take(client)
            if received:
                self._hear(client, client.rest + received)
            elif self._ends is None:
                raise EOFError("the server has ended a stream")
            else:
                clean = client.rest.endswith(CLEAN_END)
                self._ends.append(End(client.told, clean, time.monotonic()))
                self._clients.pop(number).connection.close()

    def _take(self, client: Client) -> bytes:
        try:
            return client.connection.recv(65536)
        except ConnectionError:
            if self._ends is None:
                raise
            return b""

    def _hear(self, client: Client, text: bytes) -> None:
        if not client.greeted and GREETING.search(text):
            client.greeted = True
            self._greeted += 1
        whole = text.rfind(b"\n\n") + 1
        client.rest = text[whole:]
        client.told = client.told or GOODBYE in text
        self._keep_alives += text.count(KEEP_ALIVE, 0, whole)
        if count := text.count(CHANGE, 0, whole):
            self._changes += count
            self._last_at = time.monotonic()
            for found in NUMBER.finditer(text, 0, whole):
                self._heard.append((int(found[1]), self._last_at))

    def close(self) -> int:
        """Close every connection; return how many there were."""
        count = len(self._clients)
        for client in self._clients.values():
            client.connection.close()
        self._clients.clear()
        return count

    def watch(self, number: int) -> None:
        """Return when a command can be read from descriptor `number`; receive till then."""
        commands = select.poll()
        commands.register(number, select.POLLIN)
        if self._prompt:
            commands.register(self._epoll.fileno(), select.POLLIN)
        while number not in dict(commands.poll()):
            self._receive(0)


def main() -> None:
    """Obey until there are no more commands."""
    crowd = Crowd()
    waiting = b""
    while True:
        crowd.watch(sys.stdin.fileno())
        received = os.read(sys.stdin.fileno(), 1 << 20)
        if not received:
            return
        *lines, waiting = (waiting + received).split(b"\n")
        for line in lines:
            print(json.dumps(crowd.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

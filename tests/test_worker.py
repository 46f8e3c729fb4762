"""Whom a worker still takes when it stops to listen, on real sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from events_app.worker import Acceptor, Name, Silent

WAITING = 5
ANSWER = b"yes"
ANSWER_SECONDS = 5


@pytest.fixture
def listening() -> Iterator[Any]:
    """Give a listening socket as gunicorn hands it over."""
    with gevent.socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(64)
        yield made


def connect(name: tuple[str, int]) -> socket.socket:
    """Come in; the kernel alone answers to that."""
    return socket.create_connection(name, ANSWER_SECONDS)


def acceptor(listening: Any) -> Acceptor:
    """Start one that takes one connection at a time, as among several workers, and answers it."""

    def answer(connection: Any, address: object) -> None:
        del address
        connection.sendall(ANSWER)
        connection.close()

    made = Acceptor(listening, handle=answer)
    made.max_accept = 1
    made.start()
    return made


def test_who_waits_in_the_kernels_queue_is_answered_when_it_closes(listening: Any) -> None:
    name = listening.getsockname()
    server = acceptor(listening)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(name)) for _ in range(WAITING)]
        server.close()
        gevent.sleep(0)
        assert [client.recv(100) for client in clients] == [ANSWER] * WAITING
    with pytest.raises(ConnectionRefusedError):
        connect(name)


def test_a_listener_is_known_by_its_name_when_it_is_closed(listening: Any) -> None:
    """A request that begins then would fail, though its connection is sound."""
    name = listening.getsockname()
    known = Name(listening)
    listening.close()
    assert known.getsockname() == name


def test_a_second_close_changes_nothing(listening: Any) -> None:
    server = acceptor(listening)
    server.close()
    server.close()
    assert server.closed


def test_who_says_nothing_is_left_at_the_second_look_and_who_asks_is_not() -> None:
    silent = Silent()
    with contextlib.ExitStack() as stack:
        here, there = zip(
            *(map(stack.enter_context, socket.socketpair()) for _ in "abc"), strict=True
        )
        for reader, connection in enumerate(here[:2]):
            silent.add(reader, connection)
        silent.part()
        silent.add(2, here[2])  # one that has only just come
        silent.discard(0)
        silent.part()
        for each in there:
            each.settimeout(0)
        assert there[1].recv(1) == b""
        for each in (there[0], there[2]):
            with pytest.raises(BlockingIOError):
                each.recv(1)


def test_a_connection_that_is_gone_is_none_to_leave() -> None:
    silent = Silent()
    here, there = socket.socketpair()
    silent.add("reader", here)
    silent.part()
    here.close()
    there.close()
    silent.part()

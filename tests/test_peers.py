"""What the kernel tells of the other end, on real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.event import Event

from events_app import passes, peers
from events_app.peers import CLOSED_IN_PASS, SEND_BUFFER_BYTES, Peer, Watch
from tests.serving import eventually

Pair = tuple[socket.socket, socket.socket]

HEARD_SECONDS = 10


def tcp() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        other = socket.create_connection(listening.getsockname())
        mine, _ = listening.accept()
    return mine, other


@pytest.fixture(params=[tcp, socket.socketpair], ids=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Give our socket and the peer's."""
    made: Pair = request.param()
    yield made
    for each in made:
        each.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Give a watch that runs."""
    made = Watch()
    running = gevent.spawn(made.run)
    yield made
    running.kill()
    made._epoll.close()


def told(watch: Watch, peer: Peer) -> Event:
    bell = Event()
    watch.add(peer, bell.set)
    return bell


def fill(mine: socket.socket) -> None:
    mine.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            mine.send(b"x" * 65_536)


def test_a_peer_that_does_not_read_has_not_taken_everything(pair: Pair) -> None:
    mine, other = pair
    peer = Peer(mine)
    assert peer.has_taken_all()
    fill(mine)
    assert not peer.has_taken_all()
    other.settimeout(0)

    def drained() -> bool:
        with contextlib.suppress(BlockingIOError):
            other.recv(1_000_000)
        return peer.has_taken_all()

    assert eventually(drained)


def test_a_socket_that_is_closed_already_has_taken_nothing(pair: Pair) -> None:
    peer = Peer(pair[0])
    pair[0].close()
    assert not peer.has_taken_all()


def test_without_a_socket_everything_counts_as_taken() -> None:
    peer = Peer(None)
    assert peer.has_taken_all()
    peer.limit(30, 15)
    watch = Watch()
    watch.add(peer, lambda: None)
    watch.remove(peer)


@pytest.fixture
def limited() -> Iterator[Callable[[float, float], socket.socket]]:
    """Give a function that connects two sockets, sets the limits of one and returns it."""
    with contextlib.ExitStack() as stack:

        def limit(send_timeout_seconds: float, dead_after_seconds: float) -> socket.socket:
            mine, _ = map(stack.enter_context, tcp())
            Peer(mine).limit(send_timeout_seconds, dead_after_seconds)
            return mine

        yield limit


def option(connection: socket.socket, name: int) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, name)


def test_a_stalled_peer_holds_little_and_not_for_long(
    limited: Callable[[float, float], socket.socket],
) -> None:
    mine = limited(30, 15)
    assert mine.gettimeout() == 30
    assert option(mine, socket.TCP_USER_TIMEOUT) == 15_000
    # Linux doubles what is asked for, for its own book-keeping.
    assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SEND_BUFFER_BYTES


@pytest.mark.parametrize(
    ("send_timeout", "dead_after", "within", "questions"),
    [(30, 15, 15, 6), (30, 120, 30, 6), (3, 15, 3, 2), (30, 5, 5, 3), (30, 0.5, 2, 1)],
)
def test_a_peer_elsewhere_is_asked_often_enough_and_in_time(
    limited: Callable[[float, float], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    send_timeout: float,
    dead_after: float,
    within: int,
    questions: int,
) -> None:
    monkeypatch.setattr(peers, "_is_local", lambda _: False)
    mine = limited(send_timeout, dead_after)
    assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    count, interval = option(mine, socket.TCP_KEEPCNT), option(mine, socket.TCP_KEEPINTVL)
    assert option(mine, socket.TCP_KEEPIDLE) + interval * count == within
    assert count >= questions


def test_peers_elsewhere_are_not_all_asked_at_once(
    limited: Callable[[float, float], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a burst the kernel drops most, and who is not heard of counts as dead."""
    monkeypatch.setattr(peers, "_is_local", lambda _: False)
    idle = Counter(option(limited(30, 15), socket.TCP_KEEPIDLE) for _ in range(200))
    assert len(idle) == 5
    assert max(idle.values()) < 100


def test_a_peer_on_this_machine_is_not_asked_for_it_cannot_vanish(
    limited: Callable[[float, float], socket.socket],
) -> None:
    assert not limited(30, 15).getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_peer_that_is_gone_already_is_not_asked() -> None:
    mine, other = tcp()
    with mine:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        Peer(mine).limit(30, 15)
        assert not mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_stalled_proxy_holds_little_too() -> None:
    """It is no TCP peer, and its end is noticed at once; but it may take nothing for a while."""
    mine, other = socket.socketpair()
    with mine, other:
        Peer(mine).limit(3, 15)
        assert mine.gettimeout() == 3
        assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SEND_BUFFER_BYTES


def _close(other: socket.socket) -> None:
    other.close()


def _shut_down(other: socket.socket) -> None:
    other.shutdown(socket.SHUT_WR)


def _send_and_close(other: socket.socket) -> None:
    other.sendall(b"GET / HTTP/1.1\r\n\r\n")
    other.close()


@pytest.mark.parametrize("end", [_close, _shut_down, _send_and_close])
def test_a_peer_that_closes_is_noticed_without_a_write(
    pair: Pair, watch: Watch, end: Callable[[socket.socket], None]
) -> None:
    bell = told(watch, Peer(pair[0]))
    end(pair[1])
    assert bell.wait(HEARD_SECONDS)


def test_a_peer_that_breaks_off_is_noticed(watch: Watch) -> None:
    mine, other = tcp()
    with mine:
        bell = told(watch, Peer(mine))
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        assert bell.wait(HEARD_SECONDS)


def test_a_peer_that_closed_before_it_was_watched_is_noticed(pair: Pair, watch: Watch) -> None:
    pair[1].close()
    assert told(watch, Peer(pair[0])).wait(HEARD_SECONDS)


def test_a_peer_that_only_sends_more_is_not_gone(pair: Pair, watch: Watch) -> None:
    bell = told(watch, Peer(pair[0]))
    pair[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    later = tcp()
    with later[0], later[1]:
        heard = told(watch, Peer(later[0]))
        later[1].close()
        assert heard.wait(HEARD_SECONDS), "the watch has looked"
        assert not bell.is_set()


def test_a_peer_that_is_watched_no_more_tells_nothing(pair: Pair, watch: Watch) -> None:
    peer = Peer(pair[0])
    bell = told(watch, peer)
    watch.remove(peer)
    watch.remove(peer)
    assert not watch._told, "it keeps no stream alive"
    pair[1].close()
    later = tcp()
    with later[0], later[1]:
        heard = told(watch, Peer(later[0]))
        later[1].close()
        assert heard.wait(HEARD_SECONDS)
        assert not bell.is_set()


def test_a_number_that_is_used_again_tells_the_new_stream(watch: Watch) -> None:
    """A stream whose socket was closed under it leaves the number, which the next one gets."""
    (mine, other), (fresh, peer) = tcp(), tcp()
    old = Peer(mine)
    first = told(watch, old)
    number = mine.fileno()
    mine.close()
    other.close()
    watch.remove(old)
    with fresh, peer, socket.socket(fileno=os.dup2(fresh.fileno(), number)) as mine:
        second = told(watch, Peer(mine))
        fresh.close()
        peer.close()
        assert second.wait(HEARD_SECONDS)
        assert not first.is_set()


def test_when_many_close_at_once_others_run_in_between(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a stream takes a while, and nobody may wait for the ends of all."""
    pairs = [tcp() for _ in range(2 * CLOSED_IN_PASS + 1)]
    bells = [told(watch, Peer(mine)) for mine, _ in pairs]
    counts: list[int] = []
    pause = passes.pause

    def count() -> None:
        counts.append(sum(bell.is_set() for bell in bells))
        pause()

    monkeypatch.setattr(passes, "pause", count)
    for _, other in pairs:
        other.close()
    assert all(bell.wait(HEARD_SECONDS) for bell in bells)
    assert counts[:2] == [CLOSED_IN_PASS, 2 * CLOSED_IN_PASS]
    for mine, _ in pairs:
        mine.close()


def test_a_peer_that_has_closed_has_left_though_it_took_all(pair: Pair) -> None:
    mine, other = pair
    peer = Peer(mine)
    mine.send(b"x")
    assert not peer.has_left()
    other.close()
    assert eventually(peer.has_left)
    assert peer.has_taken_all()


def test_a_socket_that_is_closed_has_no_peer(pair: Pair) -> None:
    pair[0].close()
    assert Peer(pair[0]).has_left()
    assert not Peer(None).has_left()

"""A long walk lets the loop run."""

from __future__ import annotations

import gevent
import pytest

from events_app import passes


def test_a_walk_pauses_after_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[None] = []
    monkeypatch.setattr(passes, "pause", lambda: pauses.append(None))
    walk = passes.over("abcdefg", 3)
    assert [(next(walk), len(pauses)) for _ in range(4)] == [("a", 0), ("b", 0), ("c", 0), ("d", 1)]
    assert list(walk) == ["e", "f", "g"]
    assert len(pauses) == 2


def test_a_walk_sees_what_there_was_at_its_beginning() -> None:
    things = {"a", "b", "c"}
    for thing in passes.over(things, 1):
        things.discard(thing)
    assert not things


def test_others_run_in_a_pause() -> None:
    turns: list[int] = []
    other = gevent.spawn(turns.append, 1)
    passes.pause()
    assert turns == [1]
    other.join()


def test_a_pause_ends_also_where_the_loop_is_never_idle() -> None:
    def never_idle() -> None:
        while True:
            gevent.sleep(0)

    other = gevent.spawn(never_idle)
    with gevent.Timeout(5):
        passes.pause()
    other.kill()

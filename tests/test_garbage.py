"""The collector takes its turn with the loop."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import gevent
import pytest

from events_app import garbage


@pytest.fixture
def collector() -> Iterator[garbage.Collector]:
    """Give a collector that has begun; afterwards everything is as it was."""
    thresholds = gc.get_threshold()
    made = garbage.Collector()
    made.start()
    yield made
    made.stop()
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def is_in(generation: int, wanted: object) -> bool:
    return any(each is wanted for each in gc.get_objects(generation))


def turn(times: int = 1) -> None:
    """Let the loop turn, by waiting for a timer of no length."""
    for _ in range(times):
        gevent.sleep(0.000_001)


def test_what_is_young_is_looked_at_when_the_loop_turns(collector: garbage.Collector) -> None:
    """However much was replaced: Python counts what is new less what is gone."""
    del collector
    kept = [[number] for number in range(500)]
    assert is_in(0, kept)
    turn()
    assert not is_in(0, kept)


def test_a_few_survivors_are_left_alone(collector: garbage.Collector) -> None:
    """Who is old is looked at no more, and a request in flight is not old."""
    del collector
    gc.collect(1)
    kept = [[number] for number in range(100)]
    turn(2 * garbage.COUNT_TURNS)
    assert is_in(1, kept)


def test_many_survivors_are_looked_at_before_they_are_too_many(
    collector: garbage.Collector,
) -> None:
    del collector
    kept = [[number] for number in range(2 * garbage.MOST_SURVIVORS)]
    turn(2 * garbage.COUNT_TURNS)
    assert is_in(2, kept)
    assert len(gc.get_objects(1)) <= garbage.MOST_SURVIVORS


def test_a_collector_that_stopped_does_nothing(collector: garbage.Collector) -> None:
    collector.stop()
    kept = [[number] for number in range(500)]
    turn(2)
    assert is_in(0, kept)

"""Stories that are told side by side, because they mostly wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import pytest

T = TypeVar("T")

# Of those that can wait at the same time on two cores without being late themselves.
AT_ONCE = 3


class Stories(Generic[T]):
    """What happened in each story that a test asks for, by its name."""

    def __init__(self, told: Mapping[str, Future[T]]) -> None:
        self._told = told

    def __getitem__(self, name: str) -> T:
        """Wait for a story; what went wrong in it goes wrong here."""
        return self._told[name].result()


@contextlib.contextmanager
def side_by_side(
    request: pytest.FixtureRequest, tellers: Mapping[str, Callable[[], T]]
) -> Iterator[Stories[T]]:
    """Begin those stories whose name is the parameter of a test that was picked."""
    picked = {item.name.partition("[")[2].rstrip("]") for item in request.session.items}
    with ThreadPoolExecutor(AT_ONCE) as executor:
        yield Stories(
            {name: executor.submit(tell) for name, tell in tellers.items() if name in picked}
        )

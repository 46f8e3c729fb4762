"""What one reader heard, written by its thread and read by the test."""

import threading
import time
from collections.abc import Callable

from tests.readers.heard import Heard


class Transcript:
    """A list that grows, and a way to wait for it."""

    def __init__(self) -> None:
        self._heard: list[Heard] = []
        self._grown = threading.Condition()

    def add(self, heard: Heard) -> None:
        """Write down one frame."""
        with self._grown:
            self._heard.append(heard)
            self._grown.notify_all()

    def read(self) -> list[Heard]:
        """Return what was heard so far."""
        with self._grown:
            return list(self._heard)

    def wait_for(self, enough: Callable[[list[Heard]], bool], deadline: float) -> bool:
        """Wait until `enough`, at most until `deadline` (monotonic seconds); whether it was."""
        with self._grown:
            return self._grown.wait_for(
                lambda: enough(self._heard), max(0.0, deadline - time.monotonic())
            )

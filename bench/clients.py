"""The crowd's process, as the measurement commands it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from bench.crowd import End
from bench.worker import Worker
from tests.databases import ROOT


class Clients:
    """Any number of streams, all read by one other process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Command `process`."""
        self._process = process

    def _tell(self, **command: Any) -> Any:
        commands, answers = self._process.stdin, self._process.stdout
        if commands is None or answers is None:
            raise OSError("the crowd was started without pipes")
        commands.write(json.dumps(command) + "\n")
        commands.flush()
        line = answers.readline()
        if not line:
            raise EOFError("the crowd has ended")
        return json.loads(line)

    def open(self, worker: Worker, count: int, users: int, first: int = 0) -> None:
        """Open streams with distinct client ids; stream n belongs to user n modulo `users`."""
        requests = [
            worker.request(f"user-{number % users}", str(uuid.UUID(int=number)))
            for number in range(first, first + count)
        ]
        opened = self._tell(open=requests, port=worker.port)
        if opened != count:
            raise TimeoutError(f"only {opened} of {count} streams have heard their first frame")

    def wait(self, changes: int, seconds: float = 60) -> float:
        """Return when the last of so many changes came, counted since the first stream."""
        answer = self._tell(**{"await": changes}, seconds=seconds)
        if answer["changes"] != changes:
            raise TimeoutError(f"{answer['changes']} changes have come instead of {changes}")
        return float(answer["last_at"])

    def wait_for_keep_alives(self, count: int, seconds: float) -> None:
        """Return when so many keep-alives have come since the call."""
        came = self._tell(**{"keep-alives": count}, seconds=seconds)
        if came < count:
            raise TimeoutError(f"{came} keep-alives have come instead of {count}")

    def ends(self, seconds: float) -> list[End]:
        """Wait until every stream has ended, for so long at most; return how each ended."""
        return [End(*each) for each in self._tell(ends=seconds)]

    def watch(self) -> None:
        """Take the time of each change exactly, from now on; it costs the worker more."""
        self._tell(watch=True)

    def heard(self) -> list[tuple[int, float]]:
        """Return the number of each `number-N` that was told, and when it came (monotonic)."""
        return [(number, at) for number, at in self._tell(heard=True)]

    def close(self) -> None:
        """Close all streams."""
        self._tell(close=True)


@contextlib.contextmanager
def crowd(niceness: int = 0) -> Iterator[Clients]:
    """Start the other process, and end it. One that is nice leaves the processor to the worker."""
    command = ["nice", "-n", str(niceness), sys.executable, "-m", "bench.crowd"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Clients(process)
        finally:
            process.kill()

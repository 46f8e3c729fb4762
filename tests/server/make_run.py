"""The demo server, really started by `make run`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.databases import ROOT
from tests.serving import START_SECONDS, STOP_SECONDS, Server, child_pids, eventually

_TOKEN = re.compile(r"^A token of user 42.*\n +(\S+)$", re.MULTILINE)


class MakeRun(Server):
    """The server that `make run` starts, and the token that it prints."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.database = folder / "events.db"
        super().__init__(f"sqlite:///{self.database}", folder / "make-run.log", settings)
        self.printed_token = ""
        self.environment |= {"PORT": str(self.port)}
        for name in ("MAKEFLAGS", "MAKELEVEL"):
            self.environment.pop(name, None)

    def start(self, *, ready: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["make", "run"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        found = eventually(self._find_token, START_SECONDS, "it prints a token")
        self.printed_token = found[1]
        if ready:
            eventually(self.is_ready, START_SECONDS, "it is ready")

    def _find_token(self) -> re.Match[str] | None:
        assert self.process is not None
        printed = self.log.read_text()
        assert self.process.poll() is None, printed
        return _TOKEN.search(printed)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal the program that make runs, as Ctrl-C in a terminal does; return make's status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        if process.poll() is not None:
            return process.returncode
        all_programs = [os.pidfd_open(pid) for pid in descendants(process.pid)]
        signal.pidfd_send_signal(all_programs[0], number)
        try:
            return process.wait(STOP_SECONDS)
        finally:
            for program in all_programs:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(program, signal.SIGKILL)
                os.close(program)


def descendants(pid: int) -> list[int]:
    """List the programs that a process started, and those that they started."""
    return [each for child in child_pids(pid) for each in (child, *descendants(child))]

"""A wall clock for one server, which a test sets back and forth while it runs.

The library that Debian's `faketime` brings stands between a process and its clock, and reads from a
file by how much it is wrong. The monotonic clock stays right, as it does when a real clock is set.
"""

from __future__ import annotations

from pathlib import Path

from tests import conftest

LIBRARIES = "lib*/**/faketime/libfaketimeMT.so.1"


class WallClock:
    """The clock, right at first."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr").glob(LIBRARIES))
        if not found:
            conftest.missing("libfaketime")
        self._file = folder / "wall-clock"
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # To read the file at every look would slow everything down.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # gunicorn writes and reads the times of a file to see that its workers live.
            "NO_FAKE_STAT": "1",
            "FAKE_UTIME": "0",
        }
        self.be_wrong_by(0)

    def be_wrong_by(self, seconds: int) -> None:
        """Set the clock; each process sees it within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)

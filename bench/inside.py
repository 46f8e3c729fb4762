"""Runs a measurement in a process that gevent has patched, as it has a worker.

A program: `python -m bench.inside MODULE URL ROWS ROUNDS` calls `MODULE.inside` and prints what it
returns as JSON.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

from gevent import monkey

from tests.databases import ROOT


def run(module: str, url: str, rows: int, rounds: int) -> list[float]:
    """Call `inside(url, rows, rounds)` of `module` in such a process."""
    command = [sys.executable, "-m", "bench.inside", module, url, str(rows), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [float(sample) for sample in json.loads(done.stdout)]


if __name__ == "__main__":
    monkey.patch_all()
    _module, _url, _rows, _rounds = sys.argv[1:]
    _samples = importlib.import_module(_module).inside(_url, int(_rows), int(_rounds))
    print(json.dumps(_samples))

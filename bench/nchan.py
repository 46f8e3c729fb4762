"""What it costs to tell one change to everybody, beside nginx with nchan: C, and no promise kept.

Debian has it in the package libnginx-mod-nchan.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from bench import clients, fan_out, rivals, worker
from bench.table import SPREAD, Table, ratio, spread
from events_app.api import EVENTS_PATH
from tests import serving

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CONFIGURATION = """
load_module {module};
user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 15000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    server {{
        listen 127.0.0.1:{port};
        location = /readyz {{ return 200; }}
        location = {path} {{
            nchan_subscriber eventsource;
            nchan_channel_id all;
            nchan_subscriber_first_message newest;
        }}
        location = /publish {{ nchan_publisher; nchan_channel_id all; }}
    }}
}}
"""

HOW = (
    "As under *Fan-out*: one change to one folder that all streams watch, counted by the clients,"
    " divided by the processor time of the one worker. *nchan* is nginx with one worker process,"
    " which keeps messages in memory; a message is as long as our frame's data, and is published"
    " by HTTP, which is in its time. The two take turns."
)


class Nchan(worker.Worker):
    """A running nginx. Time is that of its worker."""

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Run it, and end it."""
        with tempfile.TemporaryDirectory(prefix="nchan-") as folder:
            configuration = Path(folder) / "nginx.conf"
            text = CONFIGURATION.format(
                module=MODULE, folder=folder, port=self.port, path=EVENTS_PATH
            )
            configuration.write_text(text, encoding="ascii")
            command = ["nginx", "-p", folder, "-c", str(configuration)]
            with subprocess.Popen(command) as process:
                try:
                    self._wait_until_ready(process)
                    self.pid = serving.child_pids(process.pid)[0]
                    yield self
                finally:
                    process.terminate()

    def publish(self) -> None:
        """Tell everybody a change as long as ours."""
        address = f"http://127.0.0.1:{self.port}/publish"
        with urllib.request.urlopen(address, rivals.CHANGE.encode()) as answer:
            answer.read()


def measure(*, quick: bool) -> Table:
    """Measure both at two sizes; ours on SQLite."""
    rounds = 2 if quick else 3
    rows = []
    for count in (100, 200) if quick else (2_000, 5_000):
        ours = fan_out.rates(count, rounds)
        rows.append((f"events-app, {count:,} streams", *_cells(ours), "1"))
        if MODULE.exists():
            theirs = _rates(count, rounds)
            rows.append((f"nchan, {count:,} streams", *_cells(theirs), ratio(theirs, ours)))
    if not MODULE.exists():
        print("!! NOT MEASURED: nchan is not installed", file=sys.stderr)
    columns = ("frames per CPU-second", *SPREAD, "beside events-app")
    return Table("Fan-out beside nchan", HOW, columns, rows)


def _cells(samples: list[float]) -> list[str]:
    return spread(samples, more_is_better=True)


def _rates(count: int, rounds: int) -> list[float]:
    served = Nchan(worker.RIVAL_PLAIN)
    with served.running() as running, clients.crowd() as crowd:
        told = fan_out.Told(running, crowd, count, lambda _: running.publish())
        return list(told.rates(rounds, 0))

"""What happens to a server, its database and its clients in a soak: one misfortune at a time."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import make_url

from bench.soak_clients import Nomad, Storm, Walker
from tests.server.harness_proxy import Proxy
from tests.serving import Server, eventually

# Generous: what is slow on a busy machine is told in the table, and only what hangs is a fault.
RECOVERY_SECONDS = 120.0


class Scene(NamedTuple):
    """Whom it happens to. `database` is the way to the database, `front` that of some clients."""

    server: Server
    database_url: str
    database: Proxy | None
    front: Proxy
    walkers: list[Walker]
    nomad: Nomad


class Faults:
    """Misfortunes at random; those of `calm` leave the processes alone."""

    def __init__(self, scene: Scene, seed: str) -> None:
        """Choose by `seed` what happens in `scene`."""
        self.counts: Counter[str] = Counter()
        self.slowest_return = (0.0, "nothing")
        self.storm_connects = 0
        self._scene = scene
        self._random = random.Random(seed)
        self._calm: list[Callable[[], None]] = [
            self._database_away,
            self._database_slow,
            self._network_reset,
            self._network_stands,
            self._stall,
            self._leave,
            self._move,
            self._storm,
        ]
        self._rough: list[Callable[[], None]] = [
            self._kill_worker,
            self._kill_workers,
            self._kill_all,
            self._reload,
            self._restart,
            self._freeze_worker,
        ]

    def happen(self, *, calm: bool) -> None:
        """Let one happen, and wait until the server is ready again."""
        fault = self._random.choice(self._calm if calm else self._calm + self._rough)
        name = fault.__name__.strip("_").replace("_", " ")
        self.counts[name] += 1
        fault()
        over_at = time.monotonic()
        eventually(self._scene.server.is_ready, RECOVERY_SECONDS, f"ready after {name}")
        self.slowest_return = max(self.slowest_return, (time.monotonic() - over_at, name))

    def rest(self) -> None:
        """Wait a moment before the next one."""
        time.sleep(self._random.uniform(0.5, 3.0))

    def _kill_worker(self) -> None:
        self._kill(self._random.choice(self._scene.server.worker_pids()))

    def _kill_workers(self) -> None:
        for worker in self._scene.server.worker_pids():
            self._kill(worker)

    def _kill(self, worker: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)

    def _kill_all(self) -> None:
        self._scene.server.stop(signal.SIGKILL)
        self._scene.server.start(ready=False)

    def _reload(self) -> None:
        if self._scene.server.process is not None:
            self._scene.server.process.send_signal(signal.SIGHUP)

    def _restart(self) -> None:
        self._scene.server.stop()
        self._scene.server.start(ready=False)

    def _freeze_worker(self) -> None:
        """As a virtual machine that is moved: nobody there, then there again."""
        worker = self._random.choice(self._scene.server.worker_pids())
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGSTOP)
            time.sleep(self._random.uniform(1.0, 7.0))
            os.kill(worker, signal.SIGCONT)

    def _database_away(self) -> None:
        if self._scene.database is None:
            self._hold_sqlite()
            return
        self._scene.database.cut()
        time.sleep(self._random.uniform(0.2, 8.0))
        self._scene.database.restore()

    def _database_slow(self) -> None:
        if self._scene.database is None:
            self._hold_sqlite()
            return
        self._scene.database.freeze()
        time.sleep(self._random.uniform(0.5, 6.0))
        self._scene.database.restore()

    def _hold_sqlite(self) -> None:
        """There is one place for a writer: take it for a while."""
        file = str(make_url(self._scene.database_url).database)
        with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as held:
            held.execute("BEGIN IMMEDIATE")
            time.sleep(self._random.uniform(0.5, 6.0))
            held.execute("ROLLBACK")

    def _network_reset(self) -> None:
        self._scene.front.cut()
        time.sleep(self._random.uniform(0.0, 3.0))
        self._scene.front.restore()

    def _network_stands(self) -> None:
        self._scene.front.freeze()
        time.sleep(self._random.uniform(0.5, 4.0))
        self._scene.front.restore()

    def _stall(self) -> None:
        some = [walker for walker in self._scene.walkers if walker.may_stall]
        self._half_of(some, Walker.stop_reading, self._random.uniform(1.0, 8.0))

    def _leave(self) -> None:
        self._half_of(self._scene.walkers, Walker.leave, self._random.uniform(0.5, 8.0))

    def _half_of(self, walkers: list[Walker], do: Callable[[Walker], None], seconds: float) -> None:
        chosen = self._random.sample(walkers, k=len(walkers) // 2)
        for walker in chosen:
            do(walker)
        time.sleep(seconds)
        for walker in chosen:
            walker.come_back()

    def _move(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            self._scene.nomad.move()
            time.sleep(self._random.uniform(0.2, 1.0))

    def _storm(self) -> None:
        storms = [Storm(self._scene.server, 3.0) for _ in range(3)]
        for storm in storms:
            storm.start()
        for storm in storms:
            storm.join(30)
            self.storm_connects += storm.connects

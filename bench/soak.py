"""A soak: churn and faults at random over minutes, and then whether everything was delivered.

One course for each database, all at once. Writers of every kind commit steadily all the while;
after the faults each watcher is held to the journal row by row, and the journal to the writers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import sqlalchemy
from sqlalchemy import make_url, text

from bench import places, soak_writers
from bench.soak_clients import Nomad, Tellings, Walker
from bench.soak_faults import Faults, Scene
from bench.table import Table
from tests import databases
from tests.server import harness
from tests.server.harness import Load
from tests.server.harness_client import JournalRow
from tests.server.harness_proxy import Proxy
from tests.server.harness_writer import Outcome
from tests.serving import Server, eventually

MINUTES, QUICK_MINUTES = 10.0, 1.0
# The rest of the time processes are left alone: in theirs a leak shows.
ROUGH_SHARE = 0.6
BEGIN_SECONDS = 120.0
QUIET_SECONDS = 60.0
# Connections to the database that the pool keeps come and go.
MORE_DESCRIPTORS = 15
# The rows a worker keeps at hand are some megabytes.
MORE_MEGABYTES = 24.0

_MIGRATING = threading.Lock()

SETTINGS = {
    "EVENTS_DEBOUNCE": "0.2",
    "EVENTS_DEBOUNCE_MAX": "0.8",
    "EVENTS_CONFIRM_SECONDS": "2",
    "EVENTS_DRAIN": "1",
    "EVENTS_SEND_TIMEOUT": "5",
    "EVENTS_MAX_SUBSCRIPTIONS_PER_USER": "32",
}

HOW = (
    "Per database two workers, steady writers (two programs that hold transactions open and roll "
    "back; on the servers also the PHP and the Go program of `examples/`), 12 watchers of whole "
    "trees and folders that return by `Last-Event-ID` or by client id alone, and one misfortune "
    "after the other: kill -9 of a worker, both, all; HUP; TERM and start; SIGSTOP; the database "
    "cut off or frozen (SQLite: its lock held); connections reset or standing still; watchers that "
    "stall, leave, change their folder; storms of new clients. *Due* counts each change once for "
    "each watcher it is to reach since that one's `subscribed`, its own changes left out; *told* "
    "how many of these reached it. *Afresh*: `subscribed` again because the first one may not have "
    f"arrived. Leaks are looked for in the last {1 - ROUGH_SHARE:.0%}, when processes are left "
    "alone. Seed {seed}, {minutes:g} minutes."
)


class Usage(NamedTuple):
    """What a worker holds while it serves nobody."""

    descriptors: int
    megabytes: float


@dataclasses.dataclass
class Course:
    """What came of one database, to be judged."""

    engine: str
    committed: int = 0
    journalled: int = 0
    due: int = 0
    told: int = 0
    afresh: int = 0
    connections: int = 0
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    slowest_return: tuple[float, str] = (0.0, "nothing")
    more_descriptors: int = 0
    more_megabytes: float = 0.0
    wrong: list[str] = dataclasses.field(default_factory=list)

    def hold(self, what: str, *, that: bool) -> None:
        """Note a promise that was broken."""
        if not that:
            self.wrong.append(what)


def measure(*, quick: bool, minutes: float | None = None, seed: int | None = None) -> Table:
    """Run all courses side by side. Exits with code 1, after the table, when anything was lost."""
    seed = secrets.randbits(32) if seed is None else seed
    minutes = minutes or (QUICK_MINUTES if quick else MINUTES)
    print(f"soak: seed {seed}", file=sys.stderr, flush=True)
    engines = places.engines()
    with ThreadPoolExecutor(len(engines)) as pool:
        courses = list(pool.map(lambda engine: run(engine, 60 * minutes, seed), engines))
    rows = [_row(course) for course in courses]
    table = Table("Soak", HOW.format(seed=seed, minutes=minutes), _COLUMNS, rows)
    wrong = [f"{course.engine}: {each}" for course in courses for each in course.wrong]
    if wrong:
        print(table.markdown(), flush=True)
        sys.exit("soak: NOT WHOLE\n" + "\n".join(wrong))
    return table


_COLUMNS = (
    *("soak", "faults", "connections", "committed", "journalled", "due", "told", "afresh"),
    *("slowest return", "descriptors", "memory", "wrong"),
)


def _row(course: Course) -> list[str]:
    counts = (course.faults.total(), course.connections, course.committed, course.journalled)
    return [
        places.TITLES[course.engine],
        *(f"{count:,}" for count in (*counts, course.due, course.told, course.afresh)),
        "{:.1f} s, {}".format(*course.slowest_return),
        f"{course.more_descriptors:+d}",
        f"{course.more_megabytes:+.1f} MB",
        str(len(course.wrong)),
    ]


def run(engine: str, seconds: float, seed: int) -> Course:
    """Run one course in a database of its own; whatever breaks is part of its outcome."""
    course = Course(engine)
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{engine}-"))
    try:
        with _database(engine, folder) as url, _scene(url, folder) as scene:
            _live(course, scene, seconds, seed)
            _judge_log(course, scene.server.log)
    except Exception as error:  # noqa: BLE001 -- the other databases' outcome counts as well
        course.wrong.append(f"broke off: {type(error).__name__}: {error}")
    if course.wrong:
        course.wrong.append(f"the log is {folder / 'gunicorn.log'}")
    else:
        shutil.rmtree(folder)
    return course


@contextlib.contextmanager
def _database(engine: str, folder: Path) -> Iterator[str]:
    """Make a migrated database; Alembic can make one at a time."""
    with contextlib.ExitStack() as stack:
        with _MIGRATING:
            url = stack.enter_context(databases.migrated(engine, folder))
        yield url


@contextlib.contextmanager
def _scene(url: str, folder: Path) -> Iterator[Scene]:
    """Start a server whose database, and half of whose clients, are behind a proxy."""
    address = make_url(url)
    with contextlib.ExitStack() as stack:
        database = None
        seen = url
        if address.host is not None and address.port is not None:
            database = stack.enter_context(Proxy((address.host, address.port)))
            seen = address.set(port=database.port).render_as_string(hide_password=False)
        server = Server(seen, folder / "gunicorn.log", SETTINGS)
        front = stack.enter_context(Proxy(("127.0.0.1", server.port)))
        stack.callback(server.stop)
        server.start(ready=False)
        eventually(server.is_ready, BEGIN_SECONDS, "the first start")
        far = server.seen_by(server._dial, ("127.0.0.1", front.port))  # noqa: SLF001 -- as it is
        nomad = Nomad([server], harness.USERS[0], ["/a", "/b", ""])
        yield Scene(server, url, database, front, _walkers(server, far), nomad)


def _walkers(server: Server, far: Server) -> list[Walker]:
    """Watch as every kind of returning client.

    What a proxy took counts as delivered before its client has it: behind it they come by event id.
    """
    first, second = harness.USERS
    names = [str(uuid.uuid4()) for _ in range(6)]
    return [
        Walker([server], first),
        Walker([far], first),
        Walker([server], first, client_id=names[0], by_event_id=False),
        Walker([server], first, "/b", client_id=names[0], by_event_id=False),
        Walker([far], first, client_id=names[1]),
        Walker([server], first, client_id=names[2], by_event_id=False, stay_seconds=4.0),
        Walker([far], second, "/Übersicht 1", client_id=names[3], stay_seconds=3.0),
        Walker([server], second, client_id=names[4], by_event_id=False),
        Walker([server, far], second, client_id=names[5], stay_seconds=6.0),
        Walker([server], "php", client_id=names[0], by_event_id=False),
        Walker([far], "php", client_id=names[1]),
        Walker([server], "go", client_id=names[2], by_event_id=False, stay_seconds=5.0),
    ]


def _live(course: Course, scene: Scene, seconds: float, seed: int) -> None:
    """Let writers write, watchers watch and faults happen; then judge."""
    engine = sqlalchemy.create_engine(scene.database_url, poolclass=sqlalchemy.NullPool)
    harness.make_app_table(engine, course.engine)
    watchers = [*scene.walkers, *scene.nomad.walkers]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        if not watcher.begun.wait(BEGIN_SECONDS):
            raise TimeoutError("a stream never began")
    ids = sorted({watcher.client_id for watcher in watchers if watcher.client_id})
    load = Load(course.engine, writers=2, seconds=seconds, held_seconds=0.3, pause_seconds=0.3)
    apps = _app_writers(course.engine, scene.database_url)
    with harness.writing(scene.database_url, load, ids) as programs:
        _suffer(course, scene, seconds, seed)
        outcomes = harness.outcomes_of(programs, load)
    for app in apps:
        app.stop()
    for watcher in watchers:
        watcher.come_back()
    harness.finish(engine, watchers)
    _judge(course, harness.journal_of(engine), outcomes, apps, watchers)
    _judge_rest(course, engine, scene.server)


def _app_writers(engine: str, url: str) -> list[soak_writers.AppWriter]:
    if engine not in soak_writers.ENGINES:
        return []
    soak_writers.make_table(engine, url)
    apps = [soak_writers.AppWriter(program, url) for program in soak_writers.PROGRAMS]
    for app in apps:
        app.start()
    return apps


def _suffer(course: Course, scene: Scene, seconds: float, seed: int) -> None:
    """Let faults happen; between the rough and the calm ones, and after them, look for leaks."""
    faults = Faults(scene, f"{seed}-{course.engine}")
    begun_at = time.monotonic()
    while time.monotonic() < begun_at + seconds * ROUGH_SHARE:
        faults.happen(calm=False)
        faults.rest()
    # The first calm round warms up what is made once.
    faults.happen(calm=True)
    faults.rest()
    before = _usage_alone(scene)
    while time.monotonic() < begun_at + seconds:
        faults.happen(calm=True)
        faults.rest()
    after = _usage_alone(scene)
    course.hold("a worker was lost in the calm", that=before.keys() == after.keys())
    for worker in before.keys() & after.keys():
        more = after[worker].descriptors - before[worker].descriptors
        course.more_descriptors = max(course.more_descriptors, more)
        megabytes = after[worker].megabytes - before[worker].megabytes
        course.more_megabytes = max(course.more_megabytes, megabytes)
    course.hold("descriptors leak", that=course.more_descriptors <= MORE_DESCRIPTORS)
    course.hold("memory leaks", that=course.more_megabytes <= MORE_MEGABYTES)
    course.faults, course.slowest_return = faults.counts, faults.slowest_return
    course.connections += faults.storm_connects
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(faults.counts.items()))
    print(f"{places.TITLES[course.engine]}: {kinds}", file=sys.stderr, flush=True)


def _usage_alone(scene: Scene) -> dict[int, Usage]:
    """Send every watcher away, wait until the workers have let go of all streams, and look."""
    watchers = [*scene.walkers, *scene.nomad.walkers]
    for watcher in watchers:
        watcher.leave()
    workers = scene.server.worker_pids()
    _wait_until_left_alone(scene.server, workers)
    found = {worker: _usage(worker) for worker in workers}
    for watcher in scene.walkers:
        watcher.come_back()
    scene.nomad.move()
    return found


def _wait_until_left_alone(server: Server, workers: list[int]) -> None:
    for worker in workers:
        alone = functools.partial(_is_left_alone, server, worker)
        eventually(alone, QUIET_SECONDS, f"worker {worker} serves nobody")


def _is_left_alone(server: Server, worker: int) -> bool:
    """Ask whichever worker answers; tell whether it was this one, and serves no stream."""
    with contextlib.suppress(httpx.TransportError):
        page = httpx.get(f"{server.url}/metrics").text
        names = ("events_streams", "events_streams_waiting", "events_cursors_waiting")
        return all(f'\n{name}{{worker="{worker}"}} 0.0\n' in page for name in names)
    return False


def _usage(worker: int) -> Usage:
    pages = int(Path(f"/proc/{worker}/statm").read_text(encoding="ascii").split()[1])
    descriptors = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    return Usage(descriptors, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def _judge(
    course: Course,
    journal: list[JournalRow],
    outcomes: list[Outcome],
    apps: list[soak_writers.AppWriter],
    watchers: list[Walker],
) -> None:
    """Hold the journal to the writers, and every watcher to the journal."""
    course.journalled = len(journal)
    course.committed = sum(len(outcome.committed) for outcome in outcomes)
    for number, outcome in enumerate(outcomes):
        rows = [(row.type, row.file_id) for row in journal if row.file_id.startswith(f"w{number}-")]
        course.hold(f"writer {number} is not what was journalled", that=rows == outcome.committed)
    for app in apps:
        course.committed += len(app.committed)
        rows_of_app = [row.file_id for row in journal if row.user_id == app.user]
        course.hold(f"{app.user} is not what was journalled", that=rows_of_app == app.committed)
        course.hold(f"{app.user} complains: {app.complaints[:1]}", that=not app.complaints)
    course.hold("committed is not journalled", that=course.committed == course.journalled)
    dense = [row.position for row in journal] == list(range(1, len(journal) + 1))
    course.hold("positions have holes", that=dense)
    for watcher in watchers:
        _judge_watcher(course, journal, watcher)


def _judge_watcher(course: Course, journal: list[JournalRow], watcher: Walker) -> None:
    who = f"{watcher.user}{watcher.folder} {watcher.client_id or 'by event id'}"
    found: Tellings = watcher.tellings(journal)
    course.due += found.due
    course.told += found.told
    course.afresh += watcher.afresh
    course.connections += watcher.connections
    course.hold(f"{who}: {watcher.faults[:2]}", that=not watcher.faults)
    course.hold(f"{who} ends at {watcher.position}", that=watcher.position == len(journal))
    course.hold(f"{who} was told {found.told} of {found.due}", that=found.told == found.due)
    wrong = watcher.wrong_claims(journal)
    course.hold(f"{who}: {len(wrong)} wrong claims, {wrong[:1]}", that=not wrong)


def _judge_rest(course: Course, engine: sqlalchemy.Engine, server: Server) -> None:
    with engine.connect() as connection:
        waiting = connection.scalar(text("SELECT COUNT(*) FROM file_event_outbox"))
    course.hold(f"{waiting} rows wait in the outbox", that=waiting == 0)
    _wait_until_left_alone(server, server.worker_pids())


def _judge_log(course: Course, log: Path) -> None:
    said = log.read_text()
    for word in ("CRITICAL", "Traceback"):
        course.hold(f"the log says {word}", that=word not in said)

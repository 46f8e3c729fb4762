"""How fast changes are appended by HTTP, beside a plain INSERT of the same rows."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import httpx
import jwt
import sqlalchemy
from sqlalchemy import Engine

from bench import places, rows, worker
from bench.table import SPREAD, Table, number, ratio, spread
from events_app.api import EVENTS_PATH
from events_app.schema import outbox

BATCHES = (1_000, 10_000)
TIMEOUT_SECONDS = 60

HOW = (
    "Changes divided by the seconds from the request to its 201, one request after the other over"
    " one connection each, to one worker, which at the same time moves what came before. NDJSON of"
    " a service, the mix of the mover's figure, about 190 bytes a change. *INSERT*: the same rows"
    " by one transaction of a plain program in this process, multi-row statements of SQLAlchemy, in"
    " turns with the requests. *Share*: of the medians, by HTTP to INSERT. *Of a CPU-second*:"
    " changes divided by the worker's CPU time of their request, median: what a busy machine"
    " changes least."
)


def measure(*, quick: bool) -> Table:
    """Measure each database, with large and small batches."""
    rounds = 2 if quick else 7
    found = [_of_engine(name, count, rounds) for name in places.engines() for count in BATCHES]
    names = ("changes per second", *SPREAD, "INSERT, median", "share", "of a CPU-second")
    return Table("Append by HTTP", HOW, names, found)


def _of_engine(name: str, count: int, rounds: int) -> tuple[str, ...]:
    body = _body(count)
    posted, inserted, of_processor = [], [], []
    with (
        places.database(name) as url,
        worker.Worker(worker.OURS, url).running() as served,
        _writer(served) as writer,
    ):
        engine = sqlalchemy.create_engine(url)
        for _ in range(rounds):
            before = served.cpu_seconds()
            posted.append(count / _timed(lambda: _post(writer, body, count)))
            of_processor.append(count / (served.cpu_seconds() - before))
            _wait_until_moved(engine)
            inserted.append(count / _timed(lambda: _insert(engine, count)))
            _wait_until_moved(engine)
        engine.dispose()
    share = ratio(posted, inserted)
    cells = spread(posted, more_is_better=True)
    return (
        f"{places.TITLES[name]}, {count:,} a batch",
        *cells,
        number(statistics.median(inserted)),
        share,
        number(statistics.median(of_processor)),
    )


def _writer(served: worker.Worker) -> httpx.Client:
    claims = {"sub": "importer", "exp": int(time.time()) + 3_600, "scopes": ["Events.Write"]}
    token = jwt.encode(claims, worker.SECRET, "HS256")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
    url = f"http://127.0.0.1:{served.port}"
    return httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)


def _timed(work: Callable[[], None]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def _body(count: int) -> bytes:
    lines = []
    for values in map(rows.named, range(count)):
        values["from"], values["to"] = values.pop("from_path"), values.pop("to_path") or ""
        lines.append(json.dumps(values))
    return "\n".join(lines).encode()


def _post(writer: httpx.Client, body: bytes, count: int) -> None:
    answer = writer.post(EVENTS_PATH, content=body)
    if answer.json().get("data") != {"accepted": count}:
        raise ValueError(f"not appended: {answer.text}")


def _insert(engine: Engine, count: int) -> None:
    with engine.begin() as connection:
        rows.fill_outbox(connection, count)


def _wait_until_moved(engine: Engine) -> None:
    query = sqlalchemy.select(sqlalchemy.func.count()).select_from(outbox)
    while True:
        with engine.connect() as connection:
            if not connection.scalar(query):
                return
        time.sleep(0.02)

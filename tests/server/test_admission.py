"""A full worker on real gunicorn: the next client waits, and health checks do not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from events_app import admission
from tests.frames import Reader
from tests.serving import Server, eventually


@pytest.fixture
def full(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    """Serve one stream and no more, with one worker."""
    most = {"EVENTS_MAX_STREAMS": "1"}
    with Server(sqlite_url, tmp_path / "gunicorn.log", most, workers=1).running() as running:
        yield running


def waiting(server: Server) -> int:
    text = httpx.get(f"{server.url}/metrics").text
    (found,) = re.findall(r"^events_streams_waiting\{.*\} (\d+)\.0$", text, re.MULTILINE)
    return int(found)


def served(server: Server, user: str) -> str:
    """Read the first frame and leave, so that the next one has the place."""
    with Reader(server, user) as reader:
        return reader.expect("subscribed").name


def test_the_next_client_waits_for_a_place_and_health_checks_answer(full: Server) -> None:
    with ThreadPoolExecutor() as threads:
        with Reader(full) as first:
            first.expect("subscribed")
            asked = [threads.submit(served, full, str(number)) for number in range(5)]
            eventually(lambda: waiting(full) == len(asked))
            for path in ("healthz", "readyz"):
                assert httpx.get(f"{full.url}/{path}").status_code == httpx.codes.OK
            assert not any(each.done() for each in asked)
        assert {each.result(20) for each in asked} == {"subscribed"}


def test_who_waited_in_vain_is_refused_with_a_time_to_come_back(full: Server) -> None:
    with Reader(full) as first:
        first.expect("subscribed")
        patience = admission.WAIT_SECONDS + 20
        answer = httpx.get(full.events_url, headers=full.headers("7"), timeout=patience)
    assert answer.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert answer.json()["code"] == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.elapsed.total_seconds() >= admission.WAIT_SECONDS

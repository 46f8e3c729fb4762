"""A disk without a byte to spare, with SQLite's file on it, and then room again.

The write-ahead log cannot grow: whoever writes is refused, reading goes on, and nothing is corrupt
afterwards.
"""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import make_url

from tests import conftest, databases
from tests.server import harness, harness_trouble
from tests.server.harness_client import Client, JournalRow
from tests.server.harness_trouble import App, Episode, Look, Said, Watched
from tests.serving import Server, eventually

USER = harness.USERS[0]
SETTINGS = {"EVENTS_KEEP_ALIVE": "0.5", "EVENTS_CONFIRM_SECONDS": "1"}
DISK_BYTES = 4 * 1024 * 1024
# The protocol's second, and one for two shared cores.
FIRST_FRAME_SECONDS = 2.0


@dataclass
class Story:
    """What happened, to be judged. `integrity` is SQLite's own word on the file."""

    episode: Episode
    said: list[Said]
    log: str
    looks: list[Look]
    journal: list[JournalRow]
    app: App
    clients: dict[str, Client]
    workers: list[set[int]]
    integrity: str


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mount a disk of a few megabytes."""
    place = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        conftest.missing(f"the right to mount a disk ({done.stderr.strip()})")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def story(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Let the disk be full for a while, under steady writes."""
    folder = tmp_path_factory.mktemp("full")
    with databases.migrated("sqlite", disk) as url:
        server = Server(url, folder / "gunicorn.log", SETTINGS)
        with server.running():
            yield happen(Watched(server), disk, url)


def happen(watched: Watched, disk: Path, url: str) -> Story:
    """Fill the disk, and free it again."""
    app = App(make_url(url), USER)
    clients = clients_of(watched.server)
    harness_trouble.begin(list(clients.values()), url)
    workers = [set(watched.server.worker_pids())]
    app.start()
    eventually(lambda: len(app.committed) > 30, what="the app writes")

    @contextlib.contextmanager
    def full() -> Iterator[None]:
        with filled(disk):
            eventually(lambda: app.failures, what="the app's writes are refused")
            yield

    with watched.watching():
        episode = watched.go_through("full", full, USER, seconds=2.0)
        eventually(watched.is_quiet, what="all is well again")
    app.stop()
    reading = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    harness.finish(reading, list(clients.values()))
    return Story(
        episode=episode,
        said=watched.log(),
        log=watched.server.log.read_text(),
        looks=watched.watchman.looks,
        journal=harness.journal_of(reading),
        app=app,
        clients=clients,
        workers=[*workers, set(watched.server.worker_pids())],
        integrity=str(harness.scalar(url, "PRAGMA integrity_check")),
    )


def clients_of(server: Server) -> dict[str, Client]:
    """Make those that stay, and so many that come and go that each worker has some to store."""
    passing = {
        f"by client id {number}": Client(
            [server], USER, client_id=str(uuid.uuid4()), by_event_id=False, stay_seconds=0.5
        )
        for number in range(4)
    }
    return {
        "steady": Client([server], USER),
        "steady with an id": Client([server], USER, client_id=str(uuid.uuid4())),
        "by event id": Client([server], USER, stay_seconds=0.5),
        **passing,
    }


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Take every byte of a disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    yield
    filler.unlink()


def test_the_disk_was_full_and_the_app_wrote_before_and_after(story: Story) -> None:
    assert any("disk is full" in failure for failure in story.app.failures)
    first_failure = story.app.tried.index(
        next(each for each in story.app.tried if each not in set(story.app.committed))
    )
    assert 30 < first_failure < story.app.tried.index(story.app.committed[-1])
    assert story.clients["by event id"].connections > 2


def test_nothing_is_lost_or_corrupt_and_no_stream_ends(story: Story) -> None:
    assert story.integrity == "ok"
    harness_trouble.judge(story.clients, story.journal, story.app)


def test_a_new_client_is_accepted_and_held_until_there_is_room(story: Story) -> None:
    assert len(story.episode.held) > 1
    assert {frame and (frame.name, frame.id) for frame in story.episode.held} == {
        ("keep-alive", None)
    }
    assert story.episode.first_frame_seconds < FIRST_FRAME_SECONDS
    assert story.episode.told


def test_readyz_says_that_the_disk_is_full_and_healthz_answers(story: Story) -> None:
    assert len(story.episode.looks) > 5
    assert {(look.status, look.reason) for look in story.episode.looks} == {
        (503, "OperationalError: database or disk is full")
    }
    assert story.looks[-1].status == 200
    assert all(look.alive for look in story.looks)


def test_each_worker_says_it_once_and_once_that_it_is_over(story: Story) -> None:
    once = dict.fromkeys(story.workers[0], 1)
    assert [story.episode.count(words) for words in harness_trouble.FOLLOWING] == [once, once]
    harness_trouble.judge_pairs(story.said, 1)
    assert {said.level for said in story.said} == {"INFO", "WARNING", "ERROR"}
    assert "Traceback" not in story.log


def test_no_worker_had_to_be_replaced(story: Story) -> None:
    before, after = story.workers
    assert before == after

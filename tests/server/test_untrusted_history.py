"""History that cannot be trusted: `subscribed`, never silence, never somebody else's rows.

Everything happens once for each engine, under writes, on real gunicorn with two workers: the
journal is pruned, a row is rejected, a new epoch begins, and a backup is restored, once under the
running server and once while it is stopped; each time its positions are given out again, to other
rows. A stream does not end within its first ten seconds, so the engines go through it side by side.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy
from sqlalchemy import func, select

from events_app import journal, schema, sequencer
from events_app.columns import utc_now
from events_app.database import Database
from events_app.event import Cursor, Point
from events_app.uri import Folder
from tests import conftest, databases, kept, rows
from tests.databases import ROOT
from tests.frames import Frame, Reader
from tests.server import harness
from tests.server.harness_client import JournalRow
from tests.server.harness_history import (
    FOLDERS,
    Backup,
    FileBackup,
    MovedFile,
    RowsBackup,
    Scribe,
    Survivor,
)
from tests.serving import Server, eventually


class Way(NamedTuple):
    """How a backup is restored under the running server.

    Before a new epoch begins, so that the backup is of the present one, or after. `frozen`: the
    workers do not run until another host has moved more rows than were lost.
    """

    backup: type[Backup | FileBackup]
    epoch_first: bool
    frozen: bool = False


WAYS = {
    "sqlite": Way(FileBackup, epoch_first=False),
    "sqlite-moved": Way(MovedFile, epoch_first=True),
    "postgresql": Way(Backup, epoch_first=False),
    "postgresql-frozen": Way(RowsBackup, epoch_first=False, frozen=True),
    "mariadb": Way(Backup, epoch_first=True),
}
FIRST, SECOND = harness.USERS
SLOW, CARELESS = "slow", "careless"
# The slow client's are more than two pages of what a replay reads at once, each of them more than
# all buffers hold; every tenth row is somebody else's.
OLD_ROWS = 3 * journal.PAGE_ROWS
SLOW_NAME = "n" * 1_000
ROOT_FOLDER = Folder("my", "/")
OLD = timedelta(days=2)
RETENTION_SECONDS = 86_400.0
# A stream lives for ten seconds at least; the rest is for a busy machine.
END_SECONDS = 60.0
START_SECONDS = 90.0
# The slow client takes nothing for longer than it may by default, while others are looked after.
SETTINGS = {"EVENTS_SEND_TIMEOUT": "90", "EVENTS_CONFIRM_SECONDS": "180"}
# So many positions are given out again that some come to another user, and to another folder.
AGAIN = 60
# Many looks of a worker at the journal, and less than any connection of its pool lasts.
NOTICE_SECONDS = 15.0


@dataclass
class Story:
    """What happened, to be judged: `begun` is how each stream began, by the name of its cursor."""

    begun: dict[str, str] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    survivors: list[Survivor] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    lost_epoch: int = 0
    first_journal: list[JournalRow] = field(default_factory=list)
    last_journal: list[JournalRow] = field(default_factory=list)
    steady_connections: int = 0
    log: str = ""


class Place:
    """The server, its database, who writes and who watches."""

    def __init__(self, url: str, log: Path, way: Way) -> None:
        self.story = Story()
        self.url = url
        self.engine = rows.app(url)
        self.server = Server(url, log, SETTINGS)
        self.scribe = Scribe(url)
        self.names: dict[str, str] = {}
        self._way = way

    def run(self) -> Story:
        """Live through it all."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.server.stop)
            self._start()
            self.scribe.start()
            stack.callback(self.scribe.stop)
            self.scribe.go_on()
            self._live()
            self.story.log = self.server.log.read_text()
        return self.story

    def _live(self) -> None:
        self._begin()
        self._forge()
        with self._open_slow() as slow, Reader(self.server, CARELESS, self._id("late")) as careless:
            early = str(careless.expect("subscribed").id)
            self._prune(slow)
            backup = self._take_backup()
            self._reject(careless, early)
            self._finish_slow(slow)
        later = self._cursor_of(FIRST)
        self.story.steady_connections = max(each.connections for each in self.story.survivors)
        if self._way.epoch_first:
            self._begin_epoch(later)
        self._restore_running(backup, later)
        if not self._way.epoch_first:
            self._begin_epoch(later)
        self._finish()
        self._restore_stopped(backup, later)

    def _start(self) -> None:
        """Start the server beside those of the other engines, which start in the same moment."""
        self.server.start(ready=False)
        eventually(self.server.is_ready, START_SECONDS, "the server is ready")

    # -- who is there ----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Let watchers begin who stay, and clients fall asleep who are known by their ids alone."""
        self.story.epochs.append(self._epoch())
        self.story.survivors = [
            Survivor(self.server, FIRST),
            Survivor(self.server, FIRST, FOLDERS[0], client_id=self._id("stored")),
            Survivor(self.server, SECOND, client_id=self._id("own")),
        ]
        self.story.survivors[1]._by_event_id = False
        for survivor in self.story.survivors:
            survivor.start()
        for survivor in self.story.survivors:
            assert survivor.begun.wait(30), "no stream began"
        for name in ("pruned", "epoch", "running", "stopped"):
            self._fall_asleep(name)

    def _id(self, name: str) -> str:
        return self.names.setdefault(name, str(uuid.uuid4()))

    def _fall_asleep(self, name: str) -> None:
        """Hear `subscribed`, be known to have heard it, and leave."""
        query = select(schema.subscription.c.state).where(
            schema.subscription.c.client_id == self._id(name)
        )
        with Reader(self.server, FIRST, self._id(name)) as reader:
            reader.expect("subscribed")
            eventually(lambda: self._scalar(query) == "live", what=f"{name} is known")

    def _ask(self, name: str, user: str = FIRST, cursor: str | None = None, **others: Any) -> None:
        """Come back by `cursor`, else by the client id of that name; note how the stream begins."""
        client_id = None if cursor else self._id(name)
        with Reader(self.server, user, client_id, last_event_id=cursor, **others) as reader:
            self.story.begun[name] = reader.expect("subscribed", "resumed").name

    def _cursor_of(self, user: str) -> str:
        """Hear a change; return the cursor behind it."""
        with Reader(self.server, user) as reader:
            reader.expect("subscribed")
            return str(reader.expect("event").id)

    # -- what happens ----------------------------------------------------------------------------

    def _forge(self) -> None:
        good = Cursor.parse(self._cursor_of(FIRST))
        assert good is not None
        folder = Folder("my", FOLDERS[0])
        bad = {
            "foreign": Cursor.at(good.epoch, good.point, SECOND, ROOT_FOLDER),
            "of another folder": Cursor.at(good.epoch, good.point, FIRST, folder),
            "forged": good._replace(point=Point(good.point.position, good.point.tag ^ 1)),
            "beyond the end": good._replace(point=Point(good.point.position + 10_000, 1)),
        }
        for name, cursor in bad.items():
            self._ask(name, cursor=cursor.text())
        self._ask("good", cursor=good.text())

    def _open_slow(self) -> Reader:
        """Let a client with little room begin a long replay, which SQL must be asked for."""

        def dial(address: tuple[str, int], seconds: float) -> socket.socket:
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(seconds)
            connection.connect(address)
            return connection

        begin = Cursor.at(self.story.epochs[0], Point(1, kept.tag_of(1)), SLOW, ROOT_FOLDER)
        slow = Reader(self.server.seen_by(dial), SLOW, last_event_id=begin.text())
        self.story.begun["slow"] = slow.expect("subscribed", "resumed").name
        self.story.told["slow"] = [each["file_id"] for each in slow.expect("event").changes]
        return slow

    def _prune(self, slow: Reader) -> None:
        """Prune what is old while the replay of it is under way."""
        del slow
        removed = 1
        while removed:
            with self.engine.begin() as connection:
                removed = journal.prune(connection, RETENTION_SECONDS)
        with self.engine.begin() as connection:
            # So far back lies a client that was away for as long as rows are kept.
            key = schema.subscription.c.client_id == self._id("pruned")
            connection.execute(schema.subscription.update().where(key).values(position=1))
        epoch, floor = self.story.epochs[0], OLD_ROWS
        for name, position in (("below the floor", floor - 1), ("at the floor", floor)):
            point = Point(position, kept.tag_of(position))
            self._ask(name, SLOW, Cursor.at(epoch, point, SLOW, ROOT_FOLDER).text())
        self._ask("pruned")

    def _finish_slow(self, slow: Reader) -> None:
        """Let it read on: what it was on, an end, and a new beginning."""
        frames = rest_of(slow)
        told = [frame for frame in frames if frame.name == "event"]
        for frame in told:
            self.story.told["slow"] += [each["file_id"] for each in frame.changes]
        self.story.begun["slow at the end"] = frames[-1].name
        self._ask("slow again", SLOW, frames[-1].id)
        self._ask("slow by its last change", SLOW, told[-1].id)

    def _take_backup(self) -> Backup | FileBackup:
        """Keep everything as it is between two changes."""
        self.scribe.pause()
        self._wait_for_empty_outbox()
        backup = self._way.backup(self.url)
        self._early = self._end_cursor()
        self.scribe.go_on()
        return backup

    def _reject(self, careless: Reader, early: str) -> None:
        """Write a row that cannot be told, and one behind it."""
        rows.commit(self.url, "/a/../b", user_id=CARELESS)
        rows.commit(self.url, "/behind", user_id=CARELESS)
        frame = careless.expect("reconnect-required", "event", seconds=END_SECONDS)
        self.story.begun["careless at the end"] = frame.name
        self.story.told["careless at the end"] = [each.name for each in rest_of(careless)]
        self._ask("late", CARELESS)
        self._ask("careless by the end", CARELESS, frame.id)
        self._ask("careless by an early cursor", CARELESS, early)

    def _begin_epoch(self, later: str) -> None:
        """Run `flask events new-epoch` under open streams."""
        self._new_epoch()
        self._wait_for_epoch_above(self.story.epochs[-1])
        self._ask("later, in a new epoch", cursor=later)
        self._ask("epoch")

    def _new_epoch(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", "events", "new-epoch"],
            cwd=ROOT,
            env=self.server.environment,
            check=True,
            capture_output=True,
        )

    def _restore_running(self, backup: Backup | FileBackup, later: str) -> None:
        """Restore under the running server, and give the positions out again."""
        present = self._cursor_of(FIRST)
        self.scribe.pause()
        self._wait_for_empty_outbox()
        self.story.first_journal = harness.journal_of(self.engine)
        self.story.lost_epoch = self.story.epochs[-1]
        if self._way.frozen:
            self._restore_frozen(backup)
        else:
            backup.restore()
        self._enough = self._scalar(select(schema.state.c.last_position)) + AGAIN
        eventually(
            lambda: self._epoch() > self.story.lost_epoch, NOTICE_SECONDS, "the restore is noticed"
        )
        self.scribe.go_on()
        self._wait_for_epoch_above(self.story.lost_epoch)
        for name, cursor in (("early", self._early), ("later", later), ("present", present)):
            self._ask(f"{name}, restored running", cursor=cursor)
        self._ask("running")

    def _restore_frozen(self, backup: Backup | FileBackup) -> None:
        """Restore, and let another host move more rows than were lost, before a worker looks."""
        workers = self.server.worker_pids()
        lost = self._scalar(select(schema.state.c.last_position))
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        try:
            backup.restore()
            again = lost - self._scalar(select(schema.state.c.last_position)) + 3
            rows.commit(self.url, *rows.numbered(again), user_id=SECOND)
            eventually(lambda: self._move() > lost, what="another host moves")
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)

    def _move(self) -> int:
        """Move as another host would; return the last position."""
        with rows.app(self.url, "READ COMMITTED").begin() as connection:
            done = sequencer.move(connection, sequencer.BATCH_ROWS)
        return 0 if done is None else done.last_position

    def _finish(self) -> None:
        """Let enough be given out again, and everybody hear everything."""
        eventually(
            lambda: self._scalar(select(schema.state.c.last_position)) >= self._enough,
            END_SECONDS,
            "positions are given out again",
        )
        self.scribe.pause()
        harness.finish(self.engine, self.story.survivors)
        self.story.last_journal = harness.journal_of(self.engine)

    def _restore_stopped(self, backup: Backup | FileBackup, later: str) -> None:
        """Restore while nobody serves, and give the positions out again."""
        self.server.stop()
        backup.restore_stopped()
        self._start()
        self._ask("later, beyond the end", cursor=later)
        lost = Cursor.parse(later)
        assert lost is not None
        ends_at = self._scalar(select(schema.state.c.last_position))
        names = [f"/a/again {number}" for number in range(lost.point.position - ends_at + 3)]
        rows.commit(self.url, *names[:-1], user_id=SECOND)
        rows.commit(self.url, names[-1], user_id=FIRST)
        self._wait_for_empty_outbox()
        self._ask("later, restored stopped", cursor=later)
        self._ask("early, restored stopped", cursor=self._early)
        with Reader(self.server, FIRST, last_event_id=self._early) as reader:
            reader.expect("resumed")
            self.story.told["early"] = [each["from"] for each in reader.changes(1)]
        self._new_epoch()
        self._ask("stopped")
        self._ask("early, in a new epoch", cursor=self._early)

    # -- looking ---------------------------------------------------------------------------------

    def _end_cursor(self) -> str:
        """Make the cursor of a client that has heard everything there is."""
        with self.engine.connect() as connection:
            head = journal.head(connection)
            tag = journal.tag_at(connection, head.last_position)
        point = Point(head.last_position, tag or 0)
        return Cursor.at(head.epoch, point, FIRST, ROOT_FOLDER).text()

    def _wait_for_epoch_above(self, epoch: int) -> None:
        """Wait until every survivor lives in a later epoch than all before, and hears of it."""
        eventually(
            lambda: all(
                each.epoch > epoch and each.eras[-1].claims for each in self.story.survivors
            ),
            END_SECONDS,
            f"everybody starts afresh above epoch {epoch}, and is told something",
        )
        self.story.epochs.append(self._epoch())

    def _wait_for_empty_outbox(self) -> None:
        eventually(lambda: self._scalar(select(func.count()).select_from(schema.outbox)) == 0)

    def _epoch(self) -> int:
        return int(self._scalar(select(schema.state.c.epoch)))

    def _scalar(self, query: sqlalchemy.Select[Any]) -> Any:
        with self.engine.connect() as connection:
            return connection.scalar(query)


def rest_of(reader: Reader) -> list[Frame]:
    """Read to the clean end of a stream, or until it should long have come."""
    frames: list[Frame] = []
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline and (frame := reader.frame()) is not None:
        frames.append(frame)
    return frames


def keep_old_rows(url: str) -> None:
    """Let the journal begin with rows that retention is about to take."""
    database = Database(url)
    old = database.read(lambda db: db.scalar(utc_now())) - OLD
    kept.keep(
        database,
        (
            kept.row(
                position,
                user_id=SLOW if position % 10 else SECOND,
                from_path=f"/{SLOW_NAME}{position}",
                created_at=old,
                recorded_at=old,
            )
            for position in range(1, OLD_ROWS + 1)
        ),
    )
    database.close()


def asked_for(session: pytest.Session) -> set[str]:
    """Name the stories that the chosen tests are about."""
    chosen = (item for item in session.items if isinstance(item, pytest.Function))
    found = (item.callspec.params for item in chosen if item.path == Path(__file__))
    return {str(params["story"]) for params in found}


@pytest.fixture(scope="module")
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Story]]]:
    """Let it happen on all engines that there are, side by side."""
    with contextlib.ExitStack() as stack:
        places = {}
        for name in asked_for(request.session):
            way, engine = WAYS[name], name.partition("-")[0]
            if engine == "sqlite" or databases.server_address(engine):
                folder = tmp_path_factory.mktemp(name)
                url = stack.enter_context(databases.migrated(engine, folder))
                keep_old_rows(url)
                places[name] = Place(url, folder / "gunicorn.log", way)
        pool = stack.enter_context(ThreadPoolExecutor(max(1, len(places))))
        yield {name: pool.submit(place.run) for name, place in places.items()}


@pytest.fixture(params=WAYS)
def story(request: pytest.FixtureRequest, stories: dict[str, Future[Story]]) -> Story:
    """Give the story of one engine after the other."""
    conftest.need(request.param.partition("-")[0])
    return stories[request.param].result()


def begun(story: Story, *names: str) -> set[str]:
    """Tell how the streams with these cursors began."""
    return {story.begun[name] for name in names}


def test_a_cursor_that_is_not_the_watchers_own_starts_afresh(story: Story) -> None:
    bad = ("foreign", "of another folder", "forged", "beyond the end")
    assert begun(story, *bad) == {"subscribed"}
    assert story.begun["good"] == "resumed"


def test_a_cursor_that_retention_passed_starts_afresh(story: Story) -> None:
    """By `Last-Event-ID` and by client id; who stands at the floor itself misses nothing."""
    assert begun(story, "below the floor", "pruned") == {"subscribed"}
    assert story.begun["at the floor"] == "resumed"


def test_a_replay_that_pruning_overtakes_ends_and_starts_afresh(story: Story) -> None:
    """It is told what was read before, not a row of what came after the gap."""
    assert story.begun["slow"] == "resumed"
    own = [f"/{position:06}" for position in range(2, OLD_ROWS + 1) if position % 10]
    assert story.told["slow"] == own[: journal.PAGE_ROWS]
    assert story.begun["slow at the end"] == "reconnect-required"
    assert begun(story, "slow again", "slow by its last change") == {"subscribed"}


def test_a_rejected_row_ends_the_streams_of_its_user_and_of_nobody_else(story: Story) -> None:
    assert story.begun["careless at the end"] == "reconnect-required"
    assert story.told["careless at the end"] == []
    names = ("late", "careless by the end", "careless by an early cursor")
    assert begun(story, *names) == {"subscribed"}
    assert story.steady_connections == 1


def test_a_new_epoch_lets_everybody_start_afresh(story: Story) -> None:
    assert begun(story, "later, in a new epoch", "epoch", "stopped") == {"subscribed"}
    assert story.begun["early, in a new epoch"] == "subscribed"


def test_a_restore_under_the_running_server_lets_everybody_start_afresh(story: Story) -> None:
    names = [f"{name}, restored running" for name in ("early", "later", "present")]
    assert begun(story, *names, "running") == {"subscribed"}
    assert "the journal has another history" in story.log


def test_every_stream_ends_as_planned_and_never_without_a_reason(story: Story) -> None:
    """Once for the epoch, once for the restore; nobody hangs on in a history that is gone."""
    for survivor in story.survivors:
        assert survivor.faults == []
        assert survivor.planned_ends == survivor.connections - 1 >= 2
        epochs = [era.epoch for era in survivor.eras]
        assert epochs == sorted(set(epochs))
        assert epochs[0] == story.epochs[0]
        assert epochs[-1] == story.epochs[-1]


def test_every_watcher_was_told_of_its_own_rows_and_all_of_them(story: Story) -> None:
    """Before the restore by the journal that there was, after it by the one that there is."""
    for survivor in story.survivors:
        assert survivor.position == len(story.last_journal) + OLD_ROWS
        for era in survivor.eras:
            was_lost = era.epoch <= story.lost_epoch
            journal_then = story.first_journal if was_lost else story.last_journal
            assert survivor.wrong_in(era, journal_then) == [], era.epoch
            assert era.claims


def test_positions_were_given_out_again_to_other_rows(story: Story) -> None:
    """Else the other tests prove nothing."""
    before = {row.position: row for row in story.first_journal}
    again = [row for row in story.last_journal if row.position in before]
    other = [row for row in again if row != before[row.position]]
    assert len(other) > AGAIN // 3
    assert any(row.user_id != before[row.position].user_id for row in other)
    assert any(row.from_path[:2] != before[row.position].from_path[:2] for row in other)


def test_a_restore_of_a_stopped_server_is_seen_in_the_cursor(story: Story) -> None:
    """What was lost does not resume; what the backup has does, with what happened since."""
    lost = ("later, beyond the end", "later, restored stopped")
    assert begun(story, *lost) == {"subscribed"}
    assert story.begun["early, restored stopped"] == "resumed"
    (told,) = story.told["early"]
    assert told.startswith("/a/again ")

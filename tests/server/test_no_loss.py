"""Nothing is lost: eight writing processes, two instances, clients that come and go, and kills.

Each run happens once for all tests of this module.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests import conftest
from tests.server import harness
from tests.server.harness import Load, Run

# SQLite has one writer at a time: a transaction that is held open holds up everybody.
_SQLITE = Load("sqlite", writers=3, seconds=6, held_seconds=0.2)
CALM = [Load("postgresql"), Load("mariadb"), _SQLITE]
KILLING = [dataclasses.replace(load, kill_workers=True) for load in CALM]


def _name(load: Load) -> str:
    return f"{load.engine}-{'killing' if load.kill_workers else 'calm'}"


@pytest.fixture(scope="module", params=CALM + KILLING, ids=_name)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Let each load happen once."""
    load: Load = request.param
    conftest.need(load.engine)
    return harness.run(load, tmp_path_factory.mktemp("loss"))


def test_the_load_was_what_it_claims_to_be(run: Run) -> None:
    """Without rollbacks, held transactions, reconnects and kills the other tests prove nothing."""
    assert len(run.journal) > 50 * run.load.writers
    assert all(outcome.rolled_back for outcome in run.outcomes)
    assert sum(outcome.held for outcome in run.outcomes) >= run.load.writers
    leaving = [client for client in run.clients if client.stay_seconds is not None]
    assert leaving
    assert all(client.connections >= 2 for client in leaving)
    assert bool(run.kills) == run.load.kill_workers
    assert run.kills >= (3 if run.load.kill_workers else 0)


def test_the_journal_holds_exactly_what_was_committed_each_writers_in_its_order(run: Run) -> None:
    for number, outcome in enumerate(run.outcomes):
        assert run.journalled_by(number) == outcome.committed
    assert len(run.journal) == sum(len(outcome.committed) for outcome in run.outcomes)


def test_positions_are_dense_and_nothing_waits_in_the_outbox(run: Run) -> None:
    assert [row.position for row in run.journal] == list(range(1, len(run.journal) + 1))
    assert run.outbox_rows == 0


def test_every_client_was_told_of_every_change_that_is_its_to_hear(run: Run) -> None:
    """Up to the end, without a gap, in order, and of nothing else."""
    for client in run.clients:
        assert client.faults == []
        assert client.start_position == 0
        assert client.position == len(run.journal)
        assert client.wrong_claims(run.journal) == []


def test_a_reader_that_follows_ids_would_have_lost_rows(run: Run) -> None:
    """The same run, read by `id > cursor`: held transactions commit below what it has passed.

    SQLite has one writer at a time, so there ids do come in the order of commits.
    """
    if run.load.engine == "sqlite":
        assert run.naive_missed == 0
    else:
        assert run.naive_missed > 0


def test_the_journal_was_never_called_broken(run: Run) -> None:
    for log in run.logs:
        assert "CRITICAL" not in log
        assert "Traceback" not in log

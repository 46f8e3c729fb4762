"""Law 8 of the fold: what the watcher did itself is in its tree already, and is not undone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from events_app import merge
from events_app.event import Change
from tests import histories
from tests.histories import History, law


def own_of(run: list[Change]) -> list[Change]:
    return [row for row in run if row.own]


@given(histories.shared, st.booleans())
@law
def test_law_8_with_own_changes_it_leads_to_the_same_state(
    history: History,
    checks_ids: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
) -> None:
    """Own rows are done already when the others come.

    What the watcher deleted and others had saved before comes again as `create` of the uppermost
    folder, and the client lists what is in it.
    """
    client, server = history.before.copy(), history.before.copy()
    for run in history.runs():
        client = client.apply(own_of(run)).copy(strict=False, checks_ids=checks_ids)
        client.apply(merge.fold(run))
        server.apply(run)
        assert client.look_up_dirty(server).ids() == server.ids()
        client = server.copy()


@given(histories.shared)
@law
def test_law_8_with_own_changes_no_content_of_others_is_lost(history: History) -> None:
    """Except what the watcher wrote over afterwards."""
    client, server = history.before.copy(), history.before.copy()
    for run in history.runs():
        client.apply(own_of(run)).settle().strict = False
        for row in run:
            server.apply([row])
            if row.own and row.type in {"create", "modify"}:
                server.fetch(row.from_path)
        assert server.dirty() <= client.apply(merge.fold(run)).dirty()
        client = server.settle().copy()


@given(
    histories.shared,
    histories.numbers,
    histories.numbers,
    histories.numbers,
    st.booleans(),
    st.booleans(),
)
@law
def test_law_8_a_second_delivery_with_own_changes_heals(
    history: History,
    last: int,
    told: int,
    start: int,
    looked: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
    checks_ids: bool,  # noqa: FBT001 -- as above
) -> None:
    """It begins with any run, and the last one had been told in part."""
    runs = history.runs()
    runs = runs[: last % len(runs) + 1]
    client = history.before.copy()
    for run in runs[:-1]:
        client.apply(run)
    server = client.copy().apply(runs[-1])
    client = client.settle().copy(strict=False)
    client = client.apply(own_of(runs[-1])).copy(strict=False, checks_ids=checks_ids)
    folded = merge.fold(runs[-1])
    # A client that goes by ids applies batches whole.
    client.apply(folded if checks_ids else folded[:told])
    if looked:
        client.look_up_dirty(server)
    first = start % len(runs)
    rows = [row for run in runs[first:] for row in run]
    client.apply(merge.fold(rows, repeated=True))
    assert client.look_up_dirty(server).ids() == server.ids()

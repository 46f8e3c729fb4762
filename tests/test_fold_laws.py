"""Laws 1 to 6 of the fold, over random histories; docs/explanation/merging.md has their reasons.

`make test-laws` tries each on 20,000 histories, with a new seed each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from events_app import merge
from events_app.event import TYPES, Change
from tests import histories
from tests.client_tree import Tree
from tests.histories import History, law


def test_the_laws_are_tried_on_other_histories_each_time() -> None:
    """And `make test` on the same."""
    assert not hypothesis.settings.get_profile("laws").derandomize
    assert hypothesis.settings.get_profile("default").derandomize


# -- 1: the same state ---------------------------------------------------------------------------


@given(histories.told)
@law
def test_law_1_the_same_ids_are_at_the_same_paths(history: History) -> None:
    """And no step names a path that is not there, or a place without its folder."""
    found = history.before.copy().apply(merge.fold(history.rows))
    assert found.ids() == history.after().ids()


# -- 2: no lost content --------------------------------------------------------------------------


@given(histories.told)
@law
def test_law_2_what_was_created_or_modified_and_is_there_is_dirty(history: History) -> None:
    found = history.before.copy().apply(merge.fold(history.rows))
    assert history.after().dirty() <= found.dirty()


# -- 3: no noise ---------------------------------------------------------------------------------


@given(histories.told)
@law
def test_law_3_what_was_absent_before_and_after_is_not_mentioned(history: History) -> None:
    mentioned = {change.file_id for change in merge.fold(history.rows)}
    assert mentioned <= history.before.paths().keys() | history.after().paths().keys()


@given(histories.told)
@law
def test_law_3_what_is_as_it_was_is_not_mentioned(history: History) -> None:
    """Unless a folder that it was in moved or died in between."""
    before, after = history.before.paths(), history.after()
    same = {
        entry.file_id
        for path, entry in after.entries.items()
        if not entry.dirty and before.get(entry.file_id) == path
    }
    mentioned = {change.file_id for change in merge.fold(history.rows)}
    for file_id in same & mentioned:
        assert _folders_of(file_id, history) & _moved_or_died(history)


def _folders_of(file_id: str, history: History) -> set[str]:
    """List every folder that the entry was in, however deep, at any time."""
    found = set()
    for tree in _states(history):
        path = tree.paths().get(file_id, "")
        found |= {
            entry.file_id for above, entry in tree.entries.items() if path.startswith(f"{above}/")
        }
    return found


def _states(history: History) -> Iterator[Tree]:
    tree = history.before.copy()
    yield tree
    for row in history.rows:
        yield tree.apply([row])


def _moved_or_died(history: History) -> set[str]:
    return {row.file_id for row in history.rows if row.type in {"rename", "delete"}}


# -- 4: never longer -----------------------------------------------------------------------------


@given(histories.told)
@law
def test_law_4_what_is_sent_is_never_longer(history: History) -> None:
    assert len(merge.fold(history.rows)) <= len(history.rows)


@given(histories.told)
@law
def test_law_4_what_is_folded_stays_as_it_is(history: History) -> None:
    folded = merge.fold(history.rows)
    assert merge.fold(folded) == folded


# -- 5: pages compose ----------------------------------------------------------------------------


@given(histories.told, histories.cuts)
@law
def test_law_5_page_by_page_leads_to_the_same_state(history: History, cuts: list[int]) -> None:
    found = history.before.copy()
    for page in histories.pages(history.rows, cuts):
        found.apply(merge.fold(page))
    assert found.ids() == history.after().ids()
    assert history.after().dirty() <= found.dirty()


# -- 6: total ------------------------------------------------------------------------------------

PATHS = ["/a", "/b", "/ab", "/a/b", "/a/b/a", "/b/a", "/", "", "a", "//", "/a/"]
ANY_CHANGE = st.sampled_from(
    [
        Change(*each)
        for each in product(
            [*TYPES, *TYPES, "", "moved"],
            ["1", "2", "3", ""],
            PATHS,
            ["", *PATHS],
            [False, False, True],
        )
    ]
)
ANY_RUN = st.lists(ANY_CHANGE, max_size=6) | st.lists(ANY_CHANGE, min_size=6, max_size=20)


@given(ANY_RUN, ANY_RUN, st.booleans())
@law
def test_law_6_any_input_at_all_comes_out_as_some_list(
    run: list[Change],
    then: list[Change],
    repeated: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
) -> None:
    found = merge.fold(run, repeated=repeated, then=then)
    rows = run + then
    assert not any(change.own for change in found)
    assert {change.file_id for change in found} <= {row.file_id for row in rows}
    if repeated and not then:
        assert not any(change.type == "rename" for change in found)
    if not repeated and not any(row.own for row in rows):
        unknown = [row for row in rows if row.type not in TYPES]
        assert [change for change in found if change.type not in TYPES] == unknown


@given(ANY_RUN)
@law
def test_law_6_nothing_impossible_makes_it_longer(run: list[Change]) -> None:
    run = [row for row in run if not row.own]
    assert len(merge.fold(run)) <= len(run)


@given(histories.silent, histories.cuts)
@law
def test_law_6_an_arrival_that_replaces_something_unsaid_is_told(
    history: History, cuts: list[int]
) -> None:
    """If it stays: then the client must make room there too."""
    told = {
        change.file_id
        for page in histories.pages(history.rows, cuts)
        for change in merge.fold(page)
        if change.type in {"create", "rename"}
    }
    assert _arrived_unsaid(history) <= told


def _arrived_unsaid(history: History) -> set[str]:
    """List the ids whose last arrival replaced an entry that no row names, and that are there."""
    named = {row.file_id for row in history.rows}
    tree = history.before.copy()
    found = set()
    for row in history.rows:
        if row.type in {"create", "rename"}:
            replaced = tree.entries.get(row.to_path or row.from_path)
            found.discard(row.file_id)
            if replaced and replaced.file_id not in named:
                found.add(row.file_id)
        tree.apply([row])
    return found & tree.paths().keys()

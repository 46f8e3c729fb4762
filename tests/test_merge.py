"""A fold leaves a client in the state that the history leaves it in, and never sends more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events_app import merge
from events_app.event import Change
from tests.client_tree import Tree
from tests.histories import History, histories

EXAMPLES = 200


def create(path: str, file_id: str = "1") -> Change:
    return Change("create", file_id, path)


def modify(path: str, file_id: str = "1") -> Change:
    return Change("modify", file_id, path)


def rename(path: str, to_path: str, file_id: str = "1") -> Change:
    return Change("rename", file_id, path, to_path)


def delete(path: str, file_id: str = "1") -> Change:
    return Change("delete", file_id, path)


def own(change: Change) -> Change:
    return change._replace(own=True)


# -- settle --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "due"),
    [(100, 100, 105), (100, 104, 109), (100, 125, 130), (100, 124, 129), (100, 200, 130)],
)
def test_a_run_is_due_when_it_is_quiet_or_has_waited_longest(
    first: float, last: float, due: float
) -> None:
    assert merge.due_at(first, last, 5, 30) == due


# -- what is merged ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "sent"),
    [
        ([modify("/a"), modify("/a")], [modify("/a")]),
        ([create("/a"), modify("/a")], [create("/a")]),
        ([create("/a"), modify("/a"), delete("/a")], []),
        ([create("/a"), delete("/a")], []),
        ([delete("/a"), create("/a")], [delete("/a"), create("/a")]),
        ([delete("/a"), create("/b")], [delete("/a"), create("/b")]),
        (
            [modify("/a"), modify("/b", "2"), modify("/a"), modify("/b", "2")],
            [modify("/a"), modify("/b", "2")],
        ),
        ([create("/a"), modify("/b", "2"), modify("/a")], [create("/a"), modify("/b", "2")]),
        ([delete("/a", "2"), create("/a"), delete("/a")], [delete("/a", "2")]),
    ],
)
def test_neighbours_are_merged(history: list[Change], sent: list[Change]) -> None:
    assert merge.fold(history) == sent


@pytest.mark.parametrize(
    "history",
    [
        [modify("/a"), rename("/a", "/b"), modify("/b")],
        [modify("/a"), rename("/d", "/e", "2"), modify("/a")],
        [create("/a"), create("/b", "2"), delete("/a")],
        [create("/a"), delete("/a", "2")],
        [modify("/a"), modify("/a", "2")],
        [create("/d"), create("/d/f", "2"), delete("/d")],
    ],
)
def test_what_something_lies_between_is_sent_as_it_is(history: list[Change]) -> None:
    assert merge.fold(history) == history


# -- the traps -----------------------------------------------------------------------------------

TRAPS = {
    "atomic save": (
        [("/doc", "1")],
        [create("/doc.tmp", "2"), delete("/doc"), rename("/doc.tmp", "/doc", "2")],
        {"/doc": "2"},
    ),
    "swap": (
        [("/a", "1"), ("/b", "2")],
        [rename("/a", "/t"), rename("/b", "/a", "2"), rename("/t", "/b")],
        {"/a": "2", "/b": "1"},
    ),
    "chain into a moved folder": (
        [],
        [create("/d"), create("/d/f", "2"), rename("/d", "/e")],
        {"/e": "1", "/e/f": "2"},
    ),
    "rescue": (
        [("/d", "1"), ("/d/f", "2")],
        [rename("/d/f", "/f", "2"), delete("/d")],
        {"/f": "2"},
    ),
    "bury": (
        [("/d", "1"), ("/f", "2")],
        [rename("/f", "/d/f", "2"), delete("/d")],
        {},
    ),
    "reuse of a name": (
        [("/a", "1")],
        [rename("/a", "/b"), create("/a", "2"), rename("/b", "/c")],
        {"/a": "2", "/c": "1"},
    ),
    "replace by rename": (
        [("/x", "1"), ("/y", "2")],
        [delete("/y", "2"), rename("/x", "/y")],
        {"/y": "1"},
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_no_trap(name: str) -> None:
    files, history, end = TRAPS[name]
    assert Tree(files).apply(merge.fold(history)).ids() == end


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_that_is_told_twice_heals(name: str) -> None:
    files, history, end = TRAPS[name]
    client = Tree(files, strict=False).apply(merge.fold(history))
    client.apply(merge.fold(history, repeated=True))
    assert client.look_up_dirty(Tree(end.items())).ids() == end


# -- the laws ------------------------------------------------------------------------------------


@given(histories())
@settings(max_examples=EXAMPLES)
def test_laws_1_2_and_4_the_same_state_no_lost_content_never_longer(history: History) -> None:
    """And no step names a path that is not there at that step (the tree is strict)."""
    folded = merge.fold(history.changes)
    expected = history.before.copy().apply(history.changes)
    found = history.before.copy().apply(folded)
    assert found.ids() == expected.ids()
    assert expected.dirty() <= found.dirty()
    assert len(folded) <= len(history.changes)


@given(histories(), st.integers(0, 30))
@settings(max_examples=EXAMPLES)
def test_law_5_pages_compose(history: History, cut: int) -> None:
    expected = history.before.copy().apply(history.changes)
    found = history.before.copy().apply(merge.fold(history.changes[:cut]))
    assert found.apply(merge.fold(history.changes[cut:])).ids() == expected.ids()


ANY_CHANGE = st.builds(
    Change,
    st.sampled_from(["create", "modify", "rename", "delete", "", "moved"]),
    st.sampled_from(["1", "2", ""]),
    st.sampled_from(["/", "", "/a", "/a/b", "/b"]),
    st.sampled_from(["", "/", "/a", "/a/b"]),
    st.booleans(),
)


@given(st.lists(ANY_CHANGE), st.booleans())
@settings(max_examples=EXAMPLES)
def test_law_6_any_input_comes_out_as_some_of_it_in_order(
    history: list[Change],
    repeated: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
) -> None:
    found = merge.fold(history, repeated=repeated)
    assert not any(change.own for change in found)
    if repeated:
        assert not any(change.type == "rename" for change in found)
    elif not any(change.own for change in history):
        left = iter(history)
        assert all(change in left for change in found), "in the order of the rows"


@given(histories(), st.data())
@settings(max_examples=EXAMPLES)
def test_law_7_a_second_delivery_heals_whatever_was_delivered(
    history: History, data: st.DataObject
) -> None:
    """The first delivery broke off anywhere, the client may have looked things up meanwhile."""
    server = history.before.copy().apply(history.changes)
    read = data.draw(st.integers(0, len(history.changes)))
    first = merge.fold(history.changes[:read])
    told = data.draw(st.integers(0, len(first)))
    client = history.before.copy(strict=False).apply(first[:told])
    if data.draw(st.booleans()):
        client.look_up_dirty(server)
    client.apply(merge.fold(history.changes, repeated=True))
    assert client.look_up_dirty(server).ids() == server.ids()


@given(histories())
@settings(max_examples=EXAMPLES)
def test_a_third_delivery_heals_too(history: History) -> None:
    server = history.before.copy().apply(history.changes)
    client = history.before.copy(strict=False)
    for _ in range(3):
        client.apply(merge.fold(history.changes, repeated=True))
    assert client.look_up_dirty(server).ids() == server.ids()


def test_a_repeated_rename_that_stays_a_rename_would_not_heal() -> None:
    """Why a second delivery has no renames: this one moves the new /a over /b."""
    history = [rename("/a", "/b"), create("/a", "2")]
    server = Tree([("/a", "1")]).apply(history)
    client = Tree([("/a", "1")], strict=False).apply(history).look_up_dirty(server)
    harmed = client.copy(strict=False).apply(history).look_up_dirty(server)
    assert harmed.ids() != server.ids()
    healed = client.apply(merge.fold(history, repeated=True)).look_up_dirty(server)
    assert healed.ids() == server.ids()


# -- own changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "itself", "sent"),
    [
        ([modify("/d/f")], rename("/d", "/e"), [modify("/e/f")]),
        ([modify("/d")], rename("/d", "/e"), [modify("/e")]),
        ([modify("/dd")], rename("/d", "/e"), [modify("/dd")]),
        ([rename("/x", "/d/f")], rename("/d", "/e", "2"), [rename("/x", "/e/f")]),
        ([modify("/d/f"), modify("/g", "2")], delete("/d", "3"), [modify("/g", "2")]),
        ([rename("/x", "/d/f")], delete("/d", "2"), [delete("/x")]),
        ([rename("/d/f", "/x")], delete("/d", "2"), [create("/x")]),
        ([rename("/d/f", "/d/g")], delete("/d", "2"), []),
        ([modify("/a")], create("/c", "3"), [modify("/a")]),
        ([modify("/a")], modify("/a"), [modify("/a")]),
    ],
)
def test_what_waits_is_told_in_the_tree_that_the_client_made_itself(
    before: list[Change], itself: Change, sent: list[Change]
) -> None:
    """Own changes are not sent, but they happened: the client has applied them already."""
    assert merge.fold([*before, own(itself)]) == sent


def test_what_follows_a_second_delivery_is_told_for_the_first_time() -> None:
    history = [create("/a"), rename("/a", "/b")]
    then = [delete("/b"), rename("/x", "/y", "2"), own(rename("/y", "/z", "2"))]
    told = [create("/a"), delete("/a"), create("/b"), delete("/b"), rename("/x", "/z", "2")]
    assert merge.fold(history, repeated=True, then=then) == told


@pytest.mark.parametrize("repeated", [False, True])
def test_an_own_change_keeps_apart_what_it_stands_between(*, repeated: bool) -> None:
    """The client has a file of its own at /a by then: it must hear that it is deleted."""
    history = [create("/a"), own(modify("/a")), delete("/a")]
    assert merge.fold(history, repeated=repeated) == [create("/a"), delete("/a")]
    history = [modify("/a"), own(rename("/a", "/b")), own(rename("/b", "/a")), modify("/a")]
    assert merge.fold(history, repeated=repeated) == [modify("/a"), modify("/a")]


# -- a second delivery ---------------------------------------------------------------------------


def test_in_a_second_delivery_a_rename_is_a_delete_and_a_create() -> None:
    assert merge.fold([rename("/a", "/b")], repeated=True) == [delete("/a"), create("/b")]


def test_in_a_second_delivery_nothing_that_was_deleted_goes_unsaid() -> None:
    """The client may have heard of the create, and of nothing else."""
    history = [create("/a"), delete("/a")]
    assert merge.fold(history, repeated=True) == history

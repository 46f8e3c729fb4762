"""When a run is sent, and what a fold makes of the histories that a person would try first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from events_app import merge, rings
from events_app.event import Change
from events_app.tree import Place
from tests.changes import create, delete, modify, own, rename
from tests.client_tree import Tree

# -- settle --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "due"),
    [(100, 100, 105), (100, 104, 109), (100, 125, 130), (100, 124, 129), (100, 200, 130)],
)
def test_a_run_is_due_when_it_is_quiet_or_has_waited_longest(
    first: float, last: float, due: float
) -> None:
    assert merge.due_at(first, last, 5, 30) == due


# -- the traps -----------------------------------------------------------------------------------

# The files before, the history, what is sent, and the files after.
TRAPS = {
    "atomic save": (
        [("/doc", "1")],
        [create("/doc.tmp", "2"), delete("/doc"), rename("/doc.tmp", "/doc", "2")],
        [delete("/doc"), create("/doc", "2")],
        {"/doc": "2"},
    ),
    "swap": (
        [("/a", "1"), ("/b", "2")],
        [rename("/a", "/t"), rename("/b", "/a", "2"), rename("/t", "/b")],
        [rename("/a", "/t"), rename("/b", "/a", "2"), rename("/t", "/b")],
        {"/a": "2", "/b": "1"},
    ),
    "chain into a moved folder": (
        [],
        [create("/d"), create("/d/f", "2"), rename("/d", "/e")],
        [create("/e"), create("/e/f", "2")],
        {"/e": "1", "/e/f": "2"},
    ),
    "rescue": (
        [("/d", "1"), ("/d/f", "2")],
        [rename("/d/f", "/f", "2"), delete("/d")],
        [rename("/d/f", "/f", "2"), delete("/d")],
        {"/f": "2"},
    ),
    "bury": (
        [("/d", "1"), ("/f", "2")],
        [rename("/f", "/d/f", "2"), delete("/d")],
        [delete("/f", "2"), delete("/d")],
        {},
    ),
    "reuse of a name": (
        [("/a", "1")],
        [rename("/a", "/b"), create("/a", "2"), rename("/b", "/c")],
        [rename("/a", "/c"), create("/a", "2")],
        {"/a": "2", "/c": "1"},
    ),
    "replace by rename": (
        [("/x", "1"), ("/y", "2")],
        [delete("/y", "2"), rename("/x", "/y")],
        [delete("/y", "2"), rename("/x", "/y")],
        {"/y": "1"},
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_no_trap(name: str) -> None:
    files, history, sent, end = TRAPS[name]
    folded = merge.fold(history)
    assert sorted(folded) == sorted(sent)
    assert Tree(files).apply(folded).ids() == end


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_that_is_told_twice_heals(name: str) -> None:
    files, history, _sent, end = TRAPS[name]
    client = Tree(files, strict=False).apply(merge.fold(history))
    client.apply(merge.fold(history, repeated=True))
    assert client.look_up_dirty(Tree(end.items())).ids() == end


# -- rings ---------------------------------------------------------------------------------------


def test_who_dies_in_its_folder_makes_room_for_a_step_aside() -> None:
    """The ring of 2 and 3 has no other place than that of 4, which its folder's end would cover."""
    files = [("/d", "1"), ("/d/x", "4"), ("/a", "2")]
    history = [
        delete("/d/x", "4"),
        rename("/a", "/d/x", "2"),
        create("/a", "3"),
        rename("/d/x", "/a/b", "2"),
        delete("/d", "1"),
    ]
    folded = merge.fold(history)
    assert folded == history
    assert Tree(files).apply(folded).ids() == {"/a": "3", "/a/b": "2"}


def test_who_finds_no_way_out_goes_before_what_takes_the_room() -> None:
    """Said in the order of last rows, the create of 4 would take the one place that is free."""
    files = [("/a", "1"), ("/a/a", "2"), ("/b", "3")]
    history = [
        rename("/a", "/b/a", "1"),
        rename("/b/a/a", "/a", "2"),
        rename("/b/a", "/a/b", "1"),
        create("/b/a", "4"),
        modify("/a", "2"),
        modify("/a", "2"),
        modify("/a/b", "1"),
    ]
    folded = merge.fold(history)
    assert len(folded) == len(history) - 1
    assert Tree(files).apply(folded).ids() == {"/b": "3", "/a": "2", "/a/b": "1", "/b/a": "4"}


@pytest.mark.parametrize(
    ("first", "last"),
    [([], []), ([modify("/d", "4")], [own(rename("/d", "/e", "4"))])],
)
def test_nobody_steps_aside_to_where_the_watcher_made_room(
    first: list[Change], last: list[Change]
) -> None:
    """A second delivery says nothing of that place: who broke off would keep 3 there."""
    files = [("/a", "1"), ("/b", "2"), ("/c", "3"), ("/d", "4")]
    ring = [rename("/c", "/a/x", "3"), rename("/b", "/c", "2"), rename("/a/x", "/b", "3")]
    history = [*first, *ring, own(delete("/a")), *last]
    server = Tree(files).apply(history)
    for told in range(len(merge.fold(history)) + 1):
        client = Tree(files, strict=False).apply(change for change in history if change.own)
        client.apply(merge.fold(history)[:told])
        client.apply(merge.fold(history, repeated=True))
        assert client.look_up_dirty(server).ids() == server.ids()


def test_in_a_ring_of_ten_thousand_one_steps_aside() -> None:
    """And nothing is called ten thousand deep."""
    names = [f"/{number}" for number in range(10_000)]
    moves = [rename(name, before, name) for before, name in pairwise(names)]
    history = [rename(names[0], "/t", names[0]), *moves, rename("/t", names[-1], names[0])]
    assert merge.fold(history) == history


def ring_without_a_stop(length: int) -> list[Change]:
    """Make a ring whose only third place the watcher has taken since."""
    names = [f"/{number}" for number in range(length)]
    moves = [rename(name, before, name) for before, name in pairwise(names)]
    ends = [rename(names[0], "/t", names[0]), rename("/t", names[-1], names[0])]
    return [ends[0], *moves, ends[1], own(create("/t", "own"))]


def rings_without_a_stop(length: int) -> list[Change]:
    """Make swaps, each through a place that the watcher has taken since."""
    history = []
    for number in range(length // 2):
        a, b, t = (f"/{name}{number}" for name in "abt")
        history += [rename(a, t, a), rename(b, a, b), rename(t, b, a), own(create(t, "own"))]
    return history


@pytest.mark.parametrize("make", [ring_without_a_stop, rings_without_a_stop])
def test_the_search_for_a_way_out_never_grows_with_the_square(
    make: Callable[[int], list[Change]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that folds for minutes tells nobody anything."""
    looks: Counter[int] = Counter()
    length = 0
    is_open = rings._Judge._is_open

    def counted(judge: rings._Judge, place: Place) -> bool:
        looks[length] += 1
        return is_open(judge, place)

    monkeypatch.setattr(rings._Judge, "_is_open", counted)
    for length in (400, 4_000):
        merge.fold(make(length))
    assert looks[400] > 0
    assert looks[4_000] <= 12 * looks[400]


# -- files among each other ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "sent"),
    [
        (
            [modify("/a"), modify("/b", "2"), modify("/a"), modify("/b", "2")],
            [modify("/a"), modify("/b", "2")],
        ),
        ([create("/a"), modify("/b", "2"), modify("/a")], [create("/a"), modify("/b", "2")]),
        ([delete("/a", "2"), create("/a"), delete("/a")], [delete("/a", "2")]),
        ([create("/a"), create("/b", "2"), delete("/a")], [create("/b", "2")]),
        (
            [modify("/a"), rename("/d", "/e", "2"), modify("/a")],
            [rename("/d", "/e", "2"), modify("/a")],
        ),
    ],
)
def test_what_happens_to_others_in_between_does_no_harm(
    history: list[Change], sent: list[Change]
) -> None:
    assert sorted(merge.fold(history)) == sorted(sent)


@pytest.mark.parametrize(
    ("history", "sent"),
    [
        # The folder's death says it all.
        ([delete("/d/f", "2"), delete("/d/g", "3"), delete("/d")], [delete("/d")]),
        ([modify("/d/f", "2"), delete("/d")], [delete("/d")]),
        ([create("/d"), create("/d/f", "2"), delete("/d")], []),
        # What goes along needs no word, and what is said of it is said where it is.
        ([rename("/d", "/e"), modify("/e/f", "2"), rename("/e", "/d")], [modify("/d/f", "2")]),
        ([modify("/d/f", "2"), rename("/d", "/e")], [modify("/d/f", "2"), rename("/d", "/e")]),
        (
            [
                rename("/d/f", "/f", "2"),
                rename("/d", "/e"),
                rename("/f", "/e/f", "2"),
            ],
            [rename("/d", "/e")],
        ),
        # /ab is not below /a.
        ([modify("/ab", "2"), rename("/a", "/c")], [modify("/ab", "2"), rename("/a", "/c")]),
    ],
)
def test_a_folder_takes_along_what_is_in_it(history: list[Change], sent: list[Change]) -> None:
    assert sorted(merge.fold(history)) == sorted(sent)


def test_a_folder_that_is_turned_inside_out_stays_so() -> None:
    history = [rename("/d/e", "/e", "2"), rename("/d", "/e/d")]
    after = Tree([("/d", "1"), ("/d/e", "2"), ("/d/e/f", "3")]).apply(merge.fold(history))
    assert after.ids() == {"/e": "2", "/e/f": "3", "/e/d": "1"}


# -- own changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "itself", "sent"),
    [
        ([modify("/d/f")], rename("/d", "/e", "2"), [modify("/e/f")]),
        ([modify("/d")], rename("/d", "/e"), [modify("/e")]),
        ([modify("/dd")], rename("/d", "/e", "2"), [modify("/dd")]),
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


def test_what_the_client_has_by_its_own_doing_is_deleted_there() -> None:
    """It was not told of the create, but has a file at /a since it wrote one."""
    assert merge.fold([create("/a"), own(modify("/a")), delete("/a")]) == [delete("/a")]


def test_what_the_client_did_itself_it_did_by_path_in_its_own_tree() -> None:
    """It deleted its /d/f: at the server that file was by then in another folder, now called /d."""
    files = [("/d", "1"), ("/d/f", "2"), ("/e", "3"), ("/e/f", "4")]
    history = [
        delete("/e/f", "4"),
        rename("/d/f", "/e/f", "2"),
        delete("/d", "1"),
        rename("/e", "/d", "3"),
        own(delete("/d/f", "2")),
    ]
    client = Tree(files).apply([history[-1]]).apply(merge.fold(history))
    assert client.ids() == {"/d": "3"}


# -- a second delivery ---------------------------------------------------------------------------


def test_in_a_second_delivery_a_rename_is_a_delete_and_a_create() -> None:
    assert merge.fold([rename("/a", "/b")], repeated=True) == [delete("/a"), create("/b")]


def test_in_a_second_delivery_nothing_that_was_deleted_goes_unsaid() -> None:
    """The client may have heard of the create, and of nothing else."""
    assert merge.fold([create("/a"), delete("/a")], repeated=True) == [delete("/a")]


@pytest.mark.parametrize("last", [delete("/a", "2"), rename("/a", "/b", "2")])
def test_in_a_second_delivery_the_end_of_everyone_who_stood_there_is_told(last: Change) -> None:
    """A client that compares ids would keep the first one, and has the second if it heard of it."""
    history = [delete("/a", "1"), create("/a", "2"), last]
    told = merge.fold(history, repeated=True)
    assert [each for each in told if each.from_path == "/a"] == [
        delete("/a", "1"),
        delete("/a", "2"),
    ]


def test_a_repeated_rename_that_stays_a_rename_would_not_heal() -> None:
    """Why a second delivery has no renames: this one moves the new /a over /b."""
    history = [rename("/a", "/b"), create("/a", "2")]
    server = Tree([("/a", "1")]).apply(history)
    client = Tree([("/a", "1")], strict=False).apply(history).look_up_dirty(server)
    harmed = client.copy(strict=False).apply(history).look_up_dirty(server)
    assert harmed.ids() != server.ids()
    healed = client.apply(merge.fold(history, repeated=True)).look_up_dirty(server)
    assert healed.ids() == server.ids()


def test_what_follows_a_second_delivery_is_told_for_the_first_time() -> None:
    history = [modify("/a"), rename("/a", "/b")]
    then = [rename("/x", "/y", "2"), own(rename("/y", "/z", "2"))]
    told = [delete("/a"), create("/b"), rename("/x", "/z", "2")]
    assert merge.fold(history, repeated=True, then=then) == told

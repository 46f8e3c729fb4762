"""Whatever comes, a list comes out: what cannot have happened is passed on as it was said."""

from __future__ import annotations

import unicodedata

import pytest

from events_app import merge
from events_app.event import Change
from tests.changes import create, delete, modify, own, rename
from tests.client_tree import Tree

PASSED_ON = {
    "two creates of one id": [create("/a"), create("/b")],
    "a create where something else was created": [create("/a"), create("/a", "2")],
    "a delete of what was deleted": [delete("/a"), delete("/a")],
    "a modify of what was deleted": [delete("/a"), modify("/a")],
    "a rename of what was deleted": [delete("/a"), rename("/a", "/b")],
    "a rename of what was renamed": [rename("/a", "/b"), rename("/a", "/c")],
    "a delete of a deleted folder's child": [delete("/d"), delete("/d/f", "2")],
    "a modify in a deleted folder": [delete("/d"), modify("/d/f", "2")],
    "a create in a deleted folder": [delete("/d"), create("/d/f", "2")],
    "a child of a moved folder by its old path": [rename("/d", "/e"), modify("/d/f", "2")],
    "another id than before": [modify("/a"), modify("/a", "2"), delete("/a", "3")],
    "a rename below itself": [rename("/d", "/d/e")],
    "a rename below itself, two deep": [modify("/d/e/f", "2"), rename("/d", "/d/e/d")],
    "a rename to its own folder's path": [modify("/d", "2"), rename("/d/e", "/d")],
    "an unknown type": [Change("moved", "1", "/a", "/b")],
    "no type": [Change("", "1", "/a")],
    "no path": [create(""), modify(""), rename("", "")],
    "the root": [create("/"), modify("/"), delete("/"), rename("/", "/a"), rename("/a", "/")],
    "paths without a slash before": [modify("a"), rename("a", "b"), delete("b")],
    "paths with a slash behind": [modify("/a/"), delete("/a/b/")],
    "empty segments": [modify("//"), modify("/a//b")],
    "no id": [modify("/a", ""), delete("/a", "2")],
}


@pytest.mark.parametrize("name", PASSED_ON)
def test_what_cannot_have_happened_is_passed_on(name: str) -> None:
    """Some of the rows in their order, and nothing that they do not say."""
    left = iter(PASSED_ON[name])
    folded = merge.fold(PASSED_ON[name])
    assert folded
    assert all(change in left for change in folded)


@pytest.mark.parametrize("name", PASSED_ON)
@pytest.mark.parametrize("number", range(5))
def test_what_cannot_have_happened_never_raises(name: str, number: int) -> None:
    """Also in a second delivery, twice in a row, backwards, or when the watcher did it itself."""
    history = PASSED_ON[name]
    own_rows = [own(row) if index == number else row for index, row in enumerate(history)]
    for run in (history, history * 2, history[::-1], own_rows):
        for then in ([], history):
            for repeated in (False, True):
                folded = merge.fold(run, repeated=repeated, then=then)
                assert not any(change.own for change in folded)


def test_what_is_possible_beside_it_is_folded_all_the_same() -> None:
    """One bad row does not make a long run longer than it need be."""
    bad = [delete("/x", "9"), delete("/x", "9")]
    assert merge.fold([create("/a"), modify("/a"), *bad, create("/b", "2"), modify("/b", "2")]) == [
        create("/a"),
        *bad,
        create("/b", "2"),
    ]


NAMES = [
    "x",
    "\N{COMBINING ACUTE ACCENT}",
    "𝄞",
    "👩‍👩‍👧",
    "\N{RIGHT-TO-LEFT OVERRIDE}x",
    " ",
    "\\",
    "%2F",
    "\ud800",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_any_text(name: str) -> None:
    history = [create(f"/{name}"), rename(f"/{name}", f"/d{name}"), modify(f"/d{name}")]
    assert merge.fold(history) == [create(f"/d{name}")]
    inside = [rename(f"/{name}", "/e"), modify(f"/e/{name}", "2"), rename("/e", f"/{name}")]
    assert merge.fold(inside) == [modify(f"/{name}/{name}", "2")]


def test_names_that_look_alike_are_different_names() -> None:
    composed, decomposed = (unicodedata.normalize(form, "/ä") for form in ("NFC", "NFD"))
    assert composed != decomposed
    history = [create(composed), create(decomposed, "2"), delete(composed)]
    assert merge.fold(history) == [create(decomposed, "2")]
    spelt_out = [rename("/ﬁ", "/fi"), rename("/ß", "/ss", "2")]
    assert merge.fold(spelt_out) == spelt_out
    assert merge.fold([modify("/A"), delete("/a", "2")]) == [modify("/A"), delete("/a", "2")]


@pytest.mark.parametrize("repeated", [False, True])
def test_a_path_may_be_as_long_as_the_journal_takes(*, repeated: bool) -> None:
    long = "/" + "é" * 2047
    assert len(long.encode()) == 4095
    folded = merge.fold([create(long), modify(long)], repeated=repeated)
    assert folded == [create(long)]


DEEP = "/x" * 2000


@pytest.mark.parametrize("repeated", [False, True])
def test_a_path_may_be_as_deep_as_it_likes(*, repeated: bool) -> None:
    history = [
        modify(DEEP),
        rename("/x", "/y", "2"),
        modify(f"/y{DEEP[2:]}"),
        create(f"{DEEP}/z", "3"),
    ]
    assert merge.fold(history, repeated=repeated)
    assert merge.fold([modify(DEEP), own(rename("/x", "/y", "2"))], repeated=repeated) == [
        modify(f"/y{DEEP[2:]}")
    ]


def test_every_folder_of_a_deep_path_may_move() -> None:
    paths = ["/x" * depth for depth in range(1, 301)]
    history = [create(path, str(depth)) for depth, path in enumerate(paths)]
    history += [
        rename(path, path[:-1] + "y", str(depth))
        for depth, path in reversed(list(enumerate(paths)))
    ]
    history = history[:-1]
    after = Tree().apply(merge.fold(history))
    assert after.ids() == Tree().apply(history).ids()


def test_a_chain_of_many_renames_is_one() -> None:
    many = 50_000
    history = [rename(f"/{number}", f"/{number + 1}") for number in range(many)]
    assert merge.fold(history) == [rename("/0", f"/{many}")]


def test_many_that_wait_for_each_other_do_not_end_in_a_recursion() -> None:
    """Each moves to where the next one was, the last one first."""
    many = 20_000
    history = [
        rename(f"/{number}", f"/{number + 1}", str(number)) for number in reversed(range(many))
    ]
    assert merge.fold(history) == history


def test_a_ring_of_many_is_turned() -> None:
    many = 3_000
    history = [
        rename("/0", "/t", "0"),
        *(rename(f"/{number}", f"/{number - 1}", str(number)) for number in range(1, many)),
        rename("/t", f"/{many - 1}", "0"),
    ]
    before = Tree((f"/{number}", str(number)) for number in range(many))
    folded = merge.fold(history)
    assert len(folded) == many + 1
    places = _moved(before, folded)
    assert places == {f"/{(number - 1) % many}": str(number) for number in range(many)}


def _moved(before: Tree, renames: list[Change]) -> dict[str, str]:
    """Apply renames of files only, without a look at what is below."""
    places = before.ids()
    for change in renames:
        assert change.to_path not in places
        places[change.to_path] = places.pop(change.from_path)
    return places

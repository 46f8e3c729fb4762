"""The table *Scope* row by row: what a watcher of `/docs` is told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events_app import event, scope, uri
from events_app.event import Change
from events_app.scope import End, Watcher

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
OTHER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
TEMPLATE = event.Row(
    1, 7, "42", "my", "create", "f", "/a", None, None, None, datetime(2026, 1, 1, tzinfo=UTC), None
)


def row(kind: str, path: str, to_path: str | None = None, **columns: Any) -> event.Row:
    return TEMPLATE._replace(type=kind, from_path=path, to_path=to_path, **columns)


def watcher(path: str = "/docs", client_id: str | None = CLIENT) -> Watcher:
    return Watcher.of("42", client_id, uri.Folder("my", path))


def seen(each: event.Row, path: str = "/docs") -> Change | End | None:
    return scope.view(each, watcher(path))


@pytest.mark.parametrize("kind", ["create", "modify", "delete"])
def test_what_is_below_the_folder_is_told_with_a_relative_path(kind: str) -> None:
    assert seen(row(kind, "/docs/a/b.md")) == Change(kind, "f", "/a/b.md")
    assert seen(row(kind, "/docs/a")) == Change(kind, "f", "/a")


def test_a_rename_inside_is_told_with_both_paths_relative() -> None:
    assert seen(row("rename", "/docs/a", "/docs/d/b")) == Change("rename", "f", "/a", "/d/b")


@pytest.mark.parametrize("path", ["/docs-old/x", "/Docs/x", "/docsx", "/doc", "/x/docs/a", "/DOCS"])
@pytest.mark.parametrize("kind", ["create", "modify", "delete"])
def test_prefixes_are_whole_segments_and_case_sensitive(kind: str, path: str) -> None:
    assert seen(row(kind, path)) is None


def test_a_rename_that_never_touches_the_folder_is_not_told() -> None:
    assert seen(row("rename", "/docs-old/x", "/Docs/x")) is None


def test_a_rename_out_is_the_delete_of_the_old_path() -> None:
    assert seen(row("rename", "/docs/a", "/docs-old/a")) == Change("delete", "f", "/a")


def test_a_rename_in_is_the_create_of_the_new_path() -> None:
    assert seen(row("rename", "/docs-old/a", "/docs/d/a")) == Change("create", "f", "/d/a")


ENDS = [
    row("delete", "/docs/team"),
    row("delete", "/docs"),
    row("rename", "/docs/team", "/elsewhere"),
    row("rename", "/docs", "/elsewhere"),
    row("rename", "/docs/team", "/docs/team/below-itself"),
    row("rename", "/x", "/docs/team"),
    row("rename", "/x", "/docs"),
    row("rename", "/docs/team/a", "/docs/team"),
    row("create", "/docs/team"),
    row("create", "/docs"),
    row("delete", "/docs", client_id=CLIENT),
]


@pytest.mark.parametrize("each", ENDS, ids=lambda each: f"{each.type} {each.from_path}")
def test_what_removes_or_replaces_the_folder_or_one_above_it_is_the_end(each: event.Row) -> None:
    assert seen(each, "/docs/team") is End.ROOT_GONE


@pytest.mark.parametrize(
    "each",
    [
        row("delete", "/docs/team/a"),
        row("delete", "/docs/tea"),
        row("rename", "/docs/team2", "/docs/team3"),
        row("create", "/docs/team/docs"),
        row("delete", "/docs", fs="trash"),
    ],
    ids=lambda each: f"{each.type} {each.from_path}",
)
def test_what_lies_beside_or_below_the_folder_is_not_the_end(each: event.Row) -> None:
    assert not isinstance(seen(each, "/docs/team"), End)


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_a_modify_of_the_folder_itself_or_one_above_it_is_not_told(path: str) -> None:
    assert seen(row("modify", path)) is None


def test_a_rename_to_the_same_path_is_not_told() -> None:
    assert seen(row("rename", "/docs/a", "/docs/a")) is None
    assert seen(row("rename", "/docs", "/docs")) is None


def test_a_watcher_of_the_whole_tree_is_told_every_path_as_it_is() -> None:
    assert seen(row("create", "/docs/a"), "/") == Change("create", "f", "/docs/a")
    assert seen(row("delete", "/docs"), "/") == Change("delete", "f", "/docs")
    assert seen(row("rename", "/a", "/b"), "/") == Change("rename", "f", "/a", "/b")


def test_another_file_system_is_not_told() -> None:
    assert seen(row("create", "/docs/a", fs="trash")) is None


@pytest.mark.parametrize(
    ("columns", "own"),
    [
        ({"client_id": CLIENT}, True),
        ({"client_id": CLIENT, "actor_id": "42"}, True),
        ({"client_id": CLIENT, "actor_id": "7"}, False),
        ({"client_id": OTHER}, False),
        ({"client_id": OTHER, "actor_id": "42"}, False),
        ({"client_id": None}, False),
        ({"client_id": None, "actor_id": "42"}, False),
    ],
)
def test_own_is_what_this_client_of_this_actor_did(columns: dict[str, Any], *, own: bool) -> None:
    """Nobody hides a change from another's client by stamping its id on the row."""
    for each in (
        row("modify", "/docs/a", **columns),
        row("rename", "/docs/a", "/docs/b", **columns),
        row("rename", "/docs/a", "/b", **columns),
        row("rename", "/a", "/docs/b", **columns),
    ):
        found = seen(each)
        assert isinstance(found, Change)
        assert found.own == own


def test_without_a_client_id_nothing_is_own() -> None:
    nameless = watcher(client_id=None)
    found = scope.view(row("modify", "/docs/a", client_id=None), nameless)
    assert found == Change("modify", "f", "/a", own=False)


def test_who_watch_the_same_folder_share_what_is_known_of_it_and_take_it_along() -> None:
    """Anybody may ask for a thousand folders, each with half a megabyte of folders above it."""
    before = len(scope._roots)
    first, second = watcher("/watched once"), watcher("/watched once", None)
    assert first.root is second.root
    assert len(scope._roots) == before + 1
    del first, second
    assert len(scope._roots) == before


def test_a_row_that_could_not_be_read_is_the_end_wherever_it_was() -> None:
    """Nobody knows what it said: it may have been about this folder."""
    assert seen(row("create", "", rejected="from_path is empty")) is End.ROW_REJECTED
    assert seen(row("create", "/x", fs="?", rejected="no")) is End.ROW_REJECTED


def test_a_retrys_second_row_is_not_told_and_ends_nothing() -> None:
    assert seen(row("delete", "/docs", rejected=event.DUPLICATE)) is None


NAMES = st.lists(st.sampled_from(["a", "b", "A", "..."]), max_size=3).map(
    lambda names: "/" + "/".join(names)
)


@given(st.sampled_from(event.TYPES), NAMES, NAMES, NAMES)
def test_a_told_path_is_never_the_root_and_always_below_the_folder(
    kind: str, path: str, to_path: str, folder: str
) -> None:
    """A client that deletes by path would take `/` for the order to wipe its local root."""
    found = seen(row(kind, path, to_path if kind == "rename" else None), folder)
    if isinstance(found, Change):
        told = [found.from_path, *([found.to_path] if found.type == "rename" else [])]
        for each in told:
            assert each.startswith("/")
            assert each != "/"
            assert folder.rstrip("/") + each in {path, to_path}
        assert (found.to_path == "") == (found.type != "rename")

"""The page about merging says what is so: its pictures are run, and so is the naive way in them."""

from __future__ import annotations

import itertools
import re

import pytest

from events_app import merge
from events_app.event import Change
from tests.client_tree import Tree
from tests.databases import ROOT

PAGE = (ROOT / "docs/explanation/merging.md").read_text()
Picture = dict[str, list[str]]

_OWN = " (own)"
_NOTHING = "(nothing)"


def _columns(block: str) -> Picture:
    """Read a table whose columns begin where the words of its head do."""
    head, *lines = block.splitlines()
    starts = [found.start() for found in re.finditer(r"\S+(?: \S+)*", head)]
    spans = [slice(*each) for each in itertools.pairwise([*starts, None])]
    return {
        head[span].strip(): [cell for line in lines if (cell := line[span].strip())]
        for span in spans
    }


_BLOCK = re.compile(r"^```fold\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURES = [_columns(block) for block in _BLOCK.findall(PAGE)]
WITH_TREES = [picture for picture in PICTURES if "after" in picture]


def _name(picture: Picture) -> str:
    return " + ".join(picture.get("rows") or picture["rows, again"])


def _change(text: str) -> Change:
    own = text.endswith(_OWN)
    kind, file_id, *paths = text.removesuffix(_OWN).split(" ")
    from_path, to_path = paths if len(paths) > 1 else (*paths, "")
    return Change(kind, file_id, from_path, to_path, own=own)


def _changes(cells: list[str]) -> list[Change]:
    return [_change(cell) for cell in cells if cell != _NOTHING]


def _tree(cells: list[str], *, strict: bool = True) -> Tree:
    entries = (cell.split(" ") for cell in cells if cell != _NOTHING)
    return Tree(((path, file_id) for path, file_id in entries), strict=strict)


def naive(rows: list[Change], *, at_the_last: bool) -> list[Change]:
    """Merge each file for itself, and say it where its first row stood or its last one."""
    words: dict[str, Change] = {}
    for row in rows:
        was = words.get(row.file_id)
        now = _joined(was, row) if was else row
        if now is None or at_the_last:
            words.pop(row.file_id, None)
        if now is not None:
            words[row.file_id] = now
    return list(words.values())


def _joined(was: Change, row: Change) -> Change | None:
    if was.type == "create":
        gone = row.type == "delete"
        return None if gone else was._replace(from_path=row.to_path or row.from_path)
    if was.type == row.type == "rename":
        return None if was.from_path == row.to_path else was._replace(to_path=row.to_path)
    return row


@pytest.mark.parametrize("picture", PICTURES, ids=_name)
def test_what_is_sent_in_a_picture_is_what_the_fold_makes(picture: Picture) -> None:
    again = "rows, again" in picture
    rows = _changes(picture["rows, again" if again else "rows"])
    assert merge.fold(rows, repeated=again) == _changes(picture["sent"])


@pytest.mark.parametrize("picture", WITH_TREES, ids=_name)
def test_the_trees_in_a_picture_are_those_before_and_after(picture: Picture) -> None:
    """The client's ends as the server's, whether it is told for the first time or again."""
    again = "rows, again" in picture
    rows = _changes(picture["rows, again" if again else "rows"])
    after = _tree(picture["after"]).ids()
    assert _tree(picture["before"], strict=False).apply(rows).ids() == after
    client = _tree(picture["before"]).apply(row for row in rows if row.own)
    client.strict = False
    for _ in range(2 if again else 1):
        client.apply(_changes(picture["sent"]))
        assert client.ids() == after


@pytest.mark.parametrize(("order", "at_the_last"), [("naive, first", False), ("naive, last", True)])
def test_the_naive_way_does_the_harm_that_is_shown(order: str, *, at_the_last: bool) -> None:
    shown = [picture for picture in PICTURES if order in picture]
    assert shown
    for picture in shown:
        rows = _changes(picture["rows"])
        sent = naive(rows, at_the_last=at_the_last)
        assert sent == _changes(picture[order])
        assert not _leads_there(picture, sent, rows)
        assert _leads_there(picture, merge.fold(rows), rows)


def _leads_there(picture: Picture, sent: list[Change], rows: list[Change]) -> bool:
    server = _tree(picture["before"]).apply(rows)
    try:
        client = _tree(picture["before"]).apply(sent)
    except AssertionError:  # a step names what is not there
        return False
    return client.ids() == server.ids() and server.dirty() <= client.dirty()

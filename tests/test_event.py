"""Cursors say epoch, place and watcher, and nothing that is not a cursor is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from events_app import event
from events_app.event import Cursor, Point
from events_app.uri import Folder

DOCS = Folder("my", "/docs")
CANONICAL = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"

CURSORS = st.builds(
    Cursor,
    st.integers(0, 2**64 - 1),
    st.builds(Point, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)),
    st.binary(min_size=8, max_size=8),
    st.booleans(),
)


@given(CURSORS)
def test_a_cursor_is_read_back_as_it_was_written(cursor: Cursor) -> None:
    text = cursor.text()
    assert Cursor.parse(text) == cursor
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()


def test_the_text_of_a_cursor_is_stable_across_releases() -> None:
    """Clients keep cursors for weeks: what they hold must stay readable."""
    cursor = Cursor(1_700_000_000, Point(258, 0xDEADBEEF), b"abcdefgh")
    assert cursor.text() == "AQAAAABlU_EAAAAAAAAAAQLerb7vYWJjZGVmZ2g"


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
@example("")
@example("=")
@example("A" * 39)
@example("AQ" + "A" * 37 + "=")
@example("é" * 39)
def test_any_text_that_is_no_cursor_is_none(text: str) -> None:
    found = Cursor.parse(text)
    assert found is None or Cursor.parse(found.text()) == found


def test_a_cursor_of_another_version_is_none() -> None:
    text = Cursor(1, Point(2, 3), b"abcdefgh").text()
    assert Cursor.parse(text) is not None
    assert Cursor.parse("Aw" + text[2:]) is None


@pytest.mark.parametrize(
    ("user", "folder"),
    [
        ("43", DOCS),
        ("42", Folder("my", "/docs/a")),
        ("42", Folder("other", "/docs")),
        ("4", Folder("2my", "/docs")),
    ],
)
def test_a_cursor_of_another_user_or_folder_differs(user: str, folder: Folder) -> None:
    mine = Cursor.at(1, Point(2, 3), "42", DOCS)
    assert Cursor.at(1, Point(2, 3), user, folder).watcher != mine.watcher


def test_a_fresh_cursor_differs_from_every_epoch_that_a_journal_can_have() -> None:
    """Epochs begin at the time of the migration, so 0 is never one."""
    cursor = Cursor.at(1_700_000_000, Point(2, 3), "42", DOCS)
    assert cursor.fresh() == cursor._replace(epoch=0)


@pytest.mark.parametrize(
    "text",
    [
        CANONICAL,
        CANONICAL.upper(),
        CANONICAL.replace("-", ""),
        CANONICAL.replace("-", "").upper(),
        f"{{{CANONICAL}}}",
        f"urn:uuid:{CANONICAL}",
        f"URN:UUID:{CANONICAL.upper()}",
    ],
)
def test_a_uuid_in_any_of_its_forms_is_one_client(text: str) -> None:
    assert event.canonical_client_id(text) == CANONICAL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "laptop",
        CANONICAL[:-1],
        CANONICAL + "0",
        f"{{{CANONICAL}",
        f"{CANONICAL}\n",
        f" {CANONICAL}",
        "0x" + CANONICAL.replace("-", "")[2:],
        "0_0" + CANONICAL.replace("-", "")[3:],
        "-" + CANONICAL.replace("-", "") + "-",
        "\u0660" + CANONICAL.replace("-", "")[1:],
        CANONICAL[:-1] + "g",
    ],
)
def test_what_is_no_uuid_is_none(text: str) -> None:
    """Python's own parser takes most of these."""
    assert event.canonical_client_id(text) is None

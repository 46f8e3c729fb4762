"""What only looks odd is cleaned; what cannot be told is journalled with the reason."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events_app import intake, uri

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
CREATED = datetime(2026, 1, 2, 3, 4, 4, 0, UTC)
CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"

GOOD: dict[str, Any] = {
    "user_id": "42",
    "type": "create",
    "file_id": "f9",
    "fs": "my",
    "from_path": "/docs/plan.md",
    "to_path": None,
    "is_folder": 0,
    "client_id": None,
    "actor_id": None,
    "event_key": None,
    "meta": None,
    "created_at": CREATED,
}
RENAME = {"type": "rename", "to_path": "/b"}


def clean(**changed: Any) -> dict[str, Any]:
    return intake.clean(GOOD | changed, NOW)


def test_a_good_row_passes_as_it_is() -> None:
    assert clean() == GOOD | {"rejected": None}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("/a//b", "/a/b"),
        ("//a", "/a"),
        ("/a/", "/a"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a"),
        ("/.hidden", "/.hidden"),
        ("/a/..b", "/a/..b"),
        ("/a/b..", "/a/b.."),
        ("/...", "/..."),
        ("/a b%20#?", "/a b%20#?"),
        ("/\u2028\U0001f600", "/\u2028\U0001f600"),
    ],
)
def test_a_path_that_only_looks_odd_is_cleaned(written: str, kept: str) -> None:
    assert clean(from_path=written)["from_path"] == kept
    renamed = clean(**RENAME | {"to_path": written})
    assert (renamed["to_path"], renamed["rejected"]) == (kept, None)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"from_path": "docs/a"}, "from_path does not start with /"),
        ({"from_path": "/a/../b"}, "from_path has a .. segment"),
        ({"from_path": "/.."}, "from_path has a .. segment"),
        ({"from_path": "/"}, "from_path is the root"),
        ({"from_path": "/./"}, "from_path is the root"),
        ({"from_path": ""}, "from_path is empty"),
        ({"from_path": "/a\0b"}, "from_path holds a NUL"),
        ({"from_path": "/é\0"}, "from_path holds a NUL"),
        ({"from_path": "/\udcff"}, "from_path is not valid UTF-8"),
        ({"from_path": b"/a"}, "from_path is bytes"),
        ({"from_path": "/" + "a" * 4096}, "from_path is longer than 4096"),
        ({"from_path": "/" + "é" * 2048}, "from_path is longer than 4096 bytes"),
        (RENAME | {"to_path": "b"}, "to_path does not start with /"),
        (RENAME | {"to_path": "/"}, "to_path is the root"),
        (RENAME | {"to_path": None}, "a rename needs to_path"),
        (RENAME | {"to_path": ""}, "a rename needs to_path"),
        ({"to_path": "/b"}, "to_path is for renames only"),
        ({"type": "moved"}, "type 'moved' is not one of"),
        ({"type": "Create"}, "type 'Create' is not one of"),
        ({"user_id": ""}, "user_id is empty"),
        ({"user_id": None}, "user_id is NoneType"),
        ({"user_id": "x" * 65}, "user_id is longer than 64"),
        ({"file_id": 9}, "file_id is int"),
        ({"fs": "x" * 33}, "fs is longer than 32"),
        ({"actor_id": "x" * 65}, "actor_id is longer than 64"),
        ({"event_key": "x" * 129}, "event_key is longer than 128"),
        ({"meta": b"{}"}, "meta is bytes"),
        ({"meta": "\udcff"}, "meta is not valid UTF-8"),
    ],
)
def test_a_row_that_cannot_be_told_is_rejected_with_the_reason(
    columns: dict[str, Any], reason: str
) -> None:
    found = clean(**columns)
    assert found["rejected"].startswith(reason)
    assert len(found["rejected"]) <= 255
    assert found["event_key"] is None, "its retry may be a good row"


@pytest.mark.parametrize(
    ("columns", "column", "kept"),
    [
        ({"from_path": "/" + "é" * 2047 + "a"}, "from_path", "/" + "é" * 2047 + "a"),
        ({"client_id": CLIENT.upper()}, "client_id", CLIENT),
        ({"client_id": CLIENT.replace("-", "")}, "client_id", CLIENT),
        ({"client_id": "laptop"}, "client_id", None),
        ({"client_id": "x" * 500}, "client_id", None),
        ({"client_id": ""}, "client_id", None),
        ({"actor_id": ""}, "actor_id", None),
        ({"event_key": ""}, "event_key", None),
        ({"to_path": ""}, "to_path", None),
        ({"is_folder": 1}, "is_folder", 1),
        ({"is_folder": 7}, "is_folder", 1),
        ({"is_folder": None}, "is_folder", 0),
        ({"created_at": None}, "created_at", NOW),
        ({"meta": '{"size": 1}'}, "meta", '{"size": 1}'),
        ({"meta": "[" + "0," * 5_000 + "0]"}, "meta", "[" + "0," * 5_000 + "0]"),
    ],
)
def test_odd_columns_are_kept_or_cleaned(columns: dict[str, Any], column: str, kept: Any) -> None:
    found = clean(**columns)
    assert (found[column], found["rejected"]) == (kept, None)


@pytest.mark.parametrize(
    ("columns", "column", "kept"),
    [
        ({"from_path": "/" + "é" * 2048}, "from_path", "/" + "é" * 2047),
        ({"from_path": "a\0b"}, "from_path", "a\N{REPLACEMENT CHARACTER}b"),
        ({"from_path": b"/\xff"}, "from_path", "/\N{REPLACEMENT CHARACTER}"),
        ({"from_path": "/\udcff"}, "from_path", "/?"),
        ({"user_id": "x" * 65}, "user_id", "x" * 64),
        ({"file_id": None}, "file_id", ""),
        ({"type": "moved", "meta": b"\xff"}, "meta", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_of_a_rejected_row_is_kept_what_can_be(
    columns: dict[str, Any], column: str, kept: Any
) -> None:
    found = clean(**columns)
    assert found["rejected"]
    assert found[column] == kept


ANYTHING = st.none() | st.text(max_size=300) | st.binary(max_size=300) | st.integers() | st.floats()


@given(st.fixed_dictionaries({name: ANYTHING for name in GOOD if name != "created_at"}))
def test_whatever_a_row_holds_comes_out_as_something_that_can_be_stored(
    raw: dict[str, Any],
) -> None:
    """Total: no exception, and no value that a database refuses."""
    found = intake.clean(raw | {"created_at": None}, NOW)
    for name, most in intake.LENGTHS.items():
        assert found[name] is None or len(found[name]) <= most
    for name in ("from_path", "to_path"):
        assert found[name] is None or len(found[name].encode()) <= uri.MAX_PATH_BYTES
    texts = [value for value in found.values() if isinstance(value, str)]
    assert all(text.encode() and "\0" not in text for text in texts if text)
    assert found["is_folder"] in {0, 1}
    assert all(found[name] is not None for name in intake.REQUIRED)
    json.dumps(found["rejected"])


PATHS = st.lists(st.sampled_from(["/", "/", ".", "..", "a", "...", "ä", "\0", "\n"]), max_size=9)


@given(PATHS.map("".join))
def test_what_fits_the_pattern_of_a_path_is_what_is_accepted(path: str) -> None:
    rejected = clean(from_path=path)["rejected"]
    assert (rejected is None) == bool(re.fullmatch(intake.PATH_PATTERN, path)), rejected

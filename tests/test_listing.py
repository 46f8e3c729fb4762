"""Rows for a person and for a program."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from events_app import listing
from events_app.listing import Value

WHEN = datetime(2026, 11, 22, 3, 4, 5, 678_901, UTC)
ROWS: list[dict[str, Value]] = [
    {"user": "42", "path": "/docs", "behind": 7, "since": WHEN},
    {"user": "a longer one", "path": "/", "behind": None, "since": None},
]


def test_a_table_has_a_head_and_columns_as_wide_as_they_must_be() -> None:
    assert list(listing.table(ROWS)) == [
        "user          path   behind  since",
        "42            /docs  7       2026-11-22 03:04:05",
        "a longer one  /      -       -",
    ]


def test_no_rows_are_no_table() -> None:
    assert list(listing.table([])) == []


def test_a_name_cannot_write_over_the_terminal() -> None:
    names = ["/\x1b[2J", "/a\nb", "/\u202egpj.exe", "/\udcff", "/né 名"]
    lines = list(listing.table([{"path": name} for name in names]))
    assert lines == ["path", "/\\x1b[2J", "/a\\nb", "/\\u202egpj.exe", "/\\udcff", "/né 名"]


def test_lines_of_json_are_one_object_each_in_ascii() -> None:
    rows: list[dict[str, Value]] = [*ROWS, {"path": "/né\n\udcff"}]
    lines = list(listing.json_lines(rows))
    assert all(line.isascii() and "\n" not in line for line in lines)
    assert [json.loads(line) for line in lines] == [
        {"user": "42", "path": "/docs", "behind": 7, "since": "2026-11-22T03:04:05.678901+00:00"},
        {"user": "a longer one", "path": "/", "behind": None, "since": None},
        {"path": "/né\n\udcff"},
    ]

"""Rows for a person, as a table, or for a program, as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

Value = str | int | datetime | None


def table(rows: Sequence[Mapping[str, Value]]) -> Iterator[str]:
    """Write a line for the head and one for each row; nothing for no rows. Times are UTC."""
    if not rows:
        return
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        yield "  ".join(padded).rstrip()


def json_lines(rows: Sequence[Mapping[str, Value]]) -> Iterator[str]:
    """Write one JSON object for each row, in ASCII; times as in RFC 3339."""
    return (json.dumps(row, default=datetime.isoformat) for row in rows)


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    # The names are other people's: one that moves the cursor would rewrite what stands above it.
    return "".join(each if each.isprintable() else _escaped(each) for each in str(value))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()

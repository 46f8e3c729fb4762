"""Rows for a person, as a table, or for a program, as lines of JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain

Value = str | int | datetime | None
Line = Mapping[str, Value]

# What a spreadsheet takes for the beginning of a formula, or drops before one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table(rows: Sequence[Line]) -> Iterator[str]:
    """Write a line for the head and one for each row; nothing for no rows. Times are UTC."""
    return tables([rows])


def tables(pages: Iterable[Sequence[Line]]) -> Iterator[str]:
    """Write pages of rows below one head, in no more memory than a page takes.

    A later page with a longer value has wider columns.
    """
    widths: list[int] = []
    for rows in pages:
        lines = [[_cell(value) for value in row.values()] for row in rows]
        if rows and not widths:
            lines.insert(0, list(rows[0]))
            widths = [0] * len(rows[0])
        for line in lines:
            widths = list(map(max, widths, map(len, line)))
        for line in lines:
            padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            yield "  ".join(padded).rstrip()


def json_lines(rows: Iterable[Line]) -> Iterator[str]:
    """Write one JSON object for each row, in ASCII; times as in RFC 3339."""
    return (json.dumps(row, default=datetime.isoformat) for row in rows)


def pages_of_json(pages: Iterable[Sequence[Line]]) -> Iterator[str]:
    """Write one JSON object for each row of each page."""
    return json_lines(chain.from_iterable(pages))


def comma_separated(pages: Iterable[Sequence[Line]]) -> Iterator[str]:
    """Write CSV as in RFC 4180, the head first; nothing for no rows. Times as in RFC 3339.

    The names are other people's, and this opens in spreadsheets: an apostrophe stands before what
    would be a formula there.
    """
    head: list[str] = []
    for row in chain.from_iterable(pages):
        if not head:
            head = list(row)
            yield _comma_separated(head)
        yield _comma_separated([_harmless(value) for value in row.values()])


def _comma_separated(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _harmless(value: Value) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    # The names are other people's: one that moves the cursor would rewrite what stands above it.
    return "".join(each if each.isprintable() else _escaped(each) for each in str(value))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()

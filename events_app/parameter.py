"""A parameter of a door, said once: how its text is read, and how the document tells it.

Rules
    `schema` is what `read` takes, no less and, where JSON Schema can say it, no more. An empty text
    counts as none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from flask import request

from events_app import errors, moment

Schema = Mapping[str, Any]
T = TypeVar("T")
W = TypeVar("W", bound=str)
D = TypeVar("D")

# RFC 8259, section 6: what programs make of a number, infinities excluded.
_JSON_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parameter(Generic[T]):
    """A query parameter, or the header that it stands in for where no header can be set.

    `read` makes the value of a text that is not empty, and raises ValueError with the reason.
    `default` is the value where nothing is said.
    """

    name: str
    schema: Schema
    meaning: str
    read: Callable[[str], T]
    default: T
    header: str | None = None
    example: str | None = None

    def asked(self) -> T:
        """Return the value in the present request; raises `BadParameter`.

        A header wins, but what is wrong is wrong beside it too.
        """
        in_query = self.value_of(text_of(self.name))
        # A server joins headers of one name by commas, and with one nothing is a value of ours.
        in_header = self.header and request.headers.get(self.header)
        return self.value_of(in_header) if in_header else in_query

    def asked_by_header(self) -> T:
        """Do the same where the query does not count."""
        return self.value_of(request.headers.get(self.header or self.name))

    def value_of(self, text: str | None) -> T:
        """Return the value of `text`; raises `BadParameter`."""
        if not text:
            return self.default
        try:
            return self.read(text)
        except ValueError as error:
            reason = f"{self.name.replace('_', ' ')}: {error}"
            raise errors.BadParameter(reason) from error


def text_of(name: str) -> str | None:
    """Return a query parameter; two of one name leave open which one counts."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise errors.BadParameter(f"{name}: it is given {len(values)} times")
    return values[0] if values else None


def whole_number(name: str, least: int, most: int, default: D, meaning: str) -> Parameter[int | D]:
    """Make one for a whole number from `least` to `most`."""

    def read(text: str) -> int:
        # Of ASCII digits: Python also takes other scripts', spaces and underscores.
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not is_number or not least <= int(text) <= most:
            raise ValueError(f"it is a whole number from {least} to {most}")
        return int(text)

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Parameter(name, schema, meaning, read, default)


def seconds(name: str, most: int, meaning: str) -> Parameter[float]:
    """Make one for seconds from 0, which is the default, to `most`."""

    def read(text: str) -> float:
        if not _JSON_NUMBER.fullmatch(text) or not 0 <= float(text) <= most:
            raise ValueError(f"it is a number of seconds from 0 to {most}, fractions allowed")
        return float(text)

    schema = {"type": "number", "minimum": 0, "maximum": most}
    return Parameter(name, schema, meaning, read, 0)


def word(name: str, words: tuple[W, ...], default: D, meaning: str) -> Parameter[W | D]:
    """Make one for one of `words`."""

    def read(text: str) -> W:
        for each in words:
            if each == text:
                return each
        raise ValueError(f"it is one of {', '.join(words)}")

    schema = {"type": "string", "enum": list(words)}
    return Parameter(name, schema, meaning, read, default)


def time(name: str, meaning: str) -> Parameter[datetime | None]:
    """Make one for a moment."""
    schema = {"type": "string", "pattern": moment.PATTERN}
    return Parameter(name, schema, meaning, moment.parse, None, example="2026-11-20T00:00:00Z")

"""A moment and an age as people and programs write them. Pure: what time it is now is not here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

# RFC 3339, section 5.6: a space may stand for the T; the offset may not be left out.
_RFC_3339 = re.compile(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]"
    r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
# Both, in words that every dialect of patterns has.
PATTERN = f"^({_RFC_3339.pattern}|{_EPOCH.pattern})$"
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_AGE = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

# What every engine and Python can say in any time zone, from the first second that Unix knows.
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 30, tzinfo=UTC)
OLDEST = timedelta(days=36_525)


def parse(text: str) -> datetime:
    """Read RFC 3339 or seconds since 1970; raises ValueError that says what is wrong."""
    if _EPOCH.fullmatch(text):
        seconds = float(text)
        if seconds > (LAST - FIRST).total_seconds():
            raise ValueError("it is after the year 9999")
        return FIRST + timedelta(seconds=seconds)
    if not _RFC_3339.fullmatch(text):
        raise ValueError(
            "it is neither RFC 3339 (2026-11-22T03:04:05Z; in a query, + is written %2B) "
            "nor seconds since 1970"
        )
    try:
        found = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("there is no such date or time") from error
    if not FIRST <= found <= LAST:
        raise ValueError("it is before 1970 or after 9999")
    return found


def parse_day(text: str) -> datetime:
    """Read a moment, or a day, which begins at midnight UTC; raises ValueError."""
    return parse(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)


def parse_age(text: str) -> float:
    """Read an age such as 90d or 12h in seconds; raises ValueError."""
    found = _AGE.fullmatch(text)
    if not found or int(found[1]) == 0:
        raise ValueError("it is a number above 0 and a unit of s, m, h, d, w: 90d")
    age = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if age > OLDEST:
        raise ValueError("it is more than a hundred years")
    return age.total_seconds()


def written(moment: datetime) -> str:
    """Write a moment in RFC 3339, in UTC with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

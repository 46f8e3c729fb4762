"""Moments and ages as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from events_app import moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T03:04:05Z", datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)),
        ("2026-11-22t03:04:05z", datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)),
        ("2026-11-22 03:04:05.25+01:00", datetime(2026, 11, 22, 2, 4, 5, 250_000, tzinfo=UTC)),
        ("2026-11-22T03:04:05.1234567Z", datetime(2026, 11, 22, 3, 4, 5, 123_456, tzinfo=UTC)),
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1795316645.5", datetime(2026, 11, 22, 3, 4, 5, 500_000, tzinfo=UTC)),
    ],
)
def test_a_moment_is_rfc_3339_or_seconds(text: str, expected: datetime) -> None:
    assert moment.parse(text) == expected
    assert moment.parse(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026-11-22", "2026-11-22T03:04:05", "2026-11-22T03:04Z", "20261122T030405Z"),
        *("2026-02-30T00:00:00Z", "2026-11-22T24:00:01Z", "2026-11-22T03:04:05 01:00"),
        *("1969-12-31T23:59:59Z", "9999-12-31T00:00:00Z", "9999-12-31T23:59:59-01:00"),
        *(
            "0001-01-01T00:00:00+01:00",
            "-1",
            "1e9",
            "nan",
            "inf",
            "999999999999",
            "\N{FULLWIDTH DIGIT ONE}",
            "1" * 5_000,
        ),
    ],
)
def test_everything_else_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r"it is|no such"):
        moment.parse(text)


def test_a_day_begins_at_midnight_utc() -> None:
    assert moment.parse_day("2026-11-22") == datetime(2026, 11, 22, tzinfo=UTC)
    assert moment.parse_day("0") == moment.FIRST
    with pytest.raises(ValueError, match="no such"):
        moment.parse_day("2026-11-31")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000), ("2w", 1_209_600)],
)
def test_an_age_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert moment.parse_age(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "d", "0d", "-1d", "1.5h", "1 d", "1y", "90D", "999999w"]
)
def test_everything_else_is_no_age(text: str) -> None:
    with pytest.raises(ValueError, match="it is"):
        moment.parse_age(text)


def test_a_moment_is_written_in_utc_as_it_is_read() -> None:
    text = "2026-11-22T03:04:05.000006Z"
    assert moment.written(moment.parse(text)) == text
    assert moment.written(moment.parse("2026-11-22T04:04:05.000006+01:00")) == text

"""Each kind of setting takes what it says it allows, and nothing else."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events_app import kinds
from events_app.kinds import Kind

ALL = [value for value in vars(kinds).values() if isinstance(value, Kind)] + [
    kinds.count(0),
    kinds.one_of("array", "object"),
]
HUNDRED = kinds.count(1, 100)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.DELAY, "0", 0.0),
        (kinds.DELAY, "0.25", 0.25),
        (kinds.DELAY, ".5", 0.5),
        (kinds.DELAY, "5.", 5.0),
        (kinds.DELAY, "86400", 86_400.0),
        (kinds.TIMER, "0.001", 0.001),
        (kinds.AGE, "3153600000", 3_153_600_000.0),
        (HUNDRED, "1", 1),
        (HUNDRED, "0100", 100),
        (kinds.SWITCH, "TRUE", True),
        (kinds.SWITCH, "on", True),
        (kinds.SWITCH, "1", True),
        (kinds.SWITCH, "False", False),
        (kinds.SWITCH, "no", False),
        (kinds.SWITCH, "0", False),
        (kinds.TEXT, "a b é", "a b é"),
        (kinds.SECRET, "x" * 32, "x" * 32),
        (kinds.SECRET, "é" * 16, "é" * 16),
        (kinds.ALGORITHM, "hs256", "HS256"),
        (kinds.ALGORITHM, "eddsa", "EdDSA"),
        (kinds.SCHEME, "CloudReve", "cloudreve"),
        (kinds.SCHEME, "a1+.-", "a1+.-"),
        (kinds.WEB_ADDRESS, "https://id.example/keys", "https://id.example/keys"),
        (kinds.WEB_ADDRESS, "http://127.0.0.1:1/k?a=b", "http://127.0.0.1:1/k?a=b"),
        (kinds.LISTEN_URL, "postgresql://h/d", "postgresql+psycopg://h/d"),
    ],
)
def test_an_allowed_text_becomes_its_value(kind: Kind, text: str, value: object) -> None:
    parsed = kind.parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


NO_SECONDS = ["", "-1", "+1", "nan", "inf", "1e3", "1_0", "0x1", "5s", "1,5", ".", "٣", "9" * 400]
NO_ORIGINS = [
    *["*", "null", "https://*.example", "https://a.example/", "https://a.example/x", "a.example"],
    *["https://", "https://a.example:", "https://a.example:0", "https://a.example:65536"],
    *["https://u:p@a.example", "https://a.example?x", "https://bücher.example"],
    *["https://a.example https://b.example", "https://a.example, *"],
]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *[(kinds.DELAY, text) for text in (*NO_SECONDS, "86400.1")],
        *[(kinds.TIMER, text) for text in (*NO_SECONDS, "0", "0.0009", "86401")],
        *[(kinds.AGE, text) for text in (*NO_SECONDS, "0", "3153600001")],
        *[(HUNDRED, text) for text in (*NO_SECONDS, "0", "101", "1.0", "9" * 5000)],
        *[(kinds.SWITCH, text) for text in ("", "2", "y", "enabled")],
        *[(kinds.TEXT, text) for text in ("a\nb", "a\0b", "a\ud800b", "\x1b[2J")],
        *[(kinds.SECRET, text) for text in ("x" * 31, "é" * 15, "\ud800" * 32)],
        *[(kinds.ALGORITHM, text) for text in ("none", "NONE", "", "HS1", "PS256", "HS256 RS256")],
        *[(kinds.SCHEME, text) for text in ("1a", "a_b", "é", "cloudreve://", "a b", "a\n")],
        *[(kinds.WEB_ADDRESS, text) for text in ("file:///k", "https://", "id.example", "https:x")],
        *[(kinds.LISTEN_URL, text) for text in ("mysql://h/d", "sqlite:///x", "postgresqlx://h")],
        *[(kinds.ORIGINS, text) for text in NO_ORIGINS],
    ],
)
def test_anything_else_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        kind.parse(text)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://a.example", ("https://a.example",)),
        ("HTTPS://A.Example:443", ("https://a.example",)),
        (
            "http://a.example:80, http://a.example:8080",
            ("http://a.example", "http://a.example:8080"),
        ),
        ("https://b.example,,https://a.example ,", ("https://b.example", "https://a.example")),
        ("https://a.example,https://A.example:443", ("https://a.example",)),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
        ("https://xn--bcher-kva.example", ("https://xn--bcher-kva.example",)),
        (",", ()),
    ],
)
def test_origins_are_written_as_browsers_write_them(text: str, origins: tuple[str, ...]) -> None:
    assert kinds.ORIGINS.parse(text) == origins


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgresql://u:p@h:1/d", "postgresql+psycopg://u:p@h:1/d"),
        ("postgresql+psycopg://h/d?sslmode=require", "postgresql+psycopg://h/d?sslmode=require"),
        ("PostgreSQL:///d", "postgresql+psycopg:///d"),
        ("mysql://h/d", "mysql+pymysql://h/d"),
        ("mysql+pymysql://h/d", "mysql+pymysql://h/d"),
        ("mariadb://h/d", "mariadb+pymysql://h/d"),
        ("sqlite:///var/events.db", "sqlite:///var/events.db"),
        ("sqlite+pysqlite:////srv/events.db", "sqlite:////srv/events.db"),
    ],
)
def test_a_database_url_names_the_driver_that_cooperates(text: str, url: str) -> None:
    assert kinds.DATABASE_URL.parse(text) == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("postgresql+psycopg2://h/d", "psycopg2 is refused: it blocks the worker's event loop"),
        ("mysql+mysqldb://h/d", "mysqldb is refused: it blocks the worker's event loop"),
        ("mariadb+mysqlclient://h/d", "mysqlclient is refused: it blocks the worker's event loop"),
        ("sqlite+aiosqlite:///x", "aiosqlite is refused: it needs asyncio"),
        ("postgresql+asyncpg://h/d", "asyncpg is refused: it needs asyncio"),
        ("postgresql+pg8000://h/d", "pg8000 is refused: nobody has shown"),
        ("mysql+psycopg://h/d", "psycopg is refused: nobody has shown"),
        ("sqlite://", "three slashes"),
        ("sqlite://var/events.db", "three slashes"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///:memory:?cache=shared", "in memory"),
        ("oracle://h/d", "supported"),
        ("postgres://h/d", "supported"),
        ("postgresql:h/d", "supported"),
        ("postgresql+psycopg:app:pw@h://d", "supported"),
        ("host=h dbname=d", "supported"),
        ("var/events.db", "supported"),
        ("postgresql://h/d\n", "printed"),
    ],
)
def test_another_driver_or_database_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        kinds.DATABASE_URL.parse(text)


def refusal(kind: Kind, text: str) -> str:
    """Return the reason why `text` is refused, or nothing."""
    try:
        kind.parse(text)
    except ValueError as reason:
        return str(reason)
    return ""


@hypothesis.settings(deadline=None)
@given(
    st.sampled_from(ALL), st.text() | st.from_regex(r"[a-z]{1,9}(\+[a-z]+)?://.*", fullmatch=True)
)
def test_a_reason_never_quotes_the_text(kind: Kind, text: str) -> None:
    assert "hunter2" not in refusal(kind, text + "hunter2")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_what_is_allowed_fits_into_a_line_of_a_table(kind: Any) -> None:
    assert kind.allowed.isprintable()
    assert "|" not in kind.allowed

"""What the text of a setting may be: one `Kind` each, from text to value.

A kind's `parse` raises ValueError with a reason. A text may be a secret or hold one, so the reason
quotes nothing of it but a driver's name; what to print of it is the business of `settings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Number = TypeVar("Number", int, float)

# RFC 7518 section 3.2: an HMAC key is at least as long as the hash's output.
SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
SHORTEST_SECRET_BYTES = min(SECRET_BYTES.values())
ALGORITHMS = (
    *SECRET_BYTES,
    *("RS256", "RS384", "RS512"),
    *("ES256", "ES384", "ES512"),
    "EdDSA",
)

# Timers of a running process: nobody means more than a day. Ages go up to a hundred years, which
# every database's timestamps can be moved back by.
DAY_SECONDS = 86_400
CENTURY_SECONDS = 3_153_600_000

# No loop of the process turns faster than this.
SHORTEST_TIMER_SECONDS = 0.001

_DRIVERS = {
    "postgresql": ("postgresql+psycopg", {"", "psycopg"}),
    "mysql": ("mysql+pymysql", {"", "pymysql"}),
    "mariadb": ("mariadb+pymysql", {"", "pymysql"}),
    "sqlite": ("sqlite", {"", "pysqlite"}),
}
_BLOCKS = "it blocks the worker's event loop, and with it every stream"
_REFUSED_DRIVERS = {
    "psycopg2": _BLOCKS,
    "psycopg2cffi": _BLOCKS,
    "mysqldb": _BLOCKS,
    "mysqlclient": _BLOCKS,
    "aiosqlite": "it needs asyncio, and the workers run gevent",
    "asyncpg": "it needs asyncio, and the workers run gevent",
    "aiomysql": "it needs asyncio, and the workers run gevent",
    "asyncmy": "it needs asyncio, and the workers run gevent",
}

_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
# RFC 3986 section 3.1.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# RFC 6265 section 4.1.1: a cookie's name is a token of RFC 2616 section 2.2.
_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
# RFC 6454 section 6.2: an origin as browsers write it; other alphabets arrive as punycode.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {("http", "80"), ("https", "443")}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of text: its name, what is allowed, and how it becomes a value.

    `empty` is the value of a setting that is unset and has no default. `holds` says what must not
    be printed of the text: nothing, the passwords in an address, or all of it.
    """

    name: str
    allowed: str
    parse: Callable[[str], Any]
    empty: Any = None
    holds: Literal["nothing secret", "passwords", "a secret"] = "nothing secret"


def seconds(least: float, most: float) -> Kind:
    """Seconds from `least` to `most`, as a plain decimal number: no sign, exponent, nan or inf."""
    allowed = f"a number of seconds from {least:g} to {most:.0f}, fractions allowed"

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]*)?|\.[0-9]+", text, re.ASCII):
            raise ValueError("not a plain decimal number")
        return _within(float(text), least, most)

    return Kind("seconds", allowed, parse)


def count(least: int, most: int = 2**31 - 1) -> Kind:
    """Whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,20}", text, re.ASCII):
            raise ValueError("not a whole number")
        return _within(int(text), least, most)

    return Kind("count", f"a whole number from {least} to {most}", parse)


def one_of(*words: str) -> Kind:
    """One of `words`, in any case."""
    by_lower = {word.lower(): word for word in words}

    def parse(text: str) -> str:
        if text.lower() not in by_lower:
            raise ValueError("not one of them")
        return by_lower[text.lower()]

    return Kind("word", " ".join(words), parse)


def _within(value: Number, least: Number, most: Number) -> Number:
    if not least <= value <= most:
        raise ValueError("out of bounds")
    return value


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError("neither on nor off")
    return _SWITCH[text.lower()]


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds a character that cannot be printed")
    return text


def _secret(text: str) -> str:
    try:
        length = len(text.encode())
    except UnicodeError:
        raise ValueError("not valid UTF-8") from None
    if length < SHORTEST_SECRET_BYTES:
        raise ValueError(f"it has {length} bytes")
    return text


def _scheme(text: str) -> str:
    if not _SCHEME.fullmatch(text):
        raise ValueError("not a URI scheme")
    return text.lower()


def _cookie(text: str) -> str:
    if not _COOKIE.fullmatch(text):
        raise ValueError("not the name of a cookie")
    return text


def _origins(text: str) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",")]
    # A dict keeps the order and drops repetitions.
    return tuple(dict.fromkeys(_origin(part) for part in parts if part))


def _origin(text: str) -> str:
    match = _ORIGIN.fullmatch(text.lower())
    if not match:
        raise ValueError("not an origin")
    scheme, host, port = match.groups()
    # RFC 6454 section 6.2: browsers leave the scheme's own port out.
    if port is None or (scheme, port) in _DEFAULT_PORTS:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{_within(int(port), 1, 65_535)}"


def _web_address(text: str) -> str:
    scheme, separator, rest = _text(text).partition("://")
    if scheme.lower() not in {"http", "https"} or not separator or not rest.strip("/"):
        raise ValueError("not a web address")
    return text


def _database_url(text: str) -> str:
    scheme, separator, rest = _text(text).partition("://")
    family, _, driver = scheme.lower().partition("+")
    if not separator or family not in _DRIVERS or not re.fullmatch(r"[a-z0-9_]*", driver):
        raise ValueError("not the URL of a supported database")
    dialect, drivers = _DRIVERS[family]
    if driver not in drivers:
        reason = _REFUSED_DRIVERS.get(driver, "nobody has shown that it works under gevent")
        raise ValueError(f"the driver {driver} is refused: {reason}")
    if family == "sqlite":
        _check_file(rest)
    return f"{dialect}://{rest}"


def _check_file(rest: str) -> None:
    """Refuse what SQLAlchemy opens in memory, where no other worker would see it."""
    if not rest.startswith("/"):
        raise ValueError("a file needs three slashes, or four before an absolute path")
    if rest.partition("?")[0] in {"/", "/:memory:"}:
        raise ValueError("a database in memory is shared with nobody")


def _listen_url(text: str) -> str:
    if not text.lower().startswith("postgresql"):
        raise ValueError("not a PostgreSQL URL")
    return _database_url(text)


TIMER = seconds(SHORTEST_TIMER_SECONDS, DAY_SECONDS)
DELAY = seconds(0, DAY_SECONDS)
AGE = seconds(SHORTEST_TIMER_SECONDS, CENTURY_SECONDS)
SWITCH = Kind("switch", "true or false (also yes no on off 1 0)", _switch)
TEXT = Kind("text", "printable text", _text)
FILE = Kind("file", "the path of a file", _text)
SECRET = Kind(
    "secret", f"at least {SHORTEST_SECRET_BYTES} bytes of UTF-8", _secret, holds="a secret"
)
ALGORITHM = one_of(*ALGORITHMS)
SCHEME = Kind("scheme", "a URI scheme: a letter, then letters, digits, + - .", _scheme)
COOKIE = Kind("cookie", "the name of a cookie: letters, digits, - _ . and the like", _cookie)
ORIGINS = Kind(
    "origins",
    "scheme://host[:port], comma-separated, without a path and never *",
    _origins,
    empty=(),
    holds="passwords",
)
WEB_ADDRESS = Kind(
    "URL",
    "https://host/path, or http:// inside a trusted network",
    _web_address,
    holds="passwords",
)
DATABASE_URL = Kind(
    "URL",
    "a postgresql:// mysql:// mariadb:// or sqlite:/// URL; drivers: psycopg, pymysql, pysqlite",
    _database_url,
    holds="passwords",
)
LISTEN_URL = Kind(
    "URL",
    "a postgresql:// URL without a pooler between, for one in transaction mode cannot LISTEN",
    _listen_url,
    holds="passwords",
)

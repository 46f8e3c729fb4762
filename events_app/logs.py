"""How the program logs: one line an event, to standard error, and never a token.

A line says what happened, in words, and with whom, in fields: as ``name=value`` behind the words,
or all of it as one JSON object. What belongs to one request or stream has its correlation id, the
same one that an error's answer has.
"""

from __future__ import annotations

import errno
import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Literal

Layout = Literal["line", "json"]

# RFC 6750, sections 2.1 and 2.3: where a bearer token may stand in a request. And wherever else: a
# JWT begins with the base64 of `{"`.
_TOKEN = re.compile(r"(?i)(access_token=|bearer\s+|(?-i:\b(?=eyJ[\w-]+\.)))[^&\s\"';,]+")
_PLAIN = re.compile(r"[\w.:@/+-]+", re.ASCII)


def masked(text: str) -> str:
    """Return `text` without the tokens in it, whoever wrote it."""
    return _TOKEN.sub(r"\1***", text)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Make the `extra` of a logging call; what is None is left out."""
    return {"fields": {name: value for name, value in values.items() if value is not None}}


def _fields_of(record: logging.LogRecord) -> dict[str, str | int | float]:
    found: dict[str, object] = getattr(record, "fields", {})
    return {
        name: value if isinstance(value, int | float) else masked(str(value))
        for name, value in found.items()
    }


def _word(value: str | float) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class Line(logging.Formatter):
    """For people: the words, then the fields."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """Write the line; the names in it are other people's and cannot begin another line."""
        words = [super().formatMessage(record)]
        words += [f"{name}={_word(value)}" for name, value in _fields_of(record).items()]
        return " ".join(words)

    def format(self, record: logging.LogRecord) -> str:
        """Write the line and, behind it, where an error came from."""
        return masked(super().format(record))


class JsonLine(logging.Formatter):
    """For programs: one JSON object an event, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the object; times as in RFC 3339."""
        document: dict[str, str | int | float | None] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": record.process,
            "logger": record.name,
            "message": masked(record.getMessage()),
            **_fields_of(record),
        }
        if record.exc_info:
            document["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps(document)


# What a write or the kernel's own probes say of a peer that went away without a word.
_GONE = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


class Calm(logging.Filter):
    """Says in one line what others print a traceback for, though nothing is wrong with us.

    A network that fails takes thousands of clients with it, a database that fails every connection
    of the pool, and the log must still be readable.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; never drop it."""
        error = record.exc_info[1] if record.exc_info else None
        if record.name == "gunicorn.error" and _is_gone(error):
            _say_in_one_line(record, f"a client that took nothing is dropped: {error}")
        elif record.name.startswith("sqlalchemy.pool") and error is not None:
            # That the database is away is said by those who ask it.
            words = " ".join(str(error).split()) or type(error).__name__
            _say_in_one_line(record, f"a broken connection is let go: {words}")
        return True


def _say_in_one_line(record: logging.LogRecord, words: str) -> None:
    record.levelno, record.levelname = logging.INFO, "INFO"
    record.msg, record.args = words, ()
    record.exc_info = record.exc_text = None


def _is_gone(error: BaseException | None) -> bool:
    return isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno in _GONE)


def config(layout: Layout) -> dict[str, Any]:
    """Make what `logging.config.dictConfig` takes."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"calm": {"()": "events_app.logs.Calm"}},
        "formatters": {
            "line": {
                "()": "events_app.logs.Line",
                "format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
            },
            "json": {"()": "events_app.logs.JsonLine"},
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": layout,
                "filters": ["calm"],
            }
        },
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": "INFO", "propagate": True, "handlers": []},
            "gunicorn.access": {"level": "INFO", "propagate": False, "handlers": []},
        },
    }

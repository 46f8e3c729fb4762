"""How the program logs: one line an event, to standard error, and never a token."""

from __future__ import annotations

import errno
import logging
import re

# RFC 6750, sections 2.1 and 2.3: where a bearer token may stand in a request.
_TOKEN = re.compile(r"(?i)(access_token=|bearer\s+)[^&\s\"']+")


class Redact(logging.Filter):
    """Masks tokens in what is logged, whoever logs it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; never drop it."""
        message = record.getMessage()
        masked = _TOKEN.sub(r"\1***", message)
        if masked != message:
            record.msg, record.args = masked, ()
        return True


# What a write or the kernel's own probes say of a peer that went away without a word.
_GONE = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


class Calm(logging.Filter):
    """Says in one line that a client was dropped, where gunicorn prints a traceback as an error.

    A network that fails takes thousands of clients with it, and the log must still be readable.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; never drop it."""
        error = record.exc_info[1] if record.exc_info else None
        if record.name == "gunicorn.error" and _is_gone(error):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = f"a client that took nothing is dropped: {error}", ()
            record.exc_info = record.exc_text = None
        return True


def _is_gone(error: BaseException | None) -> bool:
    return isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno in _GONE)


CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "calm": {"()": "events_app.logs.Calm"},
        "redact": {"()": "events_app.logs.Redact"},
    },
    "formatters": {
        "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["calm", "redact"],
        }
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "propagate": True, "handlers": []},
        "gunicorn.access": {"level": "INFO", "propagate": False, "handlers": []},
    },
}

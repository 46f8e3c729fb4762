"""How the program logs: one line an event, to standard error, and never a token."""

from __future__ import annotations

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


CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"redact": {"()": "events_app.logs.Redact"}},
    "formatters": {
        "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["redact"],
        }
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "propagate": True, "handlers": []},
        "gunicorn.access": {"level": "INFO", "propagate": False, "handlers": []},
    },
}

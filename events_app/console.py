"""The console: a page that shows one folder's stream and history to a person.

Theory of operation
    One document, put together from the files in console_page: the markup, its style, and its
    script, which is one module of several parts. The page asks the same doors as every client,
    with a token that a person types in; the server does nothing for it but to hand it over.

Rules
    Nothing in the document belongs to anybody, so no token is needed to get it. Its headers let it
    load nothing, run nothing but its own script, and talk to nobody but its own server.
"""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache, lru_cache
from pathlib import Path
from string import Template
from typing import NamedTuple

from flask import Blueprint, Flask, Response, current_app, request

from events_app import api, recall, sidecar, uri
from events_app.settings import Settings

PATH = "/console"
MEDIA = "text/html"
# Beside the policy, which is of the page's own text.
HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
POLICY_HEADER = "Content-Security-Policy"

FOLDER = Path(__file__).with_name("console_page")
# In the order in which they use one another.
SCRIPT = ("frames.mjs", "follower.mjs", "text.mjs", "page.mjs")

page = Blueprint("console", __name__)


class Parts(NamedTuple):
    """What the document is made of, as text."""

    markup: str
    style: str
    script: str

    @property
    def policy(self) -> str:
        """The Content-Security-Policy that lets run and look like this, and no more."""
        return "; ".join(
            [
                "default-src 'none'",
                f"script-src {_source(self.script)}",
                f"style-src {_source(self.style)}",
                "img-src data:",  # the icon
                "connect-src 'self'",
                *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
                # A text that became markup by mistake would be an error instead.
                *("require-trusted-types-for 'script'", "trusted-types 'none'"),
            ]
        )


@page.get(PATH)
def show() -> Response:
    """Answer the page, or that it is still the one that the browser has."""
    answer = Response(document(sidecar.of(current_app).settings), mimetype=MEDIA)
    answer.headers.update(HEADERS)
    answer.headers[POLICY_HEADER] = parts().policy
    answer.add_etag()
    answer.make_conditional(request)
    return answer


def install(app: Flask) -> None:
    """Add the door. Raises OSError where the files of the page were not installed."""
    document(sidecar.of(app).settings)
    app.register_blueprint(page)


@cache
def parts() -> Parts:
    """Read the files of the page, once."""
    script = "\n".join((FOLDER / name).read_text("utf-8") for name in SCRIPT)
    markup, style = ((FOLDER / name).read_text("utf-8") for name in ("page.html", "style.css"))
    return Parts(markup, style, script)


@lru_cache(maxsize=1)
def document(settings: Settings) -> bytes:
    """Put the document of a deployment together."""
    known = {
        "events": api.EVENTS_PATH,
        "history": recall.HISTORY_PATH,
        "home": f"{settings.uri_scheme}://{uri.FILE_SYSTEM}",
        "keep_alive": f"{settings.keep_alive_seconds:g}",
    }
    escaped = {name: html.escape(text) for name, text in known.items()}
    markup, style, script = parts()
    return Template(markup).substitute(escaped, style=style, script=script).encode()


def _source(text: str) -> str:
    """Name an inline text by its hash: CSP Level 3, section 2.3.1."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

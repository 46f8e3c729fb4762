"""What is logged holds no token, whoever logs it."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import os
from collections.abc import Iterator
from datetime import datetime

import pytest

from events_app import logs
from tests.tokens import token

TOKEN = token()
LOGGER = logging.getLogger("tested")
LOGGER.propagate = False
LOGGER.setLevel(logging.INFO)


LAYOUTS: tuple[logs.Layout, ...] = ("line", "json")


class Written:
    """What a logger writes in one of the layouts."""

    def __init__(self, layout: logs.Layout) -> None:
        configuration = logging.config.DictConfigurator(logs.config(layout))
        made = configuration.configure_formatter(logs.config(layout)["formatters"][layout])
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(made)
        self.layout = layout

    @property
    def text(self) -> str:
        return self._stream.getvalue()


@pytest.fixture(params=LAYOUTS)
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    """Give what our logger writes, in each layout."""
    found = Written(request.param)
    LOGGER.addHandler(found.handler)
    yield found
    LOGGER.removeHandler(found.handler)


def only_line(written: Written) -> str:
    """Return the one line that was written, without the time."""
    (line,) = written.text.splitlines()
    return line


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (f"GET /api/v4/file/events?access_token={TOKEN}&uri=x", ()),
        ("GET %s", (f"/?uri=x&access_token={TOKEN}",)),
        ("headers: %r", ({"Authorization": f"Bearer {TOKEN}"},)),
        ("%(h)s", ({"h": f"bearer {TOKEN}"},)),
        ("authorization: BEARER %s", (TOKEN,)),
        ("Bearer  %s, twice: access_token=%s", (TOKEN, TOKEN)),
        (f"Cookie: theme=dark; session={TOKEN}; lang=en", ()),
        (f"Invalid HTTP Header: '{TOKEN}'", ()),
    ],
)
def test_a_token_is_masked(written: Written, message: str, arguments: tuple[object, ...]) -> None:
    LOGGER.info(message, *arguments)
    assert "***" in written.text
    for part in TOKEN.split("."):
        assert part not in written.text


def test_a_token_in_a_field_or_in_an_error_is_masked_too(written: Written) -> None:
    try:
        int(f"GET /?access_token={TOKEN}&uri=x")
    except ValueError:
        LOGGER.exception("why", extra=logs.fields(header=f"Bearer\t{TOKEN}"))
    assert written.text.count("***") >= 2
    assert "Traceback" in written.text
    for part in TOKEN.split("."):
        assert part not in written.text


def test_what_stands_beside_a_token_stays(written: Written) -> None:
    LOGGER.info("GET /?access_token=%s&uri=x 200", TOKEN)
    assert "GET /?access_token=***&uri=x 200" in written.text


def test_a_line_has_its_fields_behind_its_words() -> None:
    text = formatted("line", "a stream ends", user_id="42", reason="client_left", client_id=None)
    assert text.endswith(" INFO tested: a stream ends user_id=42 reason=client_left")


def test_a_json_line_has_its_fields_beside_its_words() -> None:
    text = formatted("json", "a stream ends: 100 %", user_id="42", seconds=1.5)
    document = json.loads(text)
    assert datetime.fromisoformat(document.pop("time")).tzinfo is not None
    assert document.pop("process") == os.getpid()
    assert document == {
        "level": "INFO",
        "logger": "tested",
        "message": "a stream ends: 100 %",
        "user_id": "42",
        "seconds": 1.5,
    }


def formatted(layout: logs.Layout, message: str, **fields: object) -> str:
    written = Written(layout)
    LOGGER.addHandler(written.handler)
    LOGGER.info(message, extra=logs.fields(**fields))
    LOGGER.removeHandler(written.handler)
    return only_line(written)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["a\nCRITICAL all is lost", "a b", 'a"', "\x1b[2J", "\u2028", ""])
def test_nobodys_name_begins_a_line_of_its_own(layout: logs.Layout, name: str) -> None:
    text = formatted(layout, "words", user_id=name)
    assert text.isascii()
    assert text.isprintable()
    assert json.dumps(name) in text


def test_the_server_logs_in_the_layout_of_its_setting() -> None:
    for layout in LAYOUTS:
        handler = logs.config(layout)["handlers"]["stderr"]
        assert (handler["formatter"], handler["filters"]) == (layout, ["calm"])

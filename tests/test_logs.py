"""What is logged holds no token, whoever logs it."""

from __future__ import annotations

import io
import logging
import logging.config
from collections.abc import Iterator

import pytest

from events_app import logs
from tests.tokens import token

TOKEN = token()


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Give what a logger with our filter writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(logs.Redact())
    logger = logging.getLogger("redacted")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (f"GET /api/v4/file/events?access_token={TOKEN}&uri=x", ()),
        ("GET %s", (f"/?uri=x&access_token={TOKEN}",)),
        ("headers: %r", ({"Authorization": f"Bearer {TOKEN}"},)),
        ("%(h)s", ({"h": f"bearer {TOKEN}"},)),
        ("authorization: BEARER %s", (TOKEN,)),
        ("Bearer  %s, twice: access_token=%s", (TOKEN, TOKEN)),
    ],
)
def test_a_token_is_masked(
    written: io.StringIO, message: str, arguments: tuple[object, ...]
) -> None:
    logging.getLogger("redacted").info(message, *arguments)
    assert "***" in written.getvalue()
    for part in TOKEN.split("."):
        assert part not in written.getvalue()


def test_what_stands_beside_a_token_stays(written: io.StringIO) -> None:
    logging.getLogger("redacted").info("GET /?access_token=%s&uri=x 200", TOKEN)
    assert written.getvalue() == "GET /?access_token=***&uri=x 200\n"


def test_what_holds_no_token_is_as_it_was(written: io.StringIO) -> None:
    logging.getLogger("redacted").info("a stream of user %s ends: %s", "42", "100 %")
    assert written.getvalue() == "a stream of user 42 ends: 100 %\n"


def test_the_servers_log_is_redacted_and_one_line_an_event() -> None:
    handler = logs.CONFIG["handlers"]["stderr"]  # type: ignore[index] # a literal
    assert handler["filters"] == ["calm", "redact"]
    configuration = logging.config.DictConfigurator(logs.CONFIG)
    redact = configuration.configure_filter(logs.CONFIG["filters"]["redact"])  # type: ignore[index] # a literal
    assert isinstance(redact, logs.Redact)

"""LISTEN on real servers: at one of several addresses, and what is said when it is interrupted."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import sqlalchemy
from sqlalchemy import make_url, text

from events_app.listener import Listener
from events_app.sequencer import CHANNEL
from tests.serving import free_port


class Enough(Exception):
    """Ends a listener that would listen for ever."""


def after(rings: int) -> Callable[[], None]:
    """Make a bell that can be rung so many times."""
    left = iter(range(rings))

    def ring() -> None:
        if next(left, None) is None:
            raise Enough

    return ring


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_it_listens_at_the_host_that_takes_writes(url: str) -> None:
    parsed = make_url(url)
    hosts = [("host", f"127.0.0.1:{port}") for port in (free_port(), parsed.port)]
    several = parsed.set(host=None, port=None).update_query_pairs(
        [*hosts, ("target_session_attrs", "read-write")]
    )
    notifying = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def notify() -> None:
        rings.append(1)
        if len(rings) == 2:
            raise Enough
        with notifying.begin() as connection:
            connection.execute(text(f"NOTIFY {CHANNEL}"))

    rings: list[int] = []
    with pytest.raises(Enough):
        Listener(several.render_as_string(hide_password=False), notify).listen()


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_an_interruption_is_said_once_and_once_that_it_is_over(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = make_url(url).set(port=free_port()).render_as_string(hide_password=False)
    listener = Listener(nowhere, after(0))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            listener.listen()
        listener._arguments["port"] = make_url(url).port
        for _ in range(2):
            with pytest.raises(Enough):
                listener.listen()
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith("LISTEN interrupted: connection failed")
    assert "\n" not in first
    assert last == "LISTEN works again"

"""A JWKS that is fetched: rotation, outages, and how often its server is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import gevent.event
import pytest

from events_app import errors, jwks
from events_app.jwks import Address, Fetched
from tests import key_server
from tests.key_server import EC, OTHER_RSA, RSA, KeyServer, public_pem
from tests.manual_clock import ManualClock
from tests.serving import free_port
from tests.test_jwk import public_pem_of


class Site:
    """A key server, and our view of it on a clock that the test owns."""

    def __init__(self, server: KeyServer) -> None:
        self.server = server
        self.clock = ManualClock()
        self.keys = Fetched(Address(server.url).read, "RS256", self.clock)

    def finds(self, key_id: str | None) -> bytes | None:
        """Return the key for that id as PEM."""
        found = self.keys.fitting(key_id)
        assert len(found) <= 1
        return public_pem_of(found[0]) if found else None

    @property
    def asked(self) -> int:
        return len(self.server.asked)

    def later(self, seconds: float) -> None:
        self.clock.now += seconds

    def refresh(self) -> None:
        """Do what the greenlet of a worker does about every minute, once."""
        greenlet = gevent.spawn(self.keys.run)
        before = self.asked
        while self.asked == before or self.keys._flight is not None:
            gevent.sleep(0)
        greenlet.kill()


@pytest.fixture
def site() -> Iterator[Site]:
    with KeyServer(key_server.jwks(key_server.jwk(RSA, "one"))) as server:
        yield Site(server)


def test_a_known_key_is_fetched_once(site: Site) -> None:
    assert site.asked == 0
    for _ in range(3):
        assert site.finds("one") == public_pem(RSA)
        site.later(3_600)
    assert site.asked == 1


def test_a_key_that_appears_is_used_at_once(site: Site) -> None:
    site.refresh()
    site.server.offer(key_server.jwk(RSA, "one"), key_server.jwk(OTHER_RSA, "two"))
    assert site.finds("two") == public_pem(OTHER_RSA)
    assert site.finds("one") == public_pem(RSA)
    assert site.asked == 2


def test_unknown_ids_cause_one_fetch_in_thirty_seconds(site: Site) -> None:
    for number in range(100):
        assert site.finds(f"made up {number}") is None
        site.later(0.29)
    assert site.asked == 1
    site.later(1.5)
    assert site.finds("made up") is None
    assert site.asked == 2


def test_a_key_that_appears_while_ids_are_made_up_is_used_within_a_minute(site: Site) -> None:
    site.refresh()
    assert site.finds("made up") is None
    site.server.offer(key_server.jwk(OTHER_RSA, "two"))
    assert site.finds("two") is None
    site.later(jwks.COOLDOWN_SECONDS)
    assert site.finds("two") == public_pem(OTHER_RSA)
    assert jwks.COOLDOWN_SECONDS + jwks.FETCH_SECONDS < 60
    assert jwks.REFRESH_SECONDS + jwks.FETCH_SECONDS <= 60


def test_a_key_that_was_taken_back_is_used_no_more(site: Site) -> None:
    site.refresh()
    assert site.finds("one") == public_pem(RSA)
    site.server.offer(key_server.jwk(OTHER_RSA, "two"))
    site.refresh()
    assert site.finds("one") is None


def test_a_key_of_the_same_id_replaces_the_other(site: Site) -> None:
    site.refresh()
    site.server.offer(key_server.jwk(OTHER_RSA, "one"))
    site.refresh()
    assert site.finds("one") == public_pem(OTHER_RSA)


def test_a_token_that_names_no_key_means_the_only_one(site: Site) -> None:
    assert site.finds(None) == public_pem(RSA)
    site.server.offer(key_server.jwk(RSA, "one"), key_server.jwk(OTHER_RSA, "two"))
    site.refresh()
    assert site.finds(None) is None


def test_a_key_that_cannot_be_used_is_told_of_once_and_one_for_others_not_at_all(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.server.offer(
        key_server.jwk(RSA, "one"),
        key_server.jwk(OTHER_RSA, "broken", n="!"),
        key_server.jwk(EC, "curve", "ES256"),
    )
    for _ in range(3):
        site.refresh()
    assert len(caplog.records) == 1
    assert "left out" in caplog.text


def test_keys_for_other_purposes_do_not_count(site: Site) -> None:
    site.server.offer(
        key_server.jwk(RSA, "one"),
        key_server.jwk(OTHER_RSA, "secret", use="enc"),
        key_server.jwk(EC, "curve", "ES256"),
    )
    assert site.finds(None) == public_pem(RSA)
    assert site.finds("secret") is None
    assert site.finds("curve") is None


def fail(site: Site, how: str) -> None:
    """Let the server fail in one of the ways of servers."""
    if how == "status":
        site.server.status = 503
    elif how == "redirect":
        other = f"http://127.0.0.1:{site.server.port}/elsewhere"
        site.server.status, site.server.headers = 302, {"Location": other}
    elif how == "interim":
        site.server.interim = jwks.MOST_INTERIM
    elif how == "too long":
        site.server.document += b" " * jwks.MOST_BYTES
    else:
        site.server.document = {
            "a page": b"<html>Back soon</html>",
            "not text": b"\xff",
            "no object": b"[]",
            "no list": b'{"keys": {}}',
            "no keys": b'{"keys": []}',
            "other keys": key_server.jwks(key_server.jwk(EC, "one", "ES256")),
            "nested": b"[" * 100_000,
        }[how]


FAILURES = [
    *("status", "redirect", "too long", "a page", "not text", "no object", "no list", "no keys"),
    *("other keys", "nested", "interim"),
]


@pytest.mark.parametrize("how", FAILURES)
def test_known_keys_outlive_every_failure_of_their_server(
    site: Site, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    site.refresh()
    good = site.server.document
    fail(site, how)
    for _ in range(3):
        site.refresh()
    assert site.finds("one") == public_pem(RSA)
    with pytest.raises(errors.KeysAway):
        site.finds("made up")
    assert [r.getMessage() for r in caplog.records if "cannot be fetched" in r.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    site.server.document, site.server.status, site.server.interim = good, 200, 1
    site.refresh()
    assert site.finds("made up") is None
    assert "fetched again" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("how", FAILURES)
def test_where_no_key_was_ever_fetched_nobody_can_tell(site: Site, how: str) -> None:
    fail(site, how)
    with pytest.raises(errors.KeysAway):
        site.finds("one")


def test_a_redirect_is_not_followed(site: Site) -> None:
    fail(site, "redirect")
    with pytest.raises(errors.KeysAway, match="302"):
        site.finds("one")
    assert site.asked == 1


def test_a_server_that_is_not_there_is_asked_no_oftener(caplog: pytest.LogCaptureFixture) -> None:
    calls = []
    address = Address(f"http://127.0.0.1:{free_port()}/keys")

    def fetch() -> bytes:
        calls.append(1)
        return address.read()

    clock = ManualClock()
    keys = Fetched(fetch, "RS256", clock)
    for _ in range(10):
        with pytest.raises(errors.KeysAway, match="refused"):
            keys.fitting("one")
    assert len(calls) == 1
    assert len(caplog.records) == 1
    clock.now += jwks.COOLDOWN_SECONDS
    with pytest.raises(errors.KeysAway):
        keys.fitting("one")
    assert len(calls) == 2


def test_a_fetch_under_way_is_shared_and_holds_up_nobody_who_knows_the_key() -> None:
    first = key_server.jwks(key_server.jwk(RSA, "one"))
    second = key_server.jwks(key_server.jwk(RSA, "one"), key_server.jwk(OTHER_RSA, "two"))
    answers = [first, second]
    gate = gevent.event.Event()

    def fetch() -> bytes:
        gate.wait()
        return answers.pop(0)

    gate.set()
    keys = Fetched(fetch, "RS256", ManualClock())
    assert keys.fitting("one")
    keys._asked_at = None
    gate.clear()
    waiting = [gevent.spawn(keys.fitting, "two") for _ in range(50)]
    gevent.sleep(0)
    assert keys.fitting("one")
    assert not any(each.ready() for each in waiting)
    gate.set()
    gevent.joinall(waiting)
    assert all(each.value for each in waiting)
    assert answers == []


def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands between could give out keys of their own."""
    with KeyServer(key_server.jwks(key_server.jwk(RSA))) as server:
        certificate = server.certify(tmp_path)
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            Address(server.url).read()
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert Address(server.url).read() == server.document
        elsewhere = server.url.replace("127.0.0.1", "localhost")
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            Address(elsewhere).read()


def test_name_and_password_in_the_address_are_sent_and_not_told() -> None:
    with KeyServer(key_server.jwks(key_server.jwk(RSA))) as server:
        address = server.url.replace("http://", "http://events:s%3Acret@")
        assert Address(address).read() == server.document
        assert server.asked[0]["Authorization"] == "Basic ZXZlbnRzOnM6Y3JldA=="
        assert server.asked[0]["Host"] == f"127.0.0.1:{server.port}"
    with pytest.raises(OSError, match="refused") as caught:
        Address(address).read()
    assert "cret" not in str(caught.value)

"""The keys of a JWKS: fetched, kept, and looked up by their ids.

Theory of operation
    The keys of a JWKS are kept by their ids. A greenlet fetches the set at the start and then about
    every minute; a token with an unknown id has it fetched once more. Whoever needs a key that is
    not there waits for the fetch that is under way; whoever needs a known one waits for nothing.

Rules
    - There is one fetch at a time, and unknown ids cause no more than one in `COOLDOWN_SECONDS`.
    - A fetch that fails changes nothing: known keys stay until a set without them arrives.
    - Nothing of a token's header says where to look: `jku`, `x5u` and `jwk` are not read, and
      redirects are not followed.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import ssl
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

import gevent
from gevent.event import Event

from events_app import errors, jwk
from events_app.clock import Clock

log = logging.getLogger(__name__)

# A key that appears is to be used within a minute, also one without an id.
REFRESH_SECONDS = 55.0
# While it fails.
RETRY_SECONDS = 5.0
# Anybody can make up key ids.
COOLDOWN_SECONDS = 30.0
# For all of a fetch; a server that sends a byte now and then would hold requests for ever.
FETCH_SECONDS = 5.0
# Real sets have a few kilobytes.
MOST_BYTES = 256 * 1024
# 100 Continue may come before an answer. Who sends them without a pause would let nothing else run,
# and no time would be up: gevent waits only where there is nothing to read.
MOST_INTERIM = 10


class Fetched:
    """The keys of a JWKS. `fetch` returns its document, or raises what `_FAILURES` lists."""

    def __init__(self, fetch: Callable[[], bytes], algorithm: str, clock: Clock) -> None:
        """Fetch nothing yet."""
        self._fetch = fetch
        self._algorithm = algorithm
        self._clock = clock
        self._known: Sequence[jwk.Named] = ()
        self._document = b""
        self._failure: str | None = None
        self._failing = Event()
        self._flight: gevent.Greenlet[[], None] | None = None
        self._asked_at: float | None = None
        self.failures = 0
        """Fetches that failed."""

    def run(self) -> None:
        """Keep the set fresh; ends when the greenlet is killed."""
        while True:
            self._join_fetch()
            share = random.uniform(0.8, 1)  # noqa: S311 -- guards nothing
            if self._failing.wait(REFRESH_SECONDS * share):
                gevent.sleep(RETRY_SECONDS * share)

    def fitting(self, key_id: str | None) -> Sequence[Any]:
        """Return the key of that id, or the only one for a token that names none."""
        if not (found := self._named(key_id)) and self._may_ask():
            self._join_fetch()
            found = self._named(key_id)
        if not found and self._failure is not None:
            raise errors.KeysAway(f"the keys that verify tokens cannot be fetched: {self._failure}")
        return found

    def _named(self, key_id: str | None) -> Sequence[Any]:
        if key_id is None:
            return [each.key for each in self._known] if len(self._known) == 1 else []
        return [each.key for each in self._known if each.key_id == key_id]

    def _may_ask(self) -> bool:
        """Tell whether an unknown id may wait for a fetch: the one under way, or one of its own."""
        if self._flight is not None:
            return True
        now = self._clock.monotonic()
        if self._asked_at is not None and now < self._asked_at + COOLDOWN_SECONDS:
            return False
        self._asked_at = now
        return True

    def _join_fetch(self) -> None:
        if self._flight is None:
            self._flight = gevent.spawn(self._refresh)
        self._flight.join()

    def _refresh(self) -> None:
        try:
            with gevent.Timeout(FETCH_SECONDS, TimeoutError("it takes too long")):
                self._take(self._fetch())
        except _FAILURES as error:
            if self._failure is None:
                log.error("the keys that verify tokens cannot be fetched: %s", error)
            self._failure = str(error)
            self.failures += 1
            self._failing.set()
        else:
            if self._failure is not None:
                log.info("the keys that verify tokens are fetched again")
            self._failure = None
            self._failing.clear()
        finally:
            self._flight = None

    def _take(self, document: bytes) -> None:
        """Know the keys of `document`; what is wrong with some is said when it changes."""
        if document != self._document:
            self._known = _parse(document, self._algorithm)
            self._document = document


# URLError is an OSError; a document that is none of JSON, or holds no key, a ValueError.
_FAILURES = (OSError, HTTPException, ValueError, RecursionError)


def _parse(document: bytes, algorithm: str) -> Sequence[jwk.Named]:
    """Return the keys of a JWKS that fit; raises ValueError when there is none."""
    parsed = json.loads(document)
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is no set of keys")  # noqa: TRY004 -- it came from outside
    found = [key for each in listed if (key := jwk.of_jwk(each, algorithm)) is not None]
    if not found:
        raise ValueError(f"the set has no key for {algorithm}")
    return found


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Whoever can have us sent elsewhere could have us trust other keys."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none; what asked raises HTTPError."""


class _Answer(HTTPResponse):
    """An answer before which not any number of others may come."""

    _lines = 0

    def _read_status(self) -> Any:
        self._lines += 1
        if self._lines > MOST_INTERIM:
            raise HTTPException("one interim answer comes after the other")
        # The standard library reads on in a loop that has no end, and in no other method.
        return super()._read_status()  # type: ignore[misc] # it is not in the stubs


class _Connection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self) -> None:
        """Read every certificate of the system, which takes 20 to 30 ms."""
        self._trusted = ssl.create_default_context()
        super().__init__(context=self._trusted)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, req, context=self._trusted)


class Address:
    """A web address whose document is read; a server's certificate is verified."""

    def __init__(self, url: str) -> None:
        """Take `url`, which may have a name and a password in front of the host."""
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        self._url = parts._replace(netloc=host).geturl()
        self._headers = {"Accept": "application/json"}
        if user:
            pair = base64.b64encode(unquote(user).encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        self._opener: urllib.request.OpenerDirector | None = None

    def read(self) -> bytes:
        """Return the document; raises OSError, HTTPException, or ValueError for another answer."""
        request = urllib.request.Request(self._url, headers=self._headers)  # noqa: S310 -- a setting
        try:
            with self._open(request) as response:
                document: bytes = response.read(MOST_BYTES + 1)
        except HTTPError as error:
            with error:  # it holds the connection
                raise ValueError(f"the answer has status {error.code}") from None
        if len(document) > MOST_BYTES:
            raise ValueError(f"the answer has more than {MOST_BYTES} bytes")
        return document

    def _open(self, request: urllib.request.Request) -> Any:
        if self._opener is None:
            self._opener = urllib.request.build_opener(_NoRedirects, _Plain, _Secure())
        return self._opener.open(request, timeout=FETCH_SECONDS)

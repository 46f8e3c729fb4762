"""Whether a verified token was revoked: only the app that made it knows, so its own code is asked.

Theory of operation
    An installed package names a function under the entry point `events_app.tokens`. It is given the
    claims of a token whose signature, times and type are good, and returns None, or why the token
    is refused. It is asked at each request, and about the tokens of open streams in rounds.

Rules
    - A function that raises, hangs or answers anything else has not answered: the request fails
      without blame on its token, and an open stream stays open.
    - Where there is no such function, nothing is kept of a stream's token.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

import gevent

from events_app import errors, logs

log = logging.getLogger(__name__)

GROUP = "events_app.tokens"

# For one answer; whoever looks into a database needs milliseconds.
PATIENCE_SECONDS = 5.0
# So many failures in a row, and the rest of a round fails too: it is put off.
MOST_FAILURES = 3

Hook = Callable[[Mapping[str, Any]], str | None]


class Revocable(Protocol):
    """What ends when its token is revoked."""

    def revoke(self) -> None:
        """End it."""


class Unanswered(Exception):
    """A function did not say whether a token was revoked."""


@cache
def installed() -> tuple[Hook, ...]:
    """Return the functions of the installed packages.

    Raises `SettingsError` for one that cannot be had: tokens would pass that it is to refuse.
    """
    return tuple(_load(point) for point in sorted(entry_points(group=GROUP)))


def _load(point: Any) -> Hook:
    try:
        hook: Hook = point.load()
    except Exception as error:
        reason = f"the entry point {point.name} of {GROUP} cannot be loaded: {error!r}"
        raise errors.SettingsError(reason) from error
    if not callable(hook):
        raise errors.SettingsError(f"the entry point {point.name} of {GROUP} is no function")
    return hook


class Revocation:
    """Asks the functions of one worker, and ends the streams whose tokens were revoked."""

    def __init__(self, hooks: Sequence[Hook], every_seconds: float) -> None:
        """Ask `hooks`; about open streams about every `every_seconds`."""
        self._hooks = hooks
        self._every_seconds = every_seconds
        self._open: dict[Revocable, str] = {}
        self.unanswered = 0
        """Questions that got no answer."""

    def admit(self, claims: Mapping[str, Any]) -> str:
        """Return the claims as `watch` takes them, or nothing where nobody is to be asked.

        Raises `Unauthorized` when the token was revoked, `Unforeseen` when that cannot be told.
        """
        if not self._hooks:
            return ""
        try:
            reason = self._reason(claims)
        except Unanswered as error:
            log.error("a request is refused, whether its token was revoked is unknown: %s", error)
            raise errors.Unforeseen from error
        if reason is not None:
            raise errors.Unauthorized(f"the token was revoked: {reason}")
        return json.dumps(claims)

    def watch(self, stream: Revocable, claims: str) -> None:
        """Ask about a stream's token from now on."""
        if claims:
            self._open[stream] = claims

    def forget(self, stream: Revocable) -> None:
        """Ask no more: the stream has ended."""
        self._open.pop(stream, None)

    def run(self) -> None:
        """Go round for ever; ends when the greenlet is killed."""
        while self._hooks:
            gevent.sleep(self._every_seconds)
            self.go_round()

    def go_round(self) -> None:
        """Ask about each token that streams are open with, and end those that were revoked."""
        failures = 0
        for claims, streams in self._by_token():
            gevent.sleep(0)  # a function that never waits must not hold the loop for all of them
            try:
                reason = self._reason(json.loads(claims))
            except Unanswered as error:
                failures += 1
                log.log(logging.WARNING if failures == 1 else logging.DEBUG, "%s", error)
                if failures == MOST_FAILURES:
                    return
            else:
                failures = 0
                if reason is not None:
                    _end(streams, reason)

    def _by_token(self) -> Iterable[tuple[str, list[Revocable]]]:
        found = defaultdict(list)
        for stream, claims in self._open.items():
            found[claims].append(stream)
        return found.items()

    def _reason(self, claims: Mapping[str, Any]) -> str | None:
        try:
            reasons = (_ask(hook, claims) for hook in self._hooks)
            return next((reason for reason in reasons if reason is not None), None)
        except Unanswered:
            self.unanswered += 1
            raise


def _ask(hook: Hook, claims: Mapping[str, Any]) -> str | None:
    try:
        with gevent.Timeout(PATIENCE_SECONDS, TimeoutError("it takes too long")):
            answer: object = hook(claims)
    except Exception as error:
        raise Unanswered(f"a function of {GROUP} failed: {error!r}") from error
    if answer is None or isinstance(answer, str):
        return answer
    raise Unanswered(f"a function of {GROUP} returned neither text nor None")


def _end(streams: Sequence[Revocable], reason: str) -> None:
    for stream in streams:
        stream.revoke()
    log.info("a token was revoked", extra=logs.fields(reason=reason, streams=len(streams)))

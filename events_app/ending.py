"""When one stream ends, and why: of the ends that lie ahead, the first. When its client returns.

Rules
    - No stream ends within its first ten seconds: clients come back at once after a clean end.
      Only a shutdown does not wait for that, for the worker would be killed meanwhile, nor does a
      token that was revoked, for somebody may have stolen it, nor what is no longer permitted.
    - What many streams would do in the same moment (tokens that expire together, a shutdown) is
      spread by chance.
    - An end that was told never moves to later.
"""

from __future__ import annotations

import enum
import random

from events_app import scope

# Clients reconnect without delay after a clean end: an end sooner than this would be a storm.
LEAST_LIFE_SECONDS = 10.0
# A worker that stops still accepts until gunicorn looks up, once a second. Who comes in then would
# otherwise come in again and again.
LATE_LIFE_SECONDS = 1.5
# Tokens issued together expire together; their streams need not.
EXPIRY_JITTER_SECONDS = 5.0
# A connect costs more than a millisecond: when a worker dies, all its clients must not be back in
# the same moment. On average as long as browsers wait by themselves.
RETURN_SECONDS = 1.0
RETURN_JITTER_SECONDS = 4.0


class Reason(enum.Enum):
    """Why a stream ends whose folder and history are as they were."""

    TOKEN_EXPIRED = "its token has expired"  # noqa: S105 -- a sentence
    TOKEN_REVOKED = "its token was revoked"  # noqa: S105 -- a sentence
    LIFETIME = "it has lived long enough"
    SHUTDOWN = "the server is shutting down"
    PERMISSION_GONE = "the permission is gone"


class Ending:
    """The end of one stream as it is known so far. Times are monotonic seconds."""

    __slots__ = ("_opened_at", "_stopping", "at", "reason")

    def __init__(self, now: float, token_seconds: float, lifetime_seconds: float | None) -> None:
        """Plan the end of a stream that opens `now`, whose token is good for `token_seconds`."""
        self._opened_at = now
        self._stopping = False
        self.reason: Reason | scope.End = Reason.TOKEN_EXPIRED
        jitter = random.uniform(0, EXPIRY_JITTER_SECONDS)  # noqa: S311 -- guards nothing
        good_for = max(token_seconds, LEAST_LIFE_SECONDS) + jitter
        if lifetime_seconds is not None and lifetime_seconds < good_for:
            self.reason = Reason.LIFETIME
            good_for = max(lifetime_seconds, LEAST_LIFE_SECONDS)
        self.at = now + good_for

    def stop(self, now: float, drain_seconds: float, *, late: bool) -> bool:
        """End within the drain: the server is shutting down; tell whether that was news.

        `late`: it was already, when this stream came.
        """
        if self._stopping or self.is_withdrawn:
            return False
        self._stopping = True
        wait = random.uniform(0, drain_seconds)  # noqa: S311 -- guards nothing
        if late:
            wait = max(drain_seconds, LATE_LIFE_SECONDS)
        self.at = min(self.at, now + wait)
        self.reason = Reason.SHUTDOWN
        return True

    def give_up(self, now: float, why: scope.End) -> None:
        """End as soon as may be: nothing that follows can be told, and a fresh start must be."""
        if self.reason is not why and not self.is_withdrawn:
            self.reason = why
            self.at = min(self.at, max(now, self._opened_at + LEAST_LIFE_SECONDS))

    def withdraw(self, now: float) -> None:
        """End at once, whatever was to come: nothing may be told any more."""
        self.reason = Reason.PERMISSION_GONE
        self.at = min(self.at, now)

    @property
    def is_withdrawn(self) -> bool:
        """Tell whether nothing may be told any more."""
        return self.reason is Reason.PERMISSION_GONE

    def revoke(self, now: float) -> None:
        """End at once: the token is good no more."""
        if now < self.at:
            self.at, self.reason = now, Reason.TOKEN_REVOKED

    def is_due(self, now: float) -> bool:
        """Tell whether it is time."""
        return now >= self.at


def return_seconds() -> float:
    """Choose how long one client is to wait before it comes back."""
    return RETURN_SECONDS + random.uniform(0, RETURN_JITTER_SECONDS)  # noqa: S311 -- guards nothing

"""What the present request asks for: who asks, the watched folder, the parameters that doors share.

Whatever is wrong is an error that names it. A door asks in the protocol's order of checks.
"""

from __future__ import annotations

from functools import lru_cache

from events_app import auth, errors, event, parameter, sse, uri
from events_app.parameter import Parameter
from events_app.scope import Watcher
from events_app.settings import Settings

MAX_CURSOR_CHARACTERS = 1_000
PAYLOADS: tuple[sse.Payload, ...] = ("array", "object")

# Printable ASCII, in words that every dialect of patterns has.
_CURSOR = {"type": "string", "maxLength": MAX_CURSOR_CHARACTERS, "pattern": "^[ -~]*$"}


def reader(settings: Settings) -> auth.Identity:
    """Return who wants to read. Raises what `auth.authenticate` raises, and `EventsDisabled`."""
    identity = auth.authenticate(settings, auth.READ_SCOPE)
    if not settings.enabled:
        raise errors.EventsDisabled
    return identity


def watcher(settings: Settings, identity: auth.Identity) -> Watcher:
    """Return who watches what, a share not looked up yet.

    Raises `BadParameter` and `ForeignFolder`.
    """
    client = CLIENT_ID.asked()
    address = folder(settings.uri_scheme).asked()
    place = uri.parse(address, scheme=settings.uri_scheme, user_id=identity.user_id)
    if isinstance(place, uri.Share):
        return Watcher.through(identity.user_id, client, place)
    return Watcher.of(identity.user_id, client, place)


@lru_cache(maxsize=2)  # asked for with every request
def folder(scheme: str) -> Parameter[str]:
    """Return the parameter that says what is watched; what it says is for `uri.parse`."""
    home = f"{scheme}://{uri.FILE_SYSTEM}"
    return Parameter(
        "uri",
        {"type": "string", "pattern": uri.pattern(scheme)},
        f"The folder, or `{scheme}://share-id@{uri.SHARES}/…` for one that somebody"
        " else shares: see [The URI](protocol.md#the-uri).",
        str,
        home,
        example=f"{home}/docs",
    )


@lru_cache(maxsize=2)
def payload(default: sse.Payload) -> Parameter[sse.Payload]:
    """Return the parameter that says how the client wants its changes."""
    meaning = "Whether an `event` frame holds an array of changes, or one change."
    return parameter.word("payload", PAYLOADS, default, meaning)


def _client_id(text: str) -> str:
    canonical = event.canonical_client_id(text)
    if canonical is None:
        raise ValueError("it is not a UUID")
    return canonical


def _cursor(text: str) -> str:
    if len(text) > MAX_CURSOR_CHARACTERS or not text.isascii() or not text.isprintable():
        raise ValueError("it is none of ours")
    return text


CLIENT_ID: Parameter[str | None] = Parameter(
    "client_id",
    {"type": "string", "pattern": event.CLIENT_ID_PATTERN},
    "A UUID of this installation of the client.",
    _client_id,
    None,
    header="X-Cr-Client-Id",
    example="0b6c4a1e-8c0a-4f0e-9c55-6d1f2a3b4c5d",
)
LAST_EVENT_ID: Parameter[str | None] = Parameter(
    "last_event_id",
    _CURSOR,
    "The `id` of the last frame that was dealt with.",
    _cursor,
    None,
    header="Last-Event-ID",
)
CURSOR: Parameter[str | None] = Parameter(
    "cursor",
    _CURSOR,
    "Where to go on: the `cursor` of the page before, or the `id` of a frame. Without it the answer"
    " is a cursor, from now on.",
    _cursor,
    None,
)

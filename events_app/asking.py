"""What the present request asks for: who asks, the watched folder, the parameters.

Whatever is wrong is an error that names it. A door asks in the protocol's order of checks.
"""

from __future__ import annotations

from flask import request

from events_app import auth, errors, event, sse, uri
from events_app.scope import Watcher
from events_app.settings import Settings

CLIENT_ID = "X-Cr-Client-Id"
MAX_CURSOR_CHARACTERS = 1_000


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
    client = client_id(_header_or_parameter(CLIENT_ID, "client_id"))
    address = parameter("uri") or f"{settings.uri_scheme}://my"
    place = uri.parse(address, scheme=settings.uri_scheme, user_id=identity.user_id)
    if isinstance(place, uri.Share):
        return Watcher.through(identity.user_id, client, place)
    return Watcher.of(identity.user_id, client, place)


def parameter(name: str) -> str | None:
    """Return a query parameter; two of one name leave open which one counts."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise errors.BadParameter(f"{name}: it is given {len(values)} times")
    return values[0] if values else None


def number(name: str, default: int, least: int, most: int) -> int:
    """Return a whole number from `least` to `most`."""
    text = parameter(name)
    if not text:
        return default
    # Of ASCII digits: Python also takes other scripts', spaces and underscores.
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not is_number or not least <= int(text) <= most:
        raise errors.BadParameter(f"{name}: it is a whole number from {least} to {most}")
    return int(text)


def last_event_id() -> str | None:
    """Return the cursor that the client brings back to a stream."""
    return _plain("last event id", _header_or_parameter("Last-Event-ID", "last_event_id"))


def cursor() -> str | None:
    """Return the cursor that the client brings back to a page."""
    return _plain("cursor", parameter("cursor"))


def payload(settings: Settings) -> sse.Payload:
    """Return how the client wants its changes."""
    text = parameter("payload") or settings.payload
    if text == "array":
        return "array"
    if text == "object":
        return "object"
    raise errors.BadParameter("payload: it is array or object")


def client_id(text: str | None) -> str | None:
    """Return the client id that `text` is, written canonically; None where nothing is said."""
    if not text:
        return None
    canonical = event.canonical_client_id(text)
    if canonical is None:
        raise errors.BadParameter("client id: it is not a UUID")
    return canonical


def _header_or_parameter(header: str, name: str) -> str | None:
    """Return a header, or the query parameter that stands in for it in browsers.

    A server joins headers of one name by commas, and with one nothing is an id of ours.
    """
    in_query = parameter(name)
    return request.headers.get(header) or in_query


def _plain(what: str, text: str | None) -> str | None:
    if not text:
        return None
    if len(text) > MAX_CURSOR_CHARACTERS or not text.isascii() or not text.isprintable():
        raise errors.BadParameter(f"{what}: it is none of ours")
    return text

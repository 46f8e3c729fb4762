"""What the journal accepts of an outbox row: cleaned where it only looks odd, else rejected.

Pure: a mapping in, the values to journal out. The app's transaction is long committed when a row
is looked at here, so nothing can be refused any more: a row that cannot be told to clients is
journalled with the reason, and never stops the line.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from events_app import event, uri

LENGTHS = {
    "user_id": 64,
    "type": 16,
    "file_id": 128,
    "fs": 32,
    "client_id": 36,
    "actor_id": 64,
    "event_key": 128,
}
REQUIRED = ("user_id", "type", "file_id", "fs", "from_path")
OPTIONAL = ("to_path", "client_id", "actor_id", "event_key")

# As long as a change may be that comes by HTTP. What an app writes may be longer than a statement
# can be that holds it, escaped: 15 MB stopped the line on MariaDB for good.
MAX_META_CHARACTERS = 128 * 1024

# Of each text, and of a path, as far as a pattern can tell: in words that every dialect has.
TEXT_PATTERN = r"^[^\x00]*$"
_ENTRY = r"([^/.\x00][^/\x00]*|\.[^/.\x00][^/\x00]*|\.\.[^/\x00]+)"
PATH_PATTERN = rf"^(/\.?)*/{_ENTRY}(/({_ENTRY}|\.?))*$"

_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class Unacceptable(ValueError):
    """The reason why a row is journalled as rejected."""


def clean(raw: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the values to journal for `raw`; `rejected` holds None or the reason.

    `now` stands in for a `created_at` that is no time (SQLite keeps any text).
    """
    try:
        return _accept(raw, now)
    except Unacceptable as reason:
        return reject(raw, str(reason), now)


def offered(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to insert for a change that is not written yet; the database adds its time.

    Raises `Unacceptable` for what `clean` would reject.
    """
    values = _accept({**raw, "created_at": _ANY_TIME}, _ANY_TIME)
    del values["created_at"], values["rejected"]
    return values


def reject(raw: Mapping[str, Any], reason: str, now: datetime) -> dict[str, Any]:
    """Return what can be kept of a row that cannot be told, and why."""
    values: dict[str, Any] = {name: _salvage(name, raw[name]) or "" for name in REQUIRED}
    values |= {name: _salvage(name, raw[name]) for name in OPTIONAL}
    values["event_key"] = None
    values["is_folder"] = 0
    values["meta"] = _whole_meta(raw["meta"])
    values["created_at"] = raw["created_at"] or now
    values["rejected"] = reason[:255]
    return values


def _accept(raw: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    values = dict(raw)
    for name in REQUIRED:
        _require_text(name, values[name])
    for name in OPTIONAL:
        values[name] = _optional_text(name, values[name])
    if values["type"] not in event.TYPES:
        raise Unacceptable(f"type {values['type']!r} is not one of {', '.join(event.TYPES)}")
    values["from_path"] = _clean_path("from_path", values["from_path"])
    values["to_path"] = _target(values["type"], values["to_path"])
    if values["client_id"] is not None:  # what is no UUID names no client
        values["client_id"] = event.canonical_client_id(values["client_id"])
    values["is_folder"] = 1 if values["is_folder"] else 0
    values["meta"] = _optional_text("meta", values["meta"])
    values["created_at"] = values["created_at"] or now.astimezone(UTC)
    values["rejected"] = None
    return values


def _require_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise Unacceptable(f"{name} is {type(value).__name__}, not text")
    if not value:
        raise Unacceptable(f"{name} is empty")
    if not value.isascii():
        _refuse_unreadable(name, value)
    if "\0" in value:
        raise Unacceptable(f"{name} holds a NUL")
    if len(value) > LENGTHS.get(name, uri.MAX_PATH_BYTES):
        raise Unacceptable(f"{name} is longer than {LENGTHS.get(name, uri.MAX_PATH_BYTES)}")


def _optional_text(name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if name == "client_id" and isinstance(value, str):
        return value
    if name == "meta" and isinstance(value, str):
        if len(value) > MAX_META_CHARACTERS:
            raise Unacceptable(f"{name} is longer than {MAX_META_CHARACTERS}")
        _refuse_unreadable(name, value)
        return value
    _require_text(name, value)
    return str(value)


def _refuse_unreadable(name: str, value: str) -> None:
    """SQLite stores any bytes as text; the connection reads bad ones as lone surrogates."""
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise Unacceptable(f"{name} is not valid UTF-8") from error
    if name.endswith("_path") and len(encoded) > uri.MAX_PATH_BYTES:
        raise Unacceptable(f"{name} is longer than {uri.MAX_PATH_BYTES} bytes")


def _clean_path(name: str, path: str) -> str:
    if path[0] != "/":
        raise Unacceptable(f"{name} does not start with /")
    if "/." not in path and "//" not in path and path[-1] != "/":
        return path
    segments = [segment for segment in path.split("/") if segment not in {"", "."}]
    if ".." in segments:
        raise Unacceptable(f"{name} has a .. segment")
    if not segments:
        raise Unacceptable(f"{name} is the root, which is no entry of its own")
    return "/" + "/".join(segments)


def _target(kind: str, to_path: str | None) -> str | None:
    if kind == "rename":
        if to_path is None:
            raise Unacceptable("a rename needs to_path")
        return _clean_path("to_path", to_path)
    if to_path is not None:
        raise Unacceptable("to_path is for renames only")
    return None


def _whole_meta(value: Any) -> str | None:
    """Return it if it was read to its end: half a document is none."""
    if value is None or len(text := _printable(value)) > MAX_META_CHARACTERS:
        return None
    return text


def _salvage(name: str, value: Any) -> str | None:
    if value is None:
        return None
    text = _printable(value)
    if name.endswith("_path"):
        return text.encode()[: uri.MAX_PATH_BYTES].decode(errors="ignore")
    return text[: LENGTHS[name]]


def _printable(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")

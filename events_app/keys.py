"""Where the keys come from that verify tokens: the secret, a file, or a JWKS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from events_app import errors, jwk, jwks
from events_app.clock import Clock
from events_app.settings import Settings


class Keys(Protocol):
    """A source of keys."""

    def fitting(self, key_id: str | None) -> Sequence[Any]:
        """Return the keys that may have signed a token whose header says `key_id`.

        Raises `KeysAway` where that cannot be told.
        """


class Fixed:
    """Keys that were there at the start; key ids say nothing about them."""

    def __init__(self, keys: Sequence[Any]) -> None:
        """Hold `keys`."""
        self._keys = keys

    def fitting(self, key_id: str | None) -> Sequence[Any]:
        """Return all of them: during a rotation there are two."""
        del key_id
        return self._keys


def source(configured: Settings, clock: Clock) -> Keys:
    """Return where the keys come from; raises `SettingsError` for a file that cannot be used."""
    if configured.jwt_jwks_url:
        fetch = jwks.Address(configured.jwt_jwks_url).read
        return jwks.Fetched(fetch, configured.jwt_algorithm, clock)
    if configured.jwt_public_key_file:
        return Fixed(_read_file(configured.jwt_public_key_file, configured.jwt_algorithm))
    return Fixed([configured.jwt_secret] if configured.jwt_secret else [])


def _read_file(path: str, algorithm: str) -> Sequence[Any]:
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise errors.SettingsError(f"EVENTS_JWT_PUBLIC_KEY_FILE cannot be read: {error}") from error
    try:
        found = jwk.of_pem(text, algorithm)
    except ValueError as error:
        reason = f"EVENTS_JWT_PUBLIC_KEY_FILE: a key in it is none for {algorithm}: {error}"
        raise errors.SettingsError(reason) from error
    if not found:
        raise errors.SettingsError("EVENTS_JWT_PUBLIC_KEY_FILE holds no public key in PEM form")
    return found

"""A token in, an identity out; the only file that knows JWT.

flask-jwt-extended verifies signature, times, issuer and audience. What it leaves open, and the
protocol does not, is checked here: `exp` is required, only access tokens pass, and every failure
is one of our errors.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from flask import Flask
from flask_jwt_extended import JWTManager, get_jwt, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException, WrongTokenError

from events_app import errors
from events_app.settings import Settings

log = logging.getLogger(__name__)

READ_SCOPE = "Files.Read"
# A scope that another one contains.
IMPLIED_BY = {READ_SCOPE: "Files.Write"}

# As wide as the tables' `user_id`: a longer one can have no change.
MAX_USER_ID = 64

JWKS_TIMEOUT_SECONDS = 5


class Identity(NamedTuple):
    """Who is asking. `expires_at` (seconds since 1970) has the leeway in it."""

    user_id: str
    expires_at: float


def configure(app: Flask, settings: Settings) -> None:
    """Make `app` verify tokens as `settings` say; raises `SettingsError` for an unreadable key."""
    app.config.update(
        JWT_ALGORITHM=settings.jwt_algorithm,
        JWT_DECODE_ALGORITHMS=[settings.jwt_algorithm],
        JWT_SECRET_KEY=settings.jwt_secret,
        JWT_PUBLIC_KEY=_public_key(settings.jwt_public_key_file),
        JWT_DECODE_ISSUER=settings.jwt_issuer,
        JWT_DECODE_AUDIENCE=settings.jwt_audience,
        JWT_DECODE_LEEWAY=settings.jwt_leeway_seconds,
        JWT_IDENTITY_CLAIM=settings.jwt_identity_claim,
        JWT_TOKEN_LOCATION=["headers", *(["query_string"] if settings.token_in_query else [])],
        JWT_QUERY_STRING_NAME="access_token",
    )
    manager = JWTManager(app)
    if settings.jwt_jwks_url:
        keys = jwt.PyJWKClient(settings.jwt_jwks_url, timeout=JWKS_TIMEOUT_SECONDS)

        @manager.decode_key_loader
        def key_of(header: dict[str, Any], claims: dict[str, Any]) -> Any:
            del claims
            try:
                return keys.get_signing_key(str(header.get("kid"))).key
            except (ValueError, jwt.PyJWKSetError) as error:
                # Such as an error page with status 200: as good as no answer.
                raise jwt.PyJWKClientConnectionError(f"it is no set of keys: {error}") from error


def _public_key(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise errors.SettingsError(f"EVENTS_JWT_PUBLIC_KEY_FILE cannot be read: {error}") from error


def authenticate(settings: Settings, scope: str) -> Identity:
    """Return who makes the present request.

    `scope` is what a token with a `client_id` claim needs. Raises `Unauthorized`,
    `WrongTokenType` or `MissingScope`.
    """
    claims = _verified_claims()
    if any(claims.get(name, "access") != "access" for name in ("token_type", "type")):
        raise errors.WrongTokenType
    user_id = _user_id(claims.get(settings.jwt_identity_claim))
    if "client_id" in claims and not _scopes(claims) & {scope, IMPLIED_BY[scope]}:
        raise errors.MissingScope(f"the token lacks the scope {scope}")
    return Identity(user_id, _seconds(claims["exp"]) + settings.jwt_leeway_seconds)


def _verified_claims() -> dict[str, Any]:
    try:
        verify_jwt_in_request()
    except WrongTokenError as error:
        raise errors.WrongTokenType from error
    except jwt.ExpiredSignatureError as error:
        raise errors.Unauthorized("the token has expired") from error
    except jwt.PyJWKClientConnectionError as error:
        # Not the token's fault: a 401 would send every client to its login page.
        log.error("the keys that verify tokens cannot be fetched: %s", error)
        raise errors.Unforeseen from error
    except (JWTExtendedException, jwt.PyJWTError) as error:
        raise errors.Unauthorized(f"a valid access token is required: {error}") from error
    except (ValueError, TypeError, OverflowError, LookupError) as error:
        # What the libraries did not think of, such as an infinite `exp` or a header of commas.
        raise errors.Unauthorized from error
    claims: dict[str, Any] = get_jwt()
    if "exp" not in claims:
        raise errors.Unauthorized("the token never expires: exp is required")
    return claims


def _seconds(verified: Any) -> float:
    """Return a verified `exp`, also one beyond every number."""
    try:
        return float(verified)
    except OverflowError:
        return math.inf


def _user_id(claim: Any) -> str:
    if not isinstance(claim, str) or not 0 < len(claim) <= MAX_USER_ID or "\0" in claim:
        raise errors.Unauthorized("the token names no user")
    try:
        claim.encode()
    except UnicodeEncodeError as error:
        raise errors.Unauthorized("the token names no user") from error
    return claim


def _scopes(claims: dict[str, Any]) -> set[str]:
    found = claims.get("scopes", claims.get("scope", ()))
    listed = found.split() if isinstance(found, str) else found
    return set(map(str, listed)) if isinstance(listed, list | tuple) else set()

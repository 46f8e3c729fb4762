"""A token in, an identity out; the only file that knows JWT besides `keys`.

flask-jwt-extended verifies signature, times, issuer and audience. What it leaves open, and the
protocol does not, is checked here: `exp` is required, only access tokens pass, one place in the
request decides, and every failure is one of our errors.
"""

from __future__ import annotations

import logging
import math
import re
from typing import Any, NamedTuple

import jwt
from flask import Flask, current_app, request
from flask_jwt_extended import JWTManager, get_jwt, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException

from events_app import errors, jwk, sidecar
from events_app.settings import Settings

log = logging.getLogger(__name__)

READ_SCOPE = "Files.Read"
WRITE_SCOPE = "Files.Write"
# Of a program that writes for every user, and so is none.
SERVICE_SCOPE = "Events.Write"
# A scope, and those that contain it.
GRANTED_BY = {READ_SCOPE: {READ_SCOPE, WRITE_SCOPE}, WRITE_SCOPE: {WRITE_SCOPE}}

# As wide as the tables' `user_id`: a longer one can have no change.
MAX_USER_ID = 64

CSRF_HEADER = "X-CSRF-TOKEN"
QUERY_PARAMETER = "access_token"

# RFC 9110, section 11.1: the scheme's case does not matter. Several headers are joined by commas.
_BEARER = re.compile(r"(?i)(?:^|,)\s*bearer\b")


class Identity(NamedTuple):
    """Who is asking. `expires_at` (seconds since 1970) has the leeway in it.

    A `service` is no user: it writes for all of them and reads for none. `claims` is for
    `Revocation.watch`.
    """

    user_id: str
    expires_at: float
    service: bool = False
    claims: str = ""


def configure(app: Flask, settings: Settings) -> None:
    """Make `app` verify tokens as `settings` say, with the keys of its sidecar."""
    app.config.update(
        JWT_ALGORITHM=settings.jwt_algorithm,
        JWT_DECODE_ALGORITHMS=[settings.jwt_algorithm],
        JWT_SECRET_KEY=settings.jwt_secret,  # signs what `flask events token` makes
        JWT_DECODE_ISSUER=settings.jwt_issuer,
        JWT_DECODE_AUDIENCE=settings.jwt_audience,
        JWT_DECODE_LEEWAY=settings.jwt_leeway_seconds,
        JWT_IDENTITY_CLAIM=settings.jwt_identity_claim,
        JWT_VERIFY_SUB=False,  # `_user_id` looks at the claim that counts, which may be another
        JWT_QUERY_STRING_NAME=QUERY_PARAMETER,
        JWT_ACCESS_COOKIE_NAME=settings.token_cookie,
        JWT_ACCESS_CSRF_HEADER_NAME=CSRF_HEADER,
    )
    source = sidecar.of(app).keys

    @JWTManager(app).decode_key_loader
    def keys_of(header: dict[str, Any], claims: dict[str, Any]) -> jwk.AnyOf:
        del claims
        if header.get("alg") != settings.jwt_algorithm:
            raise jwt.InvalidAlgorithmError("The specified alg value is not allowed")
        found = source.fitting(header.get("kid"))
        if not found:
            raise jwt.InvalidKeyError("no key that is known here has signed it")
        return jwk.AnyOf(found, settings.jwt_algorithm)


def authenticate(settings: Settings, scope: str) -> Identity:
    """Return who makes the present request.

    `scope` is `READ_SCOPE` or `WRITE_SCOPE`: what a token with a `client_id` claim needs. Raises
    `Unauthorized`, `WrongTokenType` or `MissingScope`, and `Unforeseen` where nobody can tell.
    """
    claims = _verified_claims(_location(settings))
    # What names nobody was never a token of ours: it is bad before it is of a wrong type.
    user_id = _user_id(claims.get(settings.jwt_identity_claim))
    if any(claims.get(name, "access") != "access" for name in ("token_type", "type")):
        raise errors.WrongTokenType
    service = _check_scope(claims, scope)
    expires_at = _seconds(claims["exp"]) + settings.jwt_leeway_seconds
    kept = sidecar.of(current_app).revocation.admit(claims)
    return Identity(user_id, expires_at, service, kept)


def _check_scope(claims: dict[str, Any], scope: str) -> bool:
    """Return whether the token is a service's; raises `MissingScope`."""
    scopes = _scopes(claims)
    service = SERVICE_SCOPE in scopes
    if service and scope == READ_SCOPE:
        raise errors.MissingScope("a service is no user: it writes for all and reads for none")
    if not service and "client_id" in claims and not scopes & GRANTED_BY[scope]:
        raise errors.MissingScope(f"the token lacks the scope {scope}")
    return service


def _location(settings: Settings) -> str:
    """Return where the one token is that counts, in the words of flask-jwt-extended.

    The first place that holds a token decides, good or bad: a wrong one in the header is not made
    good by a right one in a cookie.
    """
    if _BEARER.search(request.headers.get("Authorization", "")):
        return "headers"
    if settings.token_in_cookie and request.cookies.get(settings.token_cookie):
        return "cookies"
    in_query = request.args.getlist(QUERY_PARAMETER) if settings.token_in_query else []
    if len(in_query) > 1:
        raise errors.Unauthorized(f"{QUERY_PARAMETER} is given {len(in_query)} times")
    return "query_string" if in_query else "headers"


def _verified_claims(location: str) -> dict[str, Any]:
    try:
        verify_jwt_in_request(locations=[location], verify_type=False)
    except jwt.ExpiredSignatureError as error:
        raise errors.Unauthorized("the token has expired") from error
    except errors.KeysAway as error:
        # Not the token's fault: a 401 would send every client to its login page.
        log.error("a request is refused, its token cannot be verified: %s", error)
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

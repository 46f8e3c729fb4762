"""One public key: what is taken out of a JWK or a PEM block for one algorithm, and what is not.

A key is used only for the one configured algorithm, and only its public part.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

log = logging.getLogger(__name__)

_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)
# RFC 7518, section 6: what makes up a public key. What else stands in a JWK may be the private one.
_PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e")
# RFC 7518, section 3.1, and RFC 8037: the key type of each algorithm, and its curves.
_KEY_TYPES: dict[str, tuple[str, frozenset[str | None]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512"), ("RSA", frozenset({None}))),
    "ES256": ("EC", frozenset({"P-256"})),
    "ES384": ("EC", frozenset({"P-384"})),
    "ES512": ("EC", frozenset({"P-521"})),
    "EdDSA": ("OKP", frozenset({"Ed25519", "Ed448"})),
}


class Named(NamedTuple):
    """A public key and its id, if it has one."""

    key_id: str | None
    key: Any


def of_pem(text: str, algorithm: str) -> Sequence[Any]:
    """Return the keys in `text`; raises ValueError for any that is none for `algorithm`.

    Nobody puts a key there that is not to be used.
    """
    blocks = [match[0].encode() for match in _PEM.finditer(text)]
    try:
        return [_checked(load_pem_public_key(block), algorithm) for block in blocks]
    except (TypeError, UnsupportedAlgorithm, jwt.PyJWTError) as error:
        raise ValueError(str(error)) from error


def of_jwk(jwk: Any, algorithm: str) -> Named | None:
    """Return the key in a JWK, or nothing when it is not for verifying with `algorithm`."""
    if not isinstance(jwk, dict) or not _is_meant_for(jwk, algorithm):
        return None
    public = {name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}
    key_id = jwk.get("kid")
    try:
        verifier = jwt.get_algorithm_by_name(algorithm)
        key = _checked(verifier.from_jwk(public), algorithm)
    except (ValueError, TypeError, UnsupportedAlgorithm, jwt.PyJWTError) as error:
        log.warning("a key of the JWKS is left out: %s", error)
        return None
    return Named(key_id if isinstance(key_id, str) else None, key)


def _is_meant_for(jwk: dict[str, Any], algorithm: str) -> bool:
    """RFC 7517, sections 4.2 to 4.4: what is left out allows everything."""
    kind, curves = _KEY_TYPES[algorithm]
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("kty") == kind
        and _is_one_of(jwk.get("crv"), curves)
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
    )


def _is_one_of(curve: Any, curves: frozenset[str | None]) -> bool:
    return (curve is None or isinstance(curve, str)) and curve in curves


def _checked(key: Any, algorithm: str) -> Any:
    """Return `key`; raises ValueError, TypeError or PyJWTError for one of another type or size.

    RFC 7518, section 3.3: RSA keys have 2048 bits or more.
    """
    verifier = jwt.get_algorithm_by_name(algorithm)
    prepared = verifier.prepare_key(key)
    if complaint := verifier.check_key_length(prepared):
        raise ValueError(complaint)
    return prepared


class AnyOf(jwt.PyJWK):
    """Several keys of which one must have signed; PyJWT itself takes one."""

    def __init__(self, keys: Sequence[Any], algorithm: str) -> None:
        """Bind `keys` to `algorithm`."""
        each: Any = _Each(jwt.get_algorithm_by_name(algorithm))
        self._jwk_data = {}
        self.algorithm_name = algorithm
        self.Algorithm = each
        self.key = keys


class _Each:
    """Of an algorithm, what verifies; its key is several keys."""

    def __init__(self, one: jwt.algorithms.Algorithm) -> None:
        self._one = one

    def prepare_key(self, keys: Sequence[Any]) -> Sequence[Any]:
        return [self._one.prepare_key(key) for key in keys]

    def check_key_length(self, keys: Sequence[Any]) -> None:
        """Say nothing: settings and `_checked` have seen to it."""

    def verify(self, message: bytes, keys: Sequence[Any], signature: bytes) -> bool:
        return any(self._one.verify(message, key, signature) for key in keys)

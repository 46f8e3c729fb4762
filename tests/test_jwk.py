"""Which keys are taken for which algorithm, from a JWKS and from a file."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from events_app import jwk
from tests import key_server
from tests.key_server import EC, ED, KEYS, OTHER_RSA, RSA, public_pem

P384 = ec.generate_private_key(ec.SECP384R1())
ED448 = ed448.Ed448PrivateKey.generate()
SHORT = key_server.new_rsa(1_024)


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("more", [{}, {"use": "sig"}, {"key_ops": ["verify"]}, {"alg": None}])
def test_a_key_that_is_meant_for_it_is_taken(algorithm: str, more: dict[str, Any]) -> None:
    given = key_server.jwk(KEYS[algorithm], "one", algorithm, **more)
    found = jwk.of_jwk(given, algorithm)
    assert found is not None
    assert (found.key_id, public_pem_of(found.key)) == ("one", public_pem(KEYS[algorithm]))


def public_pem_of(key: Any) -> bytes:
    return bytes(
        key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def secret_jwk() -> dict[str, str]:
    return jwt.algorithms.HMACAlgorithm.to_jwk(
        "a secret of more than thirty-two bytes", as_dict=True
    )


LEFT_OUT: dict[str, tuple[Any, str]] = {
    "not an object": (["RSA"], "RS256"),
    "no type": (key_server.jwk(RSA, kty=None), "RS256"),
    "a type that is no text": (key_server.jwk(RSA, kty=["RSA"]), "RS256"),
    "a secret": (secret_jwk(), "RS256"),
    "for encryption": (key_server.jwk(RSA, use="enc"), "RS256"),
    "for signing, by the one who has the other half": (
        key_server.jwk(RSA, key_ops=["sign"]),
        "RS256",
    ),
    "operations that are no list": (key_server.jwk(RSA, key_ops="verify"), "RS256"),
    "another algorithm": (key_server.jwk(RSA, alg="RS512"), "RS256"),
    "a symmetric algorithm": (key_server.jwk(RSA, alg="HS256"), "RS256"),
    "another type": (key_server.jwk(EC, algorithm="ES256"), "RS256"),
    "another type of curve": (key_server.jwk(ED, algorithm="EdDSA"), "ES256"),
    "another curve": (key_server.jwk(P384, algorithm="ES384"), "ES256"),
    "a curve that is no text": (key_server.jwk(EC, algorithm="ES256", crv=["P-256"]), "ES256"),
    "no curve": (key_server.jwk(EC, algorithm="ES256", crv=None), "ES256"),
    "not on the curve": (key_server.jwk(EC, algorithm="ES256", x="AAAA"), "ES256"),
    "too short": (key_server.jwk(SHORT), "RS256"),
    "no modulus": (key_server.jwk(RSA, n=None), "RS256"),
    "a modulus that is no base64": (key_server.jwk(RSA, n="!"), "RS256"),
    "a modulus that is no text": (key_server.jwk(RSA, n=7), "RS256"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_key_for_something_else_is_left_out(name: str) -> None:
    given, algorithm = LEFT_OUT[name]
    assert jwk.of_jwk(given, algorithm) is None


def test_of_a_private_key_only_the_public_half_is_taken() -> None:
    """Some servers publish too much; that is theirs to mend, and verifying goes on."""
    private = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA))
    assert private.pop("key_ops") == ["sign"]
    assert "d" in private
    found = jwk.of_jwk(private, "RS256")
    assert found is not None
    assert public_pem_of(found.key) == public_pem(RSA)


def test_a_key_id_that_is_no_text_is_none() -> None:
    found = jwk.of_jwk(key_server.jwk(RSA) | {"kid": 1}, "RS256")
    assert found is not None
    assert found.key_id is None


def test_a_file_may_have_several_keys_and_words_between_them() -> None:
    text = "the old one:\n" + public_pem(RSA).decode() + "\nthe new one:\n"
    found = jwk.of_pem(text + public_pem(OTHER_RSA).decode(), "RS256")
    assert [public_pem_of(key) for key in found] == [public_pem(RSA), public_pem(OTHER_RSA)]


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("RS256", EC), ("ES256", RSA), ("ES256", P384), ("EdDSA", EC), ("RS256", SHORT)],
)
def test_a_file_with_a_key_that_does_not_fit_is_refused(algorithm: str, key: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        jwk.of_pem(public_pem(key).decode(), algorithm)


def test_a_file_with_a_private_key_is_refused() -> None:
    pem = RSA.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(ValueError, match=r"."):
        jwk.of_pem(public_pem(RSA).decode() + pem.decode(), "RS256")


def test_any_of_several_keys_may_have_signed_and_no_other() -> None:
    both = jwk.AnyOf(jwk.of_pem(public_pem(RSA, OTHER_RSA).decode(), "RS256"), "RS256")
    for key in (RSA, OTHER_RSA):
        text = key_server.signed_by(key)
        assert jwt.decode(text, both, algorithms=["RS256"])["sub"] == "42"
    foreign = key_server.signed_by(key_server.new_rsa())
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(foreign, both, algorithms=["RS256"])


def test_both_curves_of_eddsa_are_taken() -> None:
    found = jwk.of_pem(public_pem(ED, ED448).decode(), "EdDSA")
    assert len(found) == 2

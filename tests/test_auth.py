"""A token in, an identity out: what passes, what does not, and with which error."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flask import Flask

from events_app import auth, errors, sidecar
from tests import tokens
from tests.serving import free_port
from tests.tokens import SECRET, bearer, claims, handmade, signed, token

RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def public_pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def identity(
    app: Flask, text: str | None, scope: str = auth.READ_SCOPE, query: str = ""
) -> auth.Identity:
    headers = bearer(text) if text is not None else {}
    with app.test_request_context(f"/{query}", headers=headers):
        return auth.authenticate(sidecar.of(app).settings, scope)


@pytest.fixture(scope="module")
def app() -> Flask:
    return tokens.app(JWT_LEEWAY="60")


def refusal(app: Flask, text: str | None, query: str = "") -> type[errors.EventsError]:
    with pytest.raises(errors.RequestError) as caught:
        identity(app, text, query=query)
    return caught.type


# -- what passes ---------------------------------------------------------------------------------


def test_a_good_token_names_its_user_and_its_end(app: Flask) -> None:
    end = int(time.time()) + 100
    assert identity(app, token(exp=end)) == auth.Identity("42", end + 60.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"token_type": "access"},
        {"type": "access"},
        {"sub": "x" * 64},
        {"sub": "é@example.org"},
        {"aud": "anybody", "iss": "anybody"},
        {"client_id": "app", "scopes": ["Files.Read"]},
        {"client_id": "app", "scopes": ["Files.Write"]},
        {"client_id": "app", "scope": "openid Files.Read"},
        {"scopes": []},
    ],
)
def test_a_token_passes(app: Flask, changed: dict[str, Any]) -> None:
    found = identity(app, token(**changed))
    assert found.user_id == changed.get("sub", "42")


@pytest.mark.parametrize(("claim", "seconds"), [("exp", -30), ("nbf", 30), ("iat", 30)])
def test_a_clock_may_be_off_by_the_leeway(app: Flask, claim: str, seconds: int) -> None:
    changed: dict[str, Any] = {claim: int(time.time()) + seconds}
    assert identity(app, token(**changed)).user_id == "42"


@pytest.mark.parametrize("exp", [10**400, 1e300, 10**18])
def test_an_end_beyond_every_number_is_no_end(app: Flask, exp: float) -> None:
    assert identity(app, token(exp=exp)).expires_at >= 10**18


def test_the_identity_claim_is_a_setting() -> None:
    app = tokens.app(JWT_IDENTITY_CLAIM="uid")
    assert identity(app, token(uid="7")).user_id == "7"
    assert identity(app, token(uid="7", sub=None)).user_id == "7"
    assert refusal(app, token()) is errors.Unauthorized


# -- what does not -------------------------------------------------------------------------------

NOT_VERIFIED = {
    "none at all": None,
    "empty": "",
    "no token": "x",
    "three dots": "a.b.c",
    "not ASCII": "é.é.é",
    "algorithm none": handmade({"alg": "none", "typ": "JWT"}, json.dumps(claims())),
    "algorithm None": handmade({"alg": "None"}, json.dumps(claims())),
    "no algorithm": handmade({}, json.dumps(claims())),
    "other algorithm, same key": token(SECRET * 2, "HS384"),
    "other key": token("another secret of more than 32 bytes"),
    "expired": token(exp=int(time.time()) - 90),
    "expired refresh token": token(exp=int(time.time()) - 90, token_type="refresh"),
    "not yet valid": token(nbf=int(time.time()) + 86_400),
    "issued later": token(iat=int(time.time()) + 86_400),
    "no end": token(exp=None),
    "an end that is no number": token(exp="tomorrow"),
    "infinite end": signed('{"sub": "42", "exp": Infinity}'),
    "end NaN": signed('{"sub": "42", "exp": NaN}'),
    "end null": signed('{"sub": "42", "exp": null}'),
    "end a list": signed('{"sub": "42", "exp": [99999999999]}'),
    "start infinite": signed('{"sub": "42", "exp": 99999999999, "nbf": Infinity}'),
    "subject a number": signed('{"sub": 42, "exp": 99999999999}'),
    "subject null": signed('{"sub": null, "exp": 99999999999}'),
    "subject a list": signed('{"sub": ["42"], "exp": 99999999999}'),
    "no subject": token(sub=None),
    "subject empty": token(sub=""),
    "subject too long": token(sub="x" * 65),
    "subject with NUL": token(sub="4\0002"),
    "subject a lone surrogate": signed('{"sub": "\\ud800", "exp": 99999999999}'),
    "claims a list": signed("[]"),
    "claims a number": signed("1"),
    "claims no JSON": signed("{"),
    "claims nested deeply": signed("[" * 100_000),
    "signature cut": token()[:-4],
    "claims changed": ".".join(
        [token().split(".")[0], token(sub="43").split(".")[1], token().split(".")[2]]
    ),
}


@pytest.mark.parametrize("name", NOT_VERIFIED)
def test_what_is_not_a_verified_token_of_a_user_is_401(app: Flask, name: str) -> None:
    assert refusal(app, NOT_VERIFIED[name]) is errors.Unauthorized


@pytest.mark.parametrize(
    "header",
    [
        *("Basic NDI6cHc=", "Bearer", "Bearer a b", "bearer", "Token x", "Bearer  "),
        *(", ,", ",", ",Bearer", "Bearer x, Bearer y", "Bearer \udcff.a.b"),
    ],
)
def test_another_kind_of_authorization_is_401(app: Flask, header: str) -> None:
    with (
        app.test_request_context("/", headers={"Authorization": header}),
        pytest.raises(errors.Unauthorized),
    ):
        auth.authenticate(sidecar.of(app).settings, auth.READ_SCOPE)


@pytest.mark.parametrize(
    "changed",
    [
        {"token_type": "refresh"},
        {"type": "refresh"},
        {"type": "id"},
        {"token_type": "Access"},
        {"token_type": ""},
        {"token_type": 1},
        {"token_type": ["access"]},
        {"type": "access", "token_type": "refresh"},
        {"type": "refresh", "token_type": "access"},
        {"type": "refresh", "client_id": "app"},
    ],
)
def test_a_verified_token_of_another_type_is_40020(app: Flask, changed: dict[str, Any]) -> None:
    assert refusal(app, token(**changed)) is errors.WrongTokenType


def test_a_type_of_null_is_not_access(app: Flask) -> None:
    text = signed('{"sub": "42", "exp": 99999999999, "token_type": null}')
    assert refusal(app, text) is errors.WrongTokenType


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"scopes": []},
        {"scopes": ["files.read"]},
        {"scopes": "Files.ReadAll"},
        {"scope": "openid"},
        {"scopes": {"Files.Read": True}},
        {"scopes": 1},
        {"scopes": None},
    ],
)
def test_a_third_partys_token_without_the_scope_is_40089(
    app: Flask, changed: dict[str, Any]
) -> None:
    assert refusal(app, token(client_id="app", **changed)) is errors.MissingScope


def test_an_empty_client_id_is_a_third_party_too(app: Flask) -> None:
    assert refusal(app, token(client_id="")) is errors.MissingScope


# -- settings ------------------------------------------------------------------------------------


def test_issuer_and_audience_count_once_they_are_set() -> None:
    app = tokens.app(JWT_ISSUER="https://files", JWT_AUDIENCE="events")
    assert identity(app, token(iss="https://files", aud="events")).user_id == "42"
    assert identity(app, token(iss="https://files", aud=["x", "events"])).user_id == "42"
    for wrong in (
        {},
        {"iss": "https://files"},
        {"aud": "events"},
        {"iss": "x", "aud": "events"},
        {"iss": "https://files", "aud": "x"},
    ):
        assert refusal(app, token(**wrong)) is errors.Unauthorized, wrong


def test_a_token_in_the_query_counts_only_where_it_is_allowed(app: Flask) -> None:
    query = f"?access_token={token()}"
    assert refusal(app, None, query) is errors.Unauthorized
    allowing = tokens.app(TOKEN_IN_QUERY="true")
    assert identity(allowing, None, query=query).user_id == "42"


def test_the_header_comes_before_the_query() -> None:
    app = tokens.app(TOKEN_IN_QUERY="true")
    query = f"?access_token={token(sub='query')}"
    assert identity(app, token(sub="header"), query=query).user_id == "header"


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_public_key_verifies(algorithm: str, tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_bytes(public_pem(KEYS[algorithm]))
    app = tokens.app(JWT_ALGORITHM=algorithm, JWT_PUBLIC_KEY_FILE=str(pem))
    assert identity(app, token(KEYS[algorithm], algorithm)).user_id == "42"
    for other in KEYS.keys() - {algorithm}:
        assert refusal(app, token(KEYS[other], other)) is errors.Unauthorized


def test_the_public_key_is_no_shared_secret(tmp_path: Path) -> None:
    """Everybody has it: an HS256 token signed with its text must not pass."""
    pem = tmp_path / "key.pem"
    pem.write_bytes(public_pem(RSA))
    app = tokens.app(JWT_ALGORITHM="RS256", JWT_PUBLIC_KEY_FILE=str(pem))
    payload = json.dumps(claims()).encode()
    text = handmade({"alg": "HS256", "typ": "JWT"}, payload.decode())
    signing = text.rpartition(".")[0].encode()
    forged = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = forged.sign(signing, pem.read_bytes())
    text = handmade({"alg": "HS256", "typ": "JWT"}, payload.decode(), signature)
    assert refusal(app, text) is errors.Unauthorized


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_key_that_cannot_be_read_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    pem = tmp_path / "key.pem"
    if content is not None:
        pem.write_bytes(content)
    with pytest.raises(errors.SettingsError, match="EVENTS_JWT_PUBLIC_KEY_FILE"):
        tokens.app(JWT_ALGORITHM="RS256", JWT_PUBLIC_KEY_FILE=str(pem))


def test_keys_that_cannot_be_fetched_are_not_the_tokens_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A 401 would send every client to its login page."""
    app = tokens.app(JWT_ALGORITHM="RS256", JWT_JWKS_URL=f"http://127.0.0.1:{free_port()}/keys")
    good = jwt.encode(claims(), RSA, "RS256", headers={"kid": "one"})
    assert refusal(app, good) is errors.Unforeseen
    assert "cannot be fetched" in caplog.text


@pytest.fixture
def jwks() -> Iterator[str]:
    """Serve the public half of RSA as key `one`."""
    key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()))
    document = json.dumps({"keys": [key | {"kid": "one", "use": "sig", "alg": "RS256"}]}).encode()
    with served(document) as address:
        yield address


@contextlib.contextmanager
def served(document: bytes) -> Iterator[str]:
    """Serve a document by HTTP, with status 200."""

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/keys"
        server.shutdown()


def test_a_jwks_verifies_by_the_tokens_key_id(jwks: str) -> None:
    app = tokens.app(JWT_ALGORITHM="RS256", JWT_JWKS_URL=jwks)
    good = jwt.encode(claims(), RSA, "RS256", headers={"kid": "one"})
    assert identity(app, good).user_id == "42"
    other = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    for key, headers in ((RSA, {"kid": "two"}), (RSA, {}), (other, {"kid": "one"})):
        wrong = jwt.encode(claims(), key, "RS256", headers=headers)
        assert refusal(app, wrong) is errors.Unauthorized


@pytest.mark.parametrize("document", [b"<html>Back soon</html>", b"\xff", b'{"keys": []}'])
def test_an_answer_that_holds_no_keys_is_not_the_tokens_fault(document: bytes) -> None:
    """An outage page comes with status 200 as well."""
    good = jwt.encode(claims(), RSA, "RS256", headers={"kid": "one"})
    with served(document) as address:
        app = tokens.app(JWT_ALGORITHM="RS256", JWT_JWKS_URL=address)
        assert refusal(app, good) is errors.Unforeseen

"""Each fault of a token, in each place of a request, at reading and at writing.

Every cell is one exact status and code, and never the server's fault.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Response, current_app

from events_app import auth, sidecar
from tests import key_server, tokens
from tests.key_server import EC, OTHER_RSA, RSA, KeyServer, public_pem
from tests.tokens import EVENTS_PATH, claims, handmade

PLACES = ("header", "cookie", "query")
WRITING_PATH = "/written"
CSRF = "known to our own pages only"

UNAUTHORIZED = (401, 401)
WRONG_TYPE = (401, 40020)
NO_SCOPE = (403, 40089)
PASSES = (200, 0)
# The next check of the stream's door: a stream is not begun just to see that it would be.
NEXT_CHECK = (400, 40001)


def now() -> int:
    return int(time.time())


def right(**changed: Any) -> dict[str, Any]:
    """Make the claims of a token that passes; a claim of None is left out."""
    found = {"iss": "https://files.example", "aud": "events", "csrf": CSRF}
    return claims(**(found | changed))


class Signer:
    """Signs as the app next door does, with what its algorithm needs."""

    def __init__(self, algorithm: str, key: Any, public: bytes) -> None:
        self.algorithm = algorithm
        self.public = public
        self._key = key

    def good(self, **changed: Any) -> str:
        """Sign a token; a claim of None is left out."""
        return self.signed(right(**changed))

    def signed(self, payload: dict[str, Any] | str, **header: Any) -> str:
        """Sign any claims, or any text, under any further header."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        return jwt.api_jws.encode(text.encode(), self._key, self.algorithm, headers=header)

    def parts(self, **changed: Any) -> list[str]:
        """Sign a token and take it apart: header, claims, signature."""
        return self.good(**changed).split(".")


def with_claim(name: str, value: object) -> Callable[[Signer], str]:
    return lambda by: by.signed(right() | {name: value})


def without(name: str) -> Callable[[Signer], str]:
    return lambda by: by.good(**{name: None})


def text_of(payload: str) -> Callable[[Signer], str]:
    return lambda by: by.signed(payload)


def literally(text: str) -> Callable[[Signer], str]:
    return lambda _: text


def unsigned(**header: object) -> Callable[[Signer], str]:
    return literally(handmade(header, json.dumps(right())))


def with_header(**header: object) -> Callable[[Signer], str]:
    return lambda by: by.signed(right(), **header)


def third_party(*scopes: object) -> Callable[[Signer], str]:
    return lambda by: by.good(client_id="app", scopes=list(scopes))


def confused(by: Signer) -> str:
    """Sign with a secret that everybody has: the text of the public key.

    PyJWT refuses to make such a token, so its parts are put together here.
    """
    text = handmade({"alg": "HS256", "typ": "JWT"}, json.dumps(right())).rpartition(".")[0]
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    return text + "." + jwt.utils.base64url_encode(hmac.sign(text.encode(), by.public)).decode()


# What is wrong with it; what reading and writing answer to it.
Fault = tuple[Callable[[Signer], str], tuple[int, int], tuple[int, int]]


def both(make: Callable[[Signer], str], answer: tuple[int, int] = UNAUTHORIZED) -> Fault:
    return make, answer, answer


FAULTS: dict[str, Fault] = {
    "none": both(Signer.good, PASSES),
    "garbage": both(literally("x")),
    "three parts of garbage": both(literally("a.b.c")),
    "two parts": both(lambda by: ".".join(by.parts()[:2])),
    "four parts": both(lambda by: by.good() + ".x"),
    "five parts, as of an encrypted token": both(literally("e30.e30.e30.e30.e30")),
    "10 kB of garbage": both(literally("x" * 10_000)),
    "10 kB, well signed, too long a user": both(with_claim("sub", "x" * 10_000)),
    "10 kB, well signed": both(with_claim("padding", "x" * 6_000), PASSES),
    "algorithm none": both(unsigned(alg="none")),
    "algorithm NONE": both(unsigned(alg="NONE")),
    "algorithm empty": both(unsigned(alg="")),
    "no algorithm": both(unsigned()),
    "algorithm unknown": both(unsigned(alg="XS256")),
    "header no object": both(literally("W10.e30.e30")),
    "key id a number": both(lambda by: handmade({"alg": by.algorithm, "kid": 1}, "{}")),
    "critical header that nobody knows": both(with_header(crit=["wanted"])),
    "payload detached": both(lambda by: handmade({"alg": by.algorithm, "b64": False}, "")),
    "signature cut": both(lambda by: by.good()[:-4]),
    "signature empty": both(lambda by: ".".join([*by.parts()[:2], ""])),
    "signature of another token": both(
        lambda by: ".".join([*by.parts()[:2], by.parts(sub="43")[2]])
    ),
    "claims of another token": both(
        lambda by: ".".join([by.parts()[0], by.parts(sub="43")[1], by.parts()[2]])
    ),
    "signed by the text of the public key": both(confused),
    "signed by somebody else": both(
        lambda by: jwt.encode(right(), STRANGERS[by.algorithm], by.algorithm)
    ),
    "expired": both(lambda by: by.good(exp=now() - 90)),
    "expired within the leeway": both(lambda by: by.good(exp=now() - 30), PASSES),
    "no end": both(without("exp")),
    "end null": both(with_claim("exp", None)),
    "end a word": both(with_claim("exp", "tomorrow")),
    "end a list": both(with_claim("exp", [99_999_999_999])),
    "end infinite": both(text_of('{"sub": "42", "exp": Infinity}')),
    "end NaN": both(text_of('{"sub": "42", "exp": NaN}')),
    "not yet": both(lambda by: by.good(nbf=now() + 90)),
    "not yet, within the leeway": both(lambda by: by.good(nbf=now() + 30), PASSES),
    "start a word": both(with_claim("nbf", "today")),
    "issued later": both(lambda by: by.good(iat=now() + 90)),
    "another issuer": both(lambda by: by.good(iss="https://evil.example")),
    "no issuer": both(without("iss")),
    "issuer a list": both(with_claim("iss", ["https://files.example"])),
    "another audience": both(lambda by: by.good(aud="mail")),
    "no audience": both(without("aud")),
    "one of several audiences": both(lambda by: by.good(aud=["mail", "events"]), PASSES),
    "audience a number": both(with_claim("aud", 1)),
    "no user": both(without("sub")),
    "user a number": both(with_claim("sub", 42)),
    "user null": both(with_claim("sub", None)),
    "user empty": both(with_claim("sub", "")),
    "user too long": both(with_claim("sub", "x" * 65)),
    "user with NUL": both(with_claim("sub", "4\0002")),
    "user half a character": both(with_claim("sub", "\ud800")),
    "claims a list": both(text_of("[]")),
    "claims no JSON": both(text_of("{")),
    "claims nested deeply": both(text_of("[" * 3_000)),
    "a refresh token": both(lambda by: by.good(token_type="refresh"), WRONG_TYPE),
    "a refresh token of flask-jwt-extended": both(lambda by: by.good(type="refresh"), WRONG_TYPE),
    "type null": both(with_claim("token_type", None), WRONG_TYPE),
    "type a list": both(with_claim("token_type", ["access"]), WRONG_TYPE),
    "type in capitals": both(lambda by: by.good(token_type="ACCESS"), WRONG_TYPE),
    "an expired refresh token": both(lambda by: by.good(token_type="refresh", exp=now() - 90)),
    "a third party's without scopes": both(third_party(), NO_SCOPE),
    "a third party's with other scopes": both(third_party("UserInfo.Read"), NO_SCOPE),
    "a third party's with scopes of another kind": both(third_party(1, None, ["x"]), NO_SCOPE),
    "a third party's that reads": (third_party("Files.Read"), PASSES, NO_SCOPE),
    "a third party's that writes": both(third_party("Files.Write"), PASSES),
    "a service's": (third_party("Events.Write"), NO_SCOPE, PASSES),
    "a service's refresh token": both(
        lambda by: by.good(scopes=["Events.Write"], type="refresh"), WRONG_TYPE
    ),
}


STRANGERS: dict[str, Any] = {
    "HS256": "another secret of more than thirty-two bytes",
    "RS256": OTHER_RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}
SETTINGS = {
    "TOKEN_IN_QUERY": "true",
    "TOKEN_IN_COOKIE": "true",
    "JWT_ISSUER": "https://files.example",
    "JWT_AUDIENCE": "events",
}


def written() -> Response:
    """Stand for a door that writes."""
    auth.authenticate(sidecar.of(current_app).settings, auth.WRITE_SCOPE)
    return Response("written")


class Site:
    """An app under one algorithm, and the one who signs for it."""

    def __init__(self, signer: Signer, **variables: str) -> None:
        self.signer = signer
        self._app = tokens.app(**SETTINGS, **variables)
        self._app.add_url_rule(WRITING_PATH, view_func=written, methods=["POST"])

    def answer(self, place: str, text: str, *, writing: bool) -> tuple[int, int]:
        """Return status and code; a reader asks for a folder that there is not."""
        headers, query = {"X-CSRF-TOKEN": CSRF}, {"uri": "cloudreve://trash"}
        if place == "header":
            headers["Authorization"] = f"Bearer {text}"
        elif place == "header in small letters":
            headers["Authorization"] = f"bearer {text}"
        elif place == "two headers":
            headers["Authorization"] = f"Bearer {text},Bearer {text}"
        elif place == "cookie":
            headers["Cookie"] = f"access_token_cookie={text}"
        else:
            query["access_token"] = text
        path, method = (WRITING_PATH, "POST") if writing else (EVENTS_PATH, "GET")
        client = self._app.test_client(use_cookies=False)
        answer = client.open(path, method=method, headers=headers, query_string=query)
        found = answer.status_code, answer.get_json()["code"] if answer.is_json else 0
        return PASSES if found == NEXT_CHECK else found


@pytest.fixture(scope="module", params=["HS256", "RS256 by file", "ES256 by JWKS"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    if request.param == "HS256":
        yield Site(Signer("HS256", tokens.SECRET, b"no public key, but some text"))
    elif request.param == "RS256 by file":
        pem = tmp_path_factory.mktemp("keys") / "key.pem"
        pem.write_bytes(public_pem(RSA))
        signer = Signer("RS256", RSA, pem.read_bytes())
        yield Site(signer, JWT_ALGORITHM="RS256", JWT_PUBLIC_KEY_FILE=str(pem))
    else:
        with KeyServer(key_server.jwks(key_server.jwk(EC, "one", "ES256"))) as server:
            signer = Signer("ES256", EC, server.document)
            yield Site(signer, JWT_ALGORITHM="ES256", JWT_JWKS_URL=server.url)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_one_answer_wherever_the_token_is(site: Site, fault: str) -> None:
    make, reading, writing = FAULTS[fault]
    text = make(site.signer)
    found = {
        (place, door): site.answer(place, text, writing=door == "writing")
        for place in PLACES
        for door in ("reading", "writing")
    }
    answers = {"reading": reading, "writing": writing}
    assert found == {(place, door): answers[door] for place, door in found}


@pytest.mark.parametrize("place", ["header in small letters", "two headers"])
@pytest.mark.parametrize("fault", ["none", "expired", "a refresh token", "a service's"])
def test_a_header_of_another_form_is_refused_whatever_is_in_it(
    site: Site, place: str, fault: str
) -> None:
    """The clients that this speaks to write it in one way; a server joins two headers so."""
    text = FAULTS[fault][0](site.signer)
    for writing in (False, True):
        assert site.answer(place, text, writing=writing) == UNAUTHORIZED

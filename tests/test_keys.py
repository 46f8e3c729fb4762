"""Where the keys come from, as the how-to page says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from flask import Flask, current_app

from events_app import auth, errors, settings, sidecar
from events_app.keys import Fixed, source
from tests import conftest, key_server, tokens
from tests.databases import ROOT
from tests.manual_clock import ManualClock
from tests.test_auth import identity

PAGE = (ROOT / "docs/how-to/tokens.md").read_text()
KINDS = {
    "EdDSA": "-algorithm ed25519",
    "RS256": "-algorithm RSA -pkeyopt rsa_keygen_bits:3072",
    "ES256": "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
}


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_pair_made_as_the_page_says_signs_and_verifies(algorithm: str, tmp_path: Path) -> None:
    conftest.toolchain("openssl")
    (commands,) = re.findall(r"```sh\n(openssl.*?)```", PAGE, re.DOTALL)
    assert KINDS[algorithm] in PAGE
    commands = commands.replace(KINDS["EdDSA"], KINDS[algorithm])
    subprocess.run(["bash", "-ec", commands], cwd=tmp_path, check=True, capture_output=True)
    public = str(tmp_path / "public.pem")
    app = tokens.app(JWT_ALGORITHM=algorithm, JWT_PUBLIC_KEY_FILE=public)
    signed = jwt.encode(tokens.claims(), (tmp_path / "private.pem").read_text(), algorithm)
    assert identity(app, signed).user_id == "42"
    with pytest.raises(errors.SettingsError, match="EVENTS_JWT_PUBLIC_KEY_FILE"):
        tokens.app(JWT_ALGORITHM=algorithm, JWT_PUBLIC_KEY_FILE=str(tmp_path / "private.pem"))


def test_without_any_key_there_is_a_source_of_none() -> None:
    """Commands that see no token need none."""
    found = source(settings.load({}), ManualClock())
    assert isinstance(found, Fixed)
    assert found.fitting(None) == []


PAGES_MESSAGES = re.findall(r"^\| 401 (.*?)(?:, at once)? \|", PAGE, re.MULTILINE)


def test_the_reasons_on_the_page_are_those_that_are_answered() -> None:
    """People search for them."""
    said = {message for cell in PAGES_MESSAGES for message in re.findall(r"\*(.+?)\*", cell)}
    found = set(answered())
    assert said
    assert {each for each in said if not any(each in message for message in found)} == set()


def answered() -> Iterator[str]:
    """Yield the messages of what goes wrong when something is set up wrongly."""
    plain = tokens.app(JWT_ISSUER="https://files", JWT_AUDIENCE="events", TOKEN_IN_COOKIE="true")
    right = {"iss": "https://files", "aud": "events"}
    yield said_to(plain, tokens.token("another secret of more than 32 bytes", **right))
    yield said_to(plain, tokens.token(tokens.SECRET * 2, "HS512", **right))
    yield said_to(plain, tokens.token(exp=1, **right))
    yield said_to(plain, tokens.token(iss="https://files"))
    yield said_to(plain, tokens.token(iss="https://mail", aud="events"))
    yield said_to(plain, tokens.token(sub="", **right))
    with key_server.KeyServer(key_server.jwks(key_server.jwk(key_server.RSA, "one"))) as server:
        by_jwks = tokens.app(JWT_ALGORITHM="RS256", JWT_JWKS_URL=server.url)
        yield said_to(by_jwks, key_server.signed_by(key_server.RSA, "two"))
    cookie = {"Cookie": f"access_token_cookie={tokens.token(**right)}"}
    with plain.test_request_context("/", method="POST", headers=cookie):
        yield refusal()


def said_to(app: Flask, text: str) -> str:
    with app.test_request_context("/", headers=tokens.bearer(text)):
        return refusal()


def refusal() -> str:
    with pytest.raises(errors.Unauthorized) as caught:
        auth.authenticate(sidecar.of(current_app).settings, auth.READ_SCOPE)
    return caught.value.message

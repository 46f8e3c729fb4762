"""A token in, an identity out: what passes, what does not, and with which error."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from flask import Flask

from events_app import auth, errors, sidecar
from tests import key_server, tokens
from tests.key_server import KEYS, OTHER_RSA, RSA, KeyServer, public_pem, signed_by
from tests.serving import free_port
from tests.tokens import SECRET, bearer, claims, handmade, signed, token

BOTH = (auth.READ_SCOPE, auth.WRITE_SCOPE)


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
    assert identity(app, signed('{"sub": 42, "uid": "7", "exp": 99999999999}')).user_id == "7"
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


@pytest.mark.parametrize("sub", [None, "", 42, ["42"], "x" * 65])
@pytest.mark.parametrize(
    "changed", [{"type": "refresh"}, {"token_type": "refresh"}, {"client_id": "app"}]
)
def test_a_token_that_names_nobody_is_bad_whatever_else_it_says(
    app: Flask, sub: object, changed: dict[str, Any]
) -> None:
    text = signed(json.dumps({"sub": sub, "exp": 99_999_999_999} | changed))
    assert refusal(app, text) is errors.Unauthorized


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


# What a Cloudreve 4 writes: `sub` is the user's id and the number 1, by hashids with its own salt.
CLOUDREVE: dict[str, Any] = {"token_type": "access", "sub": "9yUA", "nbf": 1_700_000_000}


def test_a_token_as_cloudreve_issues_it_names_its_hashed_user(app: Flask) -> None:
    assert identity(app, token(**CLOUDREVE)).user_id == "9yUA"
    for scopes in (["openid", "Files.Read"], ["offline_access", "Files.Write"]):
        third_party = token(
            **CLOUDREVE, client_id="393a1839-f52e-498e-9972-e77cc2241eee", scopes=scopes
        )
        assert identity(app, third_party).user_id == "9yUA"


def test_a_refresh_token_as_cloudreve_issues_it_opens_nothing(app: Flask) -> None:
    refresh = CLOUDREVE | {
        "token_type": "refresh",
        "root_token_id": "4ab5ba5e-ffa5-4df9-9b2a-3c6ad8d4a4f5",
        "state_hash": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    }
    for scope in BOTH:
        with pytest.raises(errors.WrongTokenType):
            identity(app, token(**refresh), scope)


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
def published() -> Iterator[KeyServer]:
    """Serve the public half of RSA as key `one`."""
    document = key_server.jwks(key_server.jwk(RSA, "one", use="sig", alg="RS256"))
    with KeyServer(document) as server:
        yield server


def test_a_jwks_verifies_by_the_tokens_key_id(published: KeyServer) -> None:
    app = tokens.app(JWT_ALGORITHM="RS256", JWT_JWKS_URL=published.url)
    assert identity(app, signed_by(RSA, "one")).user_id == "42"
    assert identity(app, signed_by(RSA)).user_id == "42"
    for key, key_id in ((RSA, "two"), (OTHER_RSA, "one"), (OTHER_RSA, None)):
        assert refusal(app, signed_by(key, key_id)) is errors.Unauthorized


@pytest.mark.parametrize("document", [b"<html>Back soon</html>", b"\xff", b'{"keys": []}'])
def test_an_answer_that_holds_no_keys_is_not_the_tokens_fault(document: bytes) -> None:
    """An outage page comes with status 200 as well."""
    with KeyServer(document) as server:
        app = tokens.app(JWT_ALGORITHM="RS256", JWT_JWKS_URL=server.url)
        assert refusal(app, signed_by(RSA, "one")) is errors.Unforeseen


def test_a_header_that_says_where_the_keys_are_is_not_believed(published: KeyServer) -> None:
    """RFC 8725, section 3.10: whoever made the token would choose the key."""
    app = tokens.app(JWT_ALGORITHM="RS256", JWT_JWKS_URL=published.url)
    with KeyServer(key_server.jwks(key_server.jwk(OTHER_RSA, "one"))) as theirs:
        for header in (
            {"jku": theirs.url},
            {"x5u": theirs.url},
            {"jwk": key_server.jwk(OTHER_RSA, "one")},
        ):
            forged = jwt.encode(claims(), OTHER_RSA, "RS256", headers={"kid": "one"} | header)
            assert refusal(app, forged) is errors.Unauthorized
            good = jwt.encode(claims(), RSA, "RS256", headers={"kid": "one"} | header)
            assert identity(app, good).user_id == "42"
        assert theirs.asked == []


def test_another_algorithm_asks_no_server(published: KeyServer) -> None:
    app = tokens.app(JWT_ALGORITHM="RS256", JWT_JWKS_URL=published.url)
    for text in (token(), signed_by(RSA, "one", "RS512"), handmade({"alg": "none"}, "{}")):
        assert refusal(app, text) is errors.Unauthorized
    assert published.asked == []


def test_two_keys_in_the_file_are_a_rotation(tmp_path: Path) -> None:
    """The key ids that signers may write are no names of ours."""
    pem = tmp_path / "keys.pem"
    pem.write_bytes(public_pem(RSA, OTHER_RSA))
    app = tokens.app(JWT_ALGORITHM="RS256", JWT_PUBLIC_KEY_FILE=str(pem))
    for key in (RSA, OTHER_RSA):
        assert identity(app, signed_by(key)).user_id == "42"
        assert identity(app, signed_by(key, "some id")).user_id == "42"
    assert refusal(app, signed_by(key_server.new_rsa())) is errors.Unauthorized


@pytest.mark.parametrize(
    "content",
    [b"", b"no key", public_pem(KEYS["ES256"]), public_pem(RSA)[:99]],
    ids=["empty", "no key", "of another kind", "cut off"],
)
def test_a_key_that_cannot_verify_stops_the_start(tmp_path: Path, content: bytes) -> None:
    """Else every token would be refused, and nobody would know why."""
    pem = tmp_path / "key.pem"
    pem.write_bytes(content)
    with pytest.raises(errors.SettingsError, match="EVENTS_JWT_PUBLIC_KEY_FILE"):
        tokens.app(JWT_ALGORITHM="RS256", JWT_PUBLIC_KEY_FILE=str(pem))


# -- scopes, and services ------------------------------------------------------------------------


def service(app: Flask, text: str) -> bool:
    return identity(app, text, auth.WRITE_SCOPE).service


def test_a_users_own_token_reads_and_writes(app: Flask) -> None:
    for scope in BOTH:
        assert identity(app, token(), scope)[::2] == ("42", False)
        assert identity(app, token(scopes=["Files.Read"]), scope).user_id == "42"


def test_a_third_partys_token_writes_only_with_the_scope(app: Flask) -> None:
    writing = token(client_id="app", scopes=["Files.Write"])
    assert identity(app, writing, auth.WRITE_SCOPE)[::2] == ("42", False)
    reading = token(client_id="app", scopes=["Files.Read"])
    assert identity(app, reading).user_id == "42"
    with pytest.raises(errors.MissingScope, match=r"Files\.Write"):
        identity(app, reading, auth.WRITE_SCOPE)


@pytest.mark.parametrize(
    "changed",
    [
        {"scopes": ["Events.Write"]},
        {"scope": "Events.Write"},
        {"client_id": "nightly", "scopes": ["Events.Write"]},
        {"client_id": "nightly", "scope": "openid Events.Write Files.Read"},
    ],
)
def test_a_service_writes_for_all_and_reads_for_none(app: Flask, changed: dict[str, Any]) -> None:
    text = token(sub="nightly", **changed)
    assert service(app, text)
    with pytest.raises(errors.MissingScope, match="service"):
        identity(app, text)


@pytest.mark.parametrize(
    "changed",
    [{"scopes": ["events.write"]}, {"scope": "Events.WriteAll"}, {"scopes": {"Events.Write": 1}}],
)
def test_only_the_very_scope_makes_a_service(app: Flask, changed: dict[str, Any]) -> None:
    assert not service(app, token(**changed))


# -- where the token is --------------------------------------------------------------------------

COOKIE = "access_token_cookie"


def asked(app: Flask, method: str = "GET", query: str = "", **headers: str) -> auth.Identity:
    """Authenticate a request that has these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with app.test_request_context(f"/{query}", method=method, headers=named):
        return auth.authenticate(sidecar.of(app).settings, auth.WRITE_SCOPE)


@pytest.fixture(scope="module")
def everywhere() -> Flask:
    """Take tokens from everywhere."""
    return tokens.app(TOKEN_IN_QUERY="true", TOKEN_IN_COOKIE="true")


def test_header_comes_before_cookie_and_cookie_before_query(everywhere: Flask) -> None:
    places: dict[str, str] = {
        "query": f"?access_token={token(sub='query')}",
        "Cookie": f"{COOKIE}={token(sub='cookie')}",
        "Authorization": f"Bearer {token(sub='header')}",
    }
    assert asked(everywhere, **places).user_id == "header"
    del places["Authorization"]
    assert asked(everywhere, **places).user_id == "cookie"
    del places["Cookie"]
    assert asked(everywhere, **places).user_id == "query"


@pytest.mark.parametrize("header", ["Bearer x", "Bearer", "bearer", "Basic QQ==, Bearer x"])
def test_a_bad_token_in_an_earlier_place_is_not_made_good_by_a_later_one(
    everywhere: Flask, header: str
) -> None:
    places = {"query": f"?access_token={token()}", "Cookie": f"{COOKIE}={token()}"}
    with pytest.raises(errors.Unauthorized):
        asked(everywhere, Authorization=header, **places)
    with pytest.raises(errors.Unauthorized):
        asked(everywhere, query=places["query"], Cookie=f"{COOKIE}=x")


def test_a_password_for_a_proxy_is_no_token(everywhere: Flask) -> None:
    """Nginx may ask for one before it lets anybody through, and hands it on."""
    found = asked(everywhere, Authorization="Basic NDI6cHc=", Cookie=f"{COOKIE}={token()}")
    assert found.user_id == "42"


def test_an_empty_place_is_none(everywhere: Flask) -> None:
    query = f"?access_token={token()}"
    assert asked(everywhere, query=query, Authorization="", Cookie=f"{COOKIE}=").user_id == "42"


def test_two_tokens_in_the_query_are_refused(everywhere: Flask) -> None:
    with pytest.raises(errors.Unauthorized, match="2 times"):
        asked(everywhere, query=f"?access_token={token()}&access_token={token(sub='43')}")


def test_a_cookie_counts_only_where_it_is_allowed(app: Flask) -> None:
    with pytest.raises(errors.Unauthorized):
        asked(app, Cookie=f"{COOKIE}={token()}")


def test_the_cookies_name_is_a_setting() -> None:
    app = tokens.app(TOKEN_IN_COOKIE="true", TOKEN_COOKIE="__Host-files")
    assert asked(app, Cookie=f"__Host-files={token()}").user_id == "42"
    with pytest.raises(errors.Unauthorized):
        asked(app, Cookie=f"{COOKIE}={token()}")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_writes_by_cookie_needs_what_only_its_own_pages_can_read(
    everywhere: Flask, method: str
) -> None:
    """Another site's form sends the cookie along, but cannot read the token's `csrf` claim."""
    place = {"Cookie": f"{COOKIE}={token(csrf='right')}"}
    assert asked(everywhere, method, X_CSRF_TOKEN="right", **place).user_id == "42"
    for header in ({}, {"X_CSRF_TOKEN": ""}, {"X_CSRF_TOKEN": "wrong"}, {"X_CSRF_TOKEN": "é"}):
        with pytest.raises(errors.Unauthorized):
            asked(everywhere, method, **place, **header)


@pytest.mark.parametrize("csrf", [None, "", 7, ["right"]])
def test_a_token_that_has_no_secret_writes_nothing_by_cookie(everywhere: Flask, csrf: Any) -> None:
    place = {"Cookie": f"{COOKIE}={token(csrf=csrf)}"}
    for header in ({}, {"X_CSRF_TOKEN": "right"}, {"X_CSRF_TOKEN": ""}):
        with pytest.raises(errors.Unauthorized):
            asked(everywhere, "POST", **place, **header)


def test_what_reads_by_cookie_and_what_writes_by_header_needs_no_csrf(everywhere: Flask) -> None:
    assert asked(everywhere, Cookie=f"{COOKIE}={token(csrf='right')}").user_id == "42"
    assert asked(everywhere, "POST", Authorization=f"Bearer {token()}").user_id == "42"

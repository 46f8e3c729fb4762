"""Everything a client can get wrong: the right status and code, and no token in the log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from events_app.event import Cursor, Point
from events_app.uri import Folder
from tests import databases
from tests.frames import Reader
from tests.serving import EVENTS_PATH, Server

CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
MOST_STREAMS = 3
BAD_URI = "http://my"
# The error table of the protocol: status and code.
UNAUTHORIZED = (401, 401)
WRONG_TYPE = (401, 40020)
NO_SCOPE = (403, 40089)
DISABLED = (403, 40019)
BAD_PARAMETER = (400, 40001)
FOREIGN = (403, 403)
TOO_MANY = (429, 429)


def _served(folder: Path, name: str, settings: Mapping[str, str]) -> Iterator[Server]:
    """Run one worker on SQLite, whose log has the access log in it."""
    with databases.migrated("sqlite", folder) as url:
        server = Server(url, folder / f"{name}.log", settings, workers=1)
        server.environment["GUNICORN_CMD_ARGS"] = "--access-logfile -"
        with server.running():
            yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Take tokens in the query too."""
    settings = {
        "EVENTS_TOKEN_IN_QUERY": "true",
        "EVENTS_MAX_STREAMS_PER_USER": str(MOST_STREAMS),
        "EVENTS_KEEP_ALIVE": "0.2",
    }
    yield from _served(tmp_path_factory.mktemp("bad"), "open", settings)


@pytest.fixture(scope="module")
def disabled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Be switched off; tokens in the header only."""
    folder = tmp_path_factory.mktemp("disabled")
    yield from _served(folder, "disabled", {"EVENTS_ENABLED": "false"})


def refusal(response: httpx.Response) -> tuple[int, int]:
    """Return status and code of an error, after a look at its shape."""
    assert response.headers["Content-Type"] == "application/json"
    document = response.json()
    assert list(document) == ["code", "msg", "correlation_id"]
    assert document["msg"]
    assert str(uuid.UUID(document["correlation_id"])) == document["correlation_id"]
    if response.status_code == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    return response.status_code, document["code"]


def answer(
    server: Server, query: str = "", headers: Mapping[str, str] | None = None, **parameters: str
) -> tuple[int, int]:
    """Make a request that is refused; a stream, which would never end, fails at once."""
    address = httpx.URL(f"{server.events_url}{query}")
    if parameters:
        address = address.copy_merge_params(parameters)
    with httpx.stream("GET", address, headers=headers) as response:
        assert response.status_code != httpx.codes.OK
        response.read()
    return refusal(response)


def ask(server: Server, token: str | None, query: str = "", **headers: str) -> tuple[int, int]:
    """Make a request that is refused."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return answer(server, query, headers)


# -- tokens ------------------------------------------------------------------------------------


def _part(document: object) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=")


def sign(claims: object, secret: str, header: object = None) -> str:
    """Sign by hand, what no library would sign too."""
    signed = _part(header or {"alg": "HS256", "typ": "JWT"}) + b"." + _part(claims)
    digest = hmac.digest(secret.encode(), signed, hashlib.sha256)
    return (signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()


def claims(**changed: Any) -> dict[str, Any]:
    """Make the claims of a good token, some of them changed; None takes one away."""
    whole = {"sub": "42", "exp": int(time.time()) + 3600} | changed
    return {name: value for name, value in whole.items() if value is not None}


def _by_hand(**header: Any) -> Callable[[Server], str]:
    return lambda server: sign(claims(), server.secret, {"alg": "HS256", "typ": "JWT"} | header)


def _with(**changed: Any) -> Callable[[Server], str]:
    return lambda server: sign(claims(**changed), server.secret)


def _raw_expiry(text: str) -> Callable[[Server], str]:
    return lambda server: sign(f'{{"sub": "42", "exp": {text}}}', server.secret)


NOW = int(time.time())

REFUSED_TOKENS: dict[str, tuple[Callable[[Server], str], tuple[int, int]]] = {
    "none": (lambda _: sign(claims(), "", {"alg": "none"}).rpartition(".")[0] + ".", UNAUTHORIZED),
    "none with a signature": (_by_hand(alg="none"), UNAUTHORIZED),
    "another algorithm": (lambda at: jwt.encode(claims(), at.secret, "HS384"), UNAUTHORIZED),
    "another algorithm by name": (_by_hand(alg="RS256"), UNAUTHORIZED),
    "no algorithm": (_by_hand(alg=None), UNAUTHORIZED),
    "algorithms": (_by_hand(alg=["HS256"]), UNAUTHORIZED),
    "numeric key id": (_by_hand(kid=7), UNAUTHORIZED),
    "unknown critical header": (_by_hand(crit=["x"], x=1), UNAUTHORIZED),
    "another key": (lambda _: sign(claims(), "x" * 64), UNAUTHORIZED),
    "no signature": (lambda at: sign(claims(), at.secret).rpartition(".")[0] + ".", UNAUTHORIZED),
    "expired": (_with(exp=NOW - 3600), UNAUTHORIZED),
    "not yet valid": (_with(nbf=NOW + 3600), UNAUTHORIZED),
    "no exp": (_with(exp=None), UNAUTHORIZED),
    "exp null": (_raw_expiry("null"), UNAUTHORIZED),
    "exp text": (_raw_expiry('"soon"'), UNAUTHORIZED),
    "exp list": (_raw_expiry("[9999999999]"), UNAUTHORIZED),
    "exp infinite": (_raw_expiry("Infinity"), UNAUTHORIZED),
    "exp no number": (_raw_expiry("NaN"), UNAUTHORIZED),
    "exp beyond any integer": (_raw_expiry("9" * 5000), UNAUTHORIZED),
    "integer subject": (_with(sub=42), UNAUTHORIZED),
    "no subject": (_with(sub=None), UNAUTHORIZED),
    "empty subject": (_with(sub=""), UNAUTHORIZED),
    "list of subjects": (_with(sub=["42"]), UNAUTHORIZED),
    "subject that fits no column": (_with(sub="u" * 65), UNAUTHORIZED),
    "subject with a NUL": (_with(sub="4\0"), UNAUTHORIZED),
    "subject with half a pair": (_with(sub="\ud800"), UNAUTHORIZED),
    "claims that are a list": (lambda at: sign([1], at.secret), UNAUTHORIZED),
    "claims that are no JSON": (lambda at: sign("{", at.secret), UNAUTHORIZED),
    "claims without a bottom": (lambda at: sign("[" * 5000, at.secret), UNAUTHORIZED),
    "a header without a bottom": (lambda at: sign({}, at.secret, "[" * 4000), UNAUTHORIZED),
    "no token at all": (lambda _: "no.token.atall", UNAUTHORIZED),
    "one word": (lambda _: "token", UNAUTHORIZED),
    "refresh by type": (_with(type="refresh"), WRONG_TYPE),
    "refresh by token_type": (_with(token_type="refresh"), WRONG_TYPE),
    "id token": (_with(type="id"), WRONG_TYPE),
    "no text as type": (_with(type=1), WRONG_TYPE),
    "refresh, but expired": (_with(type="refresh", exp=NOW - 3600), UNAUTHORIZED),
    "wrong type, without scope": (_with(type="refresh", client_id="app"), WRONG_TYPE),
    "client without scopes": (_with(client_id="app"), NO_SCOPE),
    "client with other scopes": (_with(client_id="app", scopes=["Files.Share"]), NO_SCOPE),
    "client with a scope of another kind": (_with(client_id="app", scopes=7), NO_SCOPE),
    "client with a nearly right scope": (_with(client_id="app", scope="Files.Reader"), NO_SCOPE),
}


@pytest.mark.parametrize("name", REFUSED_TOKENS)
def test_a_bad_token_is_refused(server: Server, name: str) -> None:
    make, expected = REFUSED_TOKENS[name]
    assert ask(server, make(server)) == expected


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic NDI6NDI=", ", ,", ",", "Bearer a b", "Bearer a, Bearer b"]
)
def test_a_header_without_one_token_is_refused(server: Server, header: str) -> None:
    assert answer(server, headers={"Authorization": header}) == UNAUTHORIZED


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    """The oldest trick: HS256, signed with the public key of a server that expects RS256."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "public.pem").write_bytes(public)
    with databases.migrated("sqlite", tmp_path) as url:
        server = Server(url, tmp_path / "rs256.log", workers=1)
        del server.environment["EVENTS_JWT_SECRET"]
        server.environment["EVENTS_JWT_ALGORITHM"] = "RS256"
        server.environment["EVENTS_JWT_PUBLIC_KEY_FILE"] = str(tmp_path / "public.pem")
        with server.running():
            assert ask(server, sign(claims(), public.decode())) == UNAUTHORIZED
            with Reader(server, token=jwt.encode(claims(), key, "RS256")) as reader:
                reader.expect("subscribed")


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "app", "scopes": ["openid", "Files.Read"]},
        {"client_id": "app", "scopes": ["Files.Write"]},
        {"client_id": "app", "scope": "openid Files.Read"},
        {"type": "access", "token_type": "access"},
        {"exp": 10**15},
        {"exp": 10**400},
    ],
)
def test_a_good_token_opens_a_stream(server: Server, changed: dict[str, Any]) -> None:
    with Reader(server, token=sign(claims(**changed), server.secret)) as reader:
        reader.expect("subscribed")


def test_a_token_in_the_query_counts_only_where_it_is_allowed(
    server: Server, disabled: Server
) -> None:
    with httpx.stream("GET", f"{server.events_url}?access_token={server.token()}") as response:
        assert response.status_code == 200
    query = f"?access_token={disabled.token()}"
    assert ask(disabled, None, query) == UNAUTHORIZED
    assert ask(disabled, disabled.token(), query) == DISABLED


# -- the order of the checks -------------------------------------------------------------------


def test_the_token_is_looked_at_before_the_parameters(server: Server) -> None:
    query = f"?uri={BAD_URI}"
    assert ask(server, None, query) == UNAUTHORIZED
    assert ask(server, _with(type="refresh")(server), query) == WRONG_TYPE
    assert ask(server, _with(client_id="app")(server), query) == NO_SCOPE
    assert ask(server, server.token(), query) == BAD_PARAMETER


def test_the_switch_comes_after_the_token_and_before_the_parameters(disabled: Server) -> None:
    query = f"?uri={BAD_URI}"
    assert ask(disabled, None, query) == UNAUTHORIZED
    assert ask(disabled, _with(type="refresh")(disabled), query) == WRONG_TYPE
    assert ask(disabled, _with(client_id="app")(disabled), query) == NO_SCOPE
    assert ask(disabled, disabled.token(), query) == DISABLED
    assert ask(disabled, disabled.token(), "?uri=cloudreve://99@my") == DISABLED


@pytest.mark.parametrize("query", ["&client_id=mine", "&payload=xml", "&uri=cloudreve://my"])
def test_a_bad_parameter_comes_before_a_foreign_folder(server: Server, query: str) -> None:
    foreign = "?uri=cloudreve://99@my"
    assert ask(server, server.token(), foreign) == FOREIGN
    assert ask(server, server.token(), foreign + query) == BAD_PARAMETER


def test_too_many_streams_is_the_last_check(server: Server) -> None:
    token = server.token("many")
    with ExitStack() as open_streams:
        for _ in range(MOST_STREAMS):
            open_streams.enter_context(Reader(server, token=token)).expect("subscribed")
        headers = {"Authorization": f"Bearer {token}"}
        response = httpx.get(server.events_url, headers=headers)
        assert refusal(response) == TOO_MANY
        assert int(response.headers["Retry-After"]) > 0
        assert ask(server, token, f"?uri={BAD_URI}") == BAD_PARAMETER
        assert ask(server, token, "?uri=cloudreve://99@my") == FOREIGN
        with Reader(server, "another") as other:
            other.expect("subscribed")
    with Reader(server, token=token) as again:
        again.expect("subscribed")


# -- addresses ---------------------------------------------------------------------------------

BAD_URIS = {
    "another scheme": "http://my/docs",
    "no scheme": "/docs",
    "another file system": "cloudreve://trash",
    "shared with me": "cloudreve://shared_with_me/docs",
    "no file system": "cloudreve:///docs",
    "bad percent": "cloudreve://my/%zz",
    "half a percent": "cloudreve://my/%2",
    "NUL": "cloudreve://my/a%00b",
    "no UTF-8": "cloudreve://my/%ff",
    "half a surrogate pair": "cloudreve://my/%ed%a0%80",
    "a port": "cloudreve://my:80/docs",
    "an empty user": "cloudreve://@my/docs",
    "17 kB": "cloudreve://my?" + "a" * 17_000,
    "a path over 4,096 bytes": "cloudreve://my/" + "a" * 4_096,
    "foreign, but bad too": "cloudreve://99@my/%zz",
}


@pytest.mark.parametrize("name", BAD_URIS)
def test_a_bad_uri_is_refused(server: Server, name: str) -> None:
    assert answer(server, headers=server.headers(), uri=BAD_URIS[name]) == BAD_PARAMETER


@pytest.mark.parametrize("address", ["cloudreve://99@my", "CLOUDREVE://%39%39@MY/docs?x=1"])
def test_somebody_elses_folder_is_refused(server: Server, address: str) -> None:
    assert answer(server, headers=server.headers(), uri=address) == FOREIGN


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("cloudreve://my/../../up/./b/..", "/up"),
        ("CloudReve://MY//twice//", "/twice"),
        ("cloudreve://ways@my/own?search=1", "/own"),
        ("cloudreve://my/%2e%2e/dots", "/dots"),
        ("cloudreve://my/a%2Fb", "/a/b"),
        ("cloudreve://my/a#b", "/a#b"),
        ("cloudreve://my/100%25", "/100%"),
        ("cloudreve://my/" + "%C3%9C" * 1_300, "/" + "Ü" * 1_300),
    ],
)
def test_an_odd_uri_watches_the_folder_it_means(server: Server, address: str, path: str) -> None:
    """It cannot climb above the root, and what is merely long and escaped is no error."""
    with Reader(server, "ways", uri=address) as reader:
        reader.expect("subscribed")
        server.append("create", f"{path}/file", user_id="ways", file_id="f")
        assert reader.changes(1)[0]["from"] == "/file"


# -- other parameters --------------------------------------------------------------------------

BAD_QUERIES = {
    "payload": "payload=xml",
    "payload in another case": "payload=Array",
    "uri twice": "uri=cloudreve://my&uri=cloudreve://my",
    "client id twice": f"client_id={CLIENT}&client_id={CLIENT}",
    "payload twice": "payload=array&payload=array",
    "last event id twice": "last_event_id=a&last_event_id=a",
    "last event id of control characters": "last_event_id=a%0Ab",
    "last event id beyond ASCII": "last_event_id=%C3%BC",
    "endless last event id": "last_event_id=" + "a" * 2_000,
}


@pytest.mark.parametrize("name", BAD_QUERIES)
def test_a_bad_parameter_is_refused(server: Server, name: str) -> None:
    assert ask(server, server.token(), f"?{BAD_QUERIES[name]}") == BAD_PARAMETER


HEX = CLIENT.replace("-", "")

NO_UUIDS = [
    "mine",
    CLIENT[:-1],
    CLIENT + "0",
    "g" + CLIENT[1:],
    "+" + HEX[1:],
    "0x" + HEX[2:],
    HEX[:8] + "_" + HEX[9:],
    " " + HEX[1:],
    "-".join(HEX),
    f"{{{CLIENT}",
    f"uuid:{CLIENT}",
    f"urn:urn:{CLIENT}",
    "٣" * 32,
    f"{CLIENT},{CLIENT}",
]


@pytest.mark.parametrize("text", NO_UUIDS)
def test_a_client_id_that_is_no_uuid_is_refused(server: Server, text: str) -> None:
    assert answer(server, headers=server.headers("uuids"), client_id=text) == BAD_PARAMETER


def test_every_way_to_write_a_uuid_names_the_same_client(server: Server) -> None:
    user = "writings"
    forms = [CLIENT, CLIENT.upper(), f"{{{CLIENT}}}", f"urn:uuid:{CLIENT}", HEX, HEX.upper()]
    for number, form in enumerate(forms):
        with Reader(server, user, form) as reader:
            reader.expect("resumed" if number else "subscribed")
            reader.expect("keep-alive")
    with Reader(server, user, query=f"&client_id={CLIENT}") as reader:
        reader.expect("resumed")
        server.append("create", "/own", user_id=user, client_id=HEX.upper())
        server.append("create", "/other", user_id=user)
        assert reader.changes(1)[0]["from"] == "/other"


# -- cursors -----------------------------------------------------------------------------------


def _forged(cursor: str, **changed: Any) -> str:
    parsed = Cursor.parse(cursor)
    assert parsed is not None
    return parsed._replace(**changed).text()


def test_a_cursor_that_does_not_fit_starts_afresh(server: Server) -> None:
    """Never an error, and never a replay of what the cursor does not prove."""
    user = "cursors"
    with Reader(server, user) as reader:
        reader.expect("subscribed")
        server.append("create", "/docs/a", user_id=user)
        good = str(reader.expect("event").id)
        server.append("create", "/docs/b", user_id=user)
        latest = str(reader.expect("event").id)
    parsed, end = Cursor.parse(good), Cursor.parse(latest)
    assert parsed is not None
    assert end is not None
    bad = {
        "garbage": "garbage",
        "of another folder": Cursor.at(parsed.epoch, parsed.point, user, Folder("my", "/x")).text(),
        "of another user": Cursor.at(parsed.epoch, parsed.point, "u", Folder("my", "/")).text(),
        "of another epoch": _forged(good, epoch=parsed.epoch + 1),
        "of no epoch": _forged(good, epoch=0),
        "of the last epoch": _forged(good, epoch=2**64 - 1),
        "with another tag": _forged(good, point=Point(parsed.point.position, 1)),
        "one row back": _forged(latest, point=Point(parsed.point.position, end.point.tag)),
        "beyond the end": _forged(good, point=Point(end.point.position + 10, 1)),
        "beyond any integer": _forged(good, point=Point(2**64 - 1, 1)),
        "cut off": good[:-2],
        "too long": good + "AAAA",
    }
    for name, cursor in bad.items():
        with Reader(server, user, last_event_id=cursor) as reader:
            assert reader.expect("subscribed", "resumed").name == "subscribed", name
    with Reader(server, user, last_event_id=good) as reader:
        reader.expect("resumed")
        assert [change["from"] for change in reader.changes(1)] == ["/docs/b"]
    with Reader(server, user, query=f"&last_event_id={good}") as reader:
        reader.expect("resumed")


# -- other doors, and the log ------------------------------------------------------------------


def test_what_is_not_there_is_answered_in_the_same_shape(server: Server) -> None:
    assert refusal(httpx.get(f"{server.url}/nowhere")) == (404, 404)
    assert refusal(httpx.get(f"{server.events_url}/")) == (404, 404)
    response = httpx.delete(server.events_url)
    assert refusal(response) == (405, 405)
    assert "GET" in response.headers["Allow"]


def test_no_token_reaches_the_log(server: Server) -> None:
    """Not by the header, the query, a refusal, nor a request that is no HTTP."""
    tokens = [make(server) for make, _ in REFUSED_TOKENS.values()]
    tokens = [token for token in tokens if len(token) > len("no.token.atall")]
    tokens += [server.token("log"), server.token("log", client_id="app")]
    for token in tokens:
        with httpx.stream("GET", server.events_url, params={"access_token": token}):
            pass
        with httpx.stream("GET", server.events_url, headers={"Authorization": f"Bearer {token}"}):
            pass
    good = server.token("log")
    for request in (
        f"GET {EVENTS_PATH}?access_token={good} HTTP/9.9\r\n\r\n",
        f"GET {EVENTS_PATH}?access_token={good}\r\n\r\n",
        f"get {EVENTS_PATH}?access_token={good} HTTP/1.1\r\n\r\n",
        f"GET {EVENTS_PATH}?access_token={good} HTTP/1.1\r\nAuthorization : Bearer {good}\r\n\r\n",
        f"GET {EVENTS_PATH}?a={'a' * 40_000}&access_token={good} HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
            connection.sendall(request.encode())
            connection.recv(1000)
    log = server.log.read_text()
    assert f'"GET {EVENTS_PATH}" 401' in log
    assert "Invalid" in log
    for token in [*tokens, good]:
        for part in token.split("."):
            assert len(part) < 20 or part not in log or part == tokens[0].partition(".")[0]
    assert "Traceback" not in log
    assert "50005" not in log


# -- a start that must fail --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named", "unnamed"),
    [
        ({"EVENTS_JWT_SECRET": ""}, "EVENTS_JWT_SECRET is unset", "Traceback"),
        ({"EVENTS_JWT_SECRET": "hunter2"}, "EVENTS_JWT_SECRET", "hunter2"),
        ({"EVENTS_DEBOUNCE": "soon"}, "EVENTS_DEBOUNCE='soon'", "Traceback"),
        ({"EVENTS_DEBOUNZE": "5"}, "EVENTS_DEBOUNCE", "Traceback"),
        ({"EVENTS_JWT_ALGORITHM": "none"}, "EVENTS_JWT_ALGORITHM='none'", "Traceback"),
        ({"EVENTS_KEEP_ALIVE": "0", "EVENTS_DRAIN": "-1"}, "EVENTS_DRAIN='-1'", "Traceback"),
        (
            {"EVENTS_DATABASE_URL": "oracle://u:hunter2@h/d"},
            "EVENTS_DATABASE_URL='oracle://u:***@h/d'",
            "hunter2",
        ),
    ],
)
def test_a_wrong_setting_stops_the_start_in_one_message(
    changed: dict[str, str], named: str, unnamed: str, tmp_path: Path
) -> None:
    settings = {
        "EVENTS_JWT_SECRET": "s" * 64,
        "EVENTS_DATABASE_URL": f"sqlite:///{tmp_path / 'events.db'}",
    }
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "-c",
            "gunicorn.conf.py",
            "-b",
            "127.0.0.1:0",
            "wsgi:app",
        ],
        cwd=databases.ROOT,
        env=databases.plain_environment() | settings | changed,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    printed = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert named in printed
    assert unnamed not in printed
    assert "Traceback" not in printed
    assert len(re.findall("events-app does not start", printed)) == 1
    assert "Booting worker" not in printed
    assert not (tmp_path / "events.db").exists()

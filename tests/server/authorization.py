"""Who may do what at which door with which token, as tables that a person can read.

Theory of operation
    The first table says what each asker gets at each door with a good token. The second one says
    what each token gets, whoever asks; where it says `-` the token is good there, and the first
    table counts. So each cell of (asker, door, token) has exactly one answer.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jwt

OWNER, GUEST, STRANGER, SERVICE = "42", "43", "44", "importer"
DOORS = ("stream", "changes", "history", "append")

# What is there when somebody reads, for each of its users. Each id names whose it is.
PATHS = ("/docs/a", "/docs/b", "/private")
WRITTEN = [(user, path, f"{user} {path}") for user in (OWNER, GUEST, STRANGER) for path in PATHS]
ALL = [(f"{OWNER} {path}", path) for path in PATHS]
DOCS = [(f"{OWNER} {path}", path.removeprefix("/docs")) for path in PATHS[:2]]

# By the word in the tables: status, code, and whose rows come with it.
Answer = tuple[int, int, list[tuple[str, str]]]
ANSWERS: dict[str, Answer] = {
    "all": (200, 0, ALL),
    "docs": (200, 0, DOCS),
    "written": (201, 0, []),
    "400": (400, 40001, []),
    "401": (401, 401, []),
    "type": (401, 40020, []),
    "scope": (403, 40089, []),
    "403": (403, 403, []),
}

GOOD = """
who asks                      | stream | changes | history | append
own                           | all    | all     | all     | written
own, by the user's name       | docs   | docs    | docs    | written
foreign                       | 403    | 403     | 403     | 403
granted                       | docs   | docs    | docs    | 403
granted, another's cursor     | 403    | 403     | 403     | 403
granted to the guest only     | 403    | 403     | 403     | 403
owner, through the share      | 403    | 403     | 403     | written
single file                   | 403    | 403     | 403     | 403
revoked                       | 403    | 403     | 403     | 403
expired                       | 403    | 403     | 403     | 403
no such share                 | 403    | 403     | 403     | 403
trash                         | 400    | 400     | 400     | written
shared with me                | 400    | 400     | 400     | written
service, for a user           | scope  | scope   | scope   | written
service, for nobody           | scope  | scope   | scope   | 400
"""

TOKENS = """
token                         | a user reads | writes | a service reads | writes
good                          | -            | -      | -               | -
none                          | 401          | 401    | 401             | 401
no JWT                        | 401          | 401    | 401             | 401
a password                    | 401          | 401    | 401             | 401
signature of another          | 401          | 401    | 401             | 401
signed by somebody else       | 401          | 401    | 401             | 401
algorithm none                | 401          | 401    | 401             | 401
another algorithm             | 401          | 401    | 401             | 401
expired                       | 401          | 401    | 401             | 401
not yet valid                 | 401          | 401    | 401             | 401
no end                        | 401          | 401    | 401             | 401
token_type refresh            | type         | type   | type            | type
type refresh                  | type         | type   | type            | type
third party's, no scope       | scope        | scope  | -               | -
third party's, reads          | -            | scope  | -               | -
third party's, writes         | -            | -      | -               | -
another issuer                | 401          | 401    | 401             | 401
no issuer                     | 401          | 401    | 401             | 401
another audience              | 401          | 401    | 401             | 401
no audience                   | 401          | 401    | 401             | 401
user empty                    | 401          | 401    | 401             | 401
user a number                 | 401          | 401    | 401             | 401
no user                       | 401          | 401    | 401             | 401
two headers                   | 401          | 401    | 401             | 401
in the query                  | 401          | 401    | 401             | 401
in a cookie                   | 401          | 401    | 401             | 401
another one in the query      | -            | -      | -               | -
revoked                       | 401          | 401    | scope           | 401
"""

# Where tokens in cookies and queries are taken.
PLACES = """
token                         | a user reads | writes | a service reads | writes
in the query                  | -            | -      | -               | -
two in the query              | 401          | 401    | 401             | 401
in a cookie                   | -            | 401    | -               | 401
in a cookie, with CSRF        | -            | -      | -               | -
in a cookie, another's CSRF   | -            | 401    | -               | 401
bad header, good cookie       | 401          | 401    | 401             | 401
good header, another's cookie | -            | -      | -               | -
"""


class Asker(NamedTuple):
    """Who asks for which folder, appends for whom, and with whose cursor; None: says nothing."""

    user: str
    uri: str
    appends_for: str | None
    cursor_of: str
    is_service: bool = False


ASKERS = {
    "own": Asker(OWNER, "cloudreve://my", None, "own"),
    "own, by the user's name": Asker(OWNER, "cloudreve://42@my/docs", OWNER, "own docs"),
    "foreign": Asker(STRANGER, "cloudreve://42@my", OWNER, "own"),
    "granted": Asker(GUEST, "cloudreve://open@share", OWNER, "granted"),
    "granted, another's cursor": Asker(GUEST, "cloudreve://42@my/docs", OWNER, "own docs"),
    "granted to the guest only": Asker(STRANGER, "cloudreve://open@share", OWNER, "granted"),
    "owner, through the share": Asker(OWNER, "cloudreve://open@share", OWNER, "granted"),
    "single file": Asker(GUEST, "cloudreve://file@share", OWNER, "granted"),
    "revoked": Asker(GUEST, "cloudreve://revoked@share", OWNER, "revoked"),
    "expired": Asker(GUEST, "cloudreve://expired@share", OWNER, "expired"),
    "no such share": Asker(GUEST, "cloudreve://none@share", STRANGER, "granted"),
    "trash": Asker(OWNER, "cloudreve://trash", None, "own"),
    "shared with me": Asker(GUEST, "cloudreve://shared_with_me", None, "granted"),
    "service, for a user": Asker(SERVICE, "cloudreve://my", OWNER, "own", is_service=True),
    "service, for nobody": Asker(SERVICE, "cloudreve://my", None, "own", is_service=True),
}
# Where a cursor comes from that somebody got who might, at that time, read there.
CURSORS = {
    "own": (OWNER, "cloudreve://my"),
    "own docs": (OWNER, "cloudreve://my/docs"),
    "granted": (GUEST, "cloudreve://open@share"),
    "revoked": (GUEST, "cloudreve://revoked@share"),
    "expired": (GUEST, "cloudreve://expired@share"),
}


class Sent(NamedTuple):
    """What a request brings as its token, in whatever place."""

    headers: list[tuple[str, str]]
    query: tuple[tuple[str, str], ...]


ISSUER, AUDIENCE, CSRF = "https://files.example", "events", "known to our own pages only"
REVOKED = "revoked"
COOKIE = "access_token_cookie"
Claims = Mapping[str, Any]


def claims_of(asker: Asker, **changed: Any) -> dict[str, Any]:
    """Make the claims of a good token; one of None is left out."""
    found: dict[str, Any] = {
        "sub": asker.user,
        "exp": int(time.time()) + 3_600,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": "good",
        "csrf": CSRF,
        "scopes": ["Events.Write"] if asker.is_service else [],
    }
    return {name: value for name, value in (found | changed).items() if value is not None}


def signed(claims: Claims, secret: str, algorithm: str = "HS256") -> str:
    """Sign claims, also those that PyJWT would not."""
    return jwt.api_jws.encode(json.dumps(claims).encode(), secret, algorithm)


def bearer(*tokens: str) -> Sent:
    """Bring tokens in headers, each in its own."""
    return Sent([("Authorization", f"Bearer {token}") for token in tokens], ())


Make = Callable[[Asker, str], Sent]


def made(**changed: Any) -> Make:
    """Make a good token with other claims; one of None is left out."""
    return lambda asker, secret: bearer(signed(claims_of(asker, **changed), secret))


def _later(claim: str, seconds: int) -> Make:
    """Set a time, counted from when the token is made."""

    def make(asker: Asker, secret: str) -> Sent:
        return made(**{claim: int(time.time()) + seconds})(asker, secret)

    return make


def _third_party(*scopes: str) -> Make:
    def make(asker: Asker, secret: str) -> Sent:
        listed = [*claims_of(asker)["scopes"], *scopes]
        return made(client_id="app", scopes=listed)(asker, secret)

    return make


def _good(asker: Asker, secret: str) -> str:
    return signed(claims_of(asker), secret)


def _another(secret: str) -> str:
    """Sign a good token of somebody who asks for nothing here."""
    return _good(ASKERS["own"]._replace(user="47"), secret)


def _unsigned(asker: Asker, secret: str) -> Sent:
    del secret
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims_of(asker)))
    header, payload = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    return bearer(f"{header}.{payload}.")


def _signature_of_another(asker: Asker, secret: str) -> Sent:
    mine, theirs = _good(asker, secret), _another(secret)
    return bearer(mine.rpartition(".")[0] + "." + theirs.rpartition(".")[2])


def _in_query(*tokens: str) -> Sent:
    return Sent([], tuple(("access_token", token) for token in tokens))


def _in_cookie(token: str, csrf: str | None = None) -> Sent:
    more = [("X-CSRF-TOKEN", csrf)] if csrf else []
    return Sent([("Cookie", f"{COOKIE}={token}"), *more], ())


MADE: dict[str, Make] = {
    "good": made(),
    "none": lambda *_: Sent([], ()),
    "no JWT": lambda *_: bearer("a.b.c"),
    "a password": lambda *_: Sent([("Authorization", "Basic NDI6cHc=")], ()),
    "signature of another": _signature_of_another,
    "signed by somebody else": lambda asker, secret: made()(asker, secret[::-1]),
    "algorithm none": _unsigned,
    "another algorithm": lambda asker, secret: bearer(signed(claims_of(asker), secret, "HS384")),
    "expired": _later("exp", -90),
    "not yet valid": _later("nbf", 90),
    "no end": made(exp=None),
    "token_type refresh": made(token_type="refresh"),
    "type refresh": made(type="refresh"),
    "third party's, no scope": _third_party(),
    "third party's, reads": _third_party("Files.Read"),
    "third party's, writes": _third_party("Files.Write"),
    "another issuer": made(iss="https://evil.example"),
    "no issuer": made(iss=None),
    "another audience": made(aud="mail"),
    "no audience": made(aud=None),
    "user empty": made(sub=""),
    "user a number": made(sub=42),
    "no user": made(sub=None),
    "two headers": lambda asker, secret: bearer(_good(asker, secret), _good(asker, secret)),
    "in the query": lambda asker, secret: _in_query(_good(asker, secret)),
    "two in the query": lambda asker, secret: _in_query(*[_good(asker, secret)] * 2),
    "in a cookie": lambda asker, secret: _in_cookie(_good(asker, secret)),
    "in a cookie, with CSRF": lambda asker, secret: _in_cookie(_good(asker, secret), CSRF),
    "in a cookie, another's CSRF": lambda asker, secret: _in_cookie(_good(asker, secret), "x"),
    "another one in the query": lambda asker, secret: Sent(
        bearer(_good(asker, secret)).headers, _in_query(_another(secret)).query
    ),
    "bad header, good cookie": lambda asker, secret: Sent(
        bearer("x").headers + _in_cookie(_good(asker, secret), CSRF).headers, ()
    ),
    "good header, another's cookie": lambda asker, secret: Sent(
        bearer(_good(asker, secret)).headers + _in_cookie(_another(secret), CSRF).headers, ()
    ),
    "revoked": made(jti=REVOKED),
}


def table(text: str) -> dict[tuple[str, str], str]:
    """Read a table: the words in it by row and column."""
    head, *lines = (list(map(str.strip, line.split("|"))) for line in text.strip().splitlines())
    return {
        (row, column): word
        for row, *words in lines
        for column, word in zip(head[1:], words, strict=True)
    }


def rows_of(text: str) -> list[str]:
    """List what a table has rows for."""
    return [line.partition("|")[0].strip() for line in text.strip().splitlines()[1:]]


def answers_to(tokens: str) -> dict[tuple[str, str, str], Answer]:
    """Say what each cell of (asker, door, token) is answered, by `GOOD` and one of the others."""
    good = table(GOOD)
    heads = [head.strip() for head in tokens.strip().splitlines()[0].split("|")][1:]
    by_token = {
        line.partition("|")[0].strip(): [word.strip() for word in line.split("|")[1:]]
        for line in tokens.strip().splitlines()[1:]
    }
    assert all(len(words) == len(heads) for words in by_token.values())
    return {
        (who, door, token): ANSWERS[good[who, door] if word == "-" else word]
        for who, door in good
        for token, words in by_token.items()
        for word in [words[2 * ASKERS[who].is_service + (door == "append")]]
    }


def cells(tokens: Iterable[str]) -> set[tuple[str, str, str]]:
    """Make the whole product, which the tables must be."""
    return {(who, door, token) for who in ASKERS for door in DOORS for token in tokens}

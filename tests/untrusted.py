"""What nobody vouches for: texts, URIs, parameters, and a journal in which every row has its owner.

A file id is `OWNER.POSITION`, so that whoever is told of it can be asked whether it may be.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

from flask import Flask
from hypothesis import settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert
from werkzeug.test import TestResponse

from events_app import api, errors, event, recall, schema, scope, sidecar, sse, uri
from tests import kept, tokens
from tests.frames import FRAME
from tests.frames import NAMES as FRAME_NAMES
from tests.worker import Connected

SCHEME = "cloudreve"
CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
START = datetime(2026, 11, 20, tzinfo=UTC)

STREAM, CHANGES, HISTORY = api.EVENTS_PATH, api.CHANGES_PATH, recall.HISTORY_PATH
DOORS = (STREAM, CHANGES, HISTORY)

# What a second or two on one core allow; a profile that asks for more gets more.
law = settings(max_examples=max(300, settings().max_examples))

# -- texts and URIs ------------------------------------------------------------------------------

ODD_NAMES = (
    *(".", "..", "...", " ", "%", "_", "*", "\\", "a\\..\\b", "%2e%2e", "a?b", "a#b", "a@b", "a:b"),
    *(
        "é",
        "e\N{COMBINING ACUTE ACCENT}",
        "😀",
        "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
        "\N{LATIN SMALL LETTER LONG S}",
        "\N{KELVIN SIGN}",
    ),
    *("\n", "\r\nid: 1\n\n", "\x00", "\x1b[2J", "\x7f", "\x85", "\u2028", "\ufeff", "\ud800"),
    *("docs", "Docs", "docs ", "docs0", "docs%", "doc_", "sub", "private", "a" * 300, "é" * 2_100),
)
NAMES = st.sampled_from(ODD_NAMES) | st.text(st.characters(codec=None), max_size=5)
# How a name is written: as it is, escaped, escaped twice.
WRITTEN = (
    lambda name: name,
    lambda name: quote(name.encode(errors="surrogatepass"), safe=""),
    lambda name: quote(quote(name.encode(errors="surrogatepass"), safe="")),
    lambda name: "".join(f"%{byte:02x}" for byte in name.encode(errors="surrogatepass")),
)
SEGMENTS = st.builds(lambda name, write: write(name), NAMES, st.sampled_from(WRITTEN))
SEPARATORS = st.sampled_from(["/", "//", "%2F", "/./", "/../", "%5C"])
SCHEMES = st.sampled_from(
    [*[SCHEME] * 24, "CloudReve", "CLOUDREVE", "http", "file", "javascript", "", "my"]
)
HOSTS = st.sampled_from(
    (
        *(*["my"] * 12, *["share"] * 12, "MY", "Share", "my:80", "my:", "trash", "[::1]", "[my]"),
        *("shared_with_me", "%6Dy", "my.", ""),
    )
)
KNOWN_USERS = ("1", "2", "3", "s1", "s2", "s3", "s4", "s5")
USERS = st.sampled_from([*KNOWN_USERS, "", "S1", "s1 ", "s1%20", "s1:word", "2:word@s1"]) | SEGMENTS
PATHS = st.lists(st.tuples(SEPARATORS, SEGMENTS), max_size=6).map(
    lambda parts: "".join(separator + segment for separator, segment in parts)
)
DEEP = st.integers(250, 260).map(lambda depth: "/a" * depth)
TAILS = st.sampled_from(["", "", "", "/", "?", "?a=b&c=%zz", "#top"])


@st.composite
def uris(draw: st.DrawFn) -> str:
    """Draw what may be a URI: mostly one that is nearly right."""
    user = draw(st.none() | st.sampled_from(KNOWN_USERS) | USERS)
    mark = draw(st.sampled_from(["://"] * 9 + [":", ":///"]))
    path = draw(PATHS | DEEP | st.sampled_from(["/docs", "/docs/sub", "/private", "/Docs"]))
    before = "" if user is None else f"{user}@"
    return f"{draw(SCHEMES)}{mark}{before}{draw(HOSTS)}{path}{draw(TAILS)}"


ANY_URIS = uris() | st.text(st.characters(codec=None), max_size=40)
# What a header can hold: bytes, read as Latin-1.
HEADERS = st.text(st.characters(max_codepoint=255), max_size=60)


def in_query(text: str) -> str:
    """Write a text into a query, also one that is no Unicode."""
    return quote(text.encode(errors="surrogatepass"), safe="")


def query(parameters: Mapping[str, str]) -> str:
    """Write parameters as a query."""
    return "&".join(f"{name}={in_query(value)}" for name, value in parameters.items())


# -- a journal of three users --------------------------------------------------------------------

FOLDERS = ("", "/docs", "/docs/sub", "/Docs", "/docs ", "/docs0", "/docs%", "/doc_", "/private")
OWNERS = ("1", "2", "3")
LAST = 3 * 3 * len(FOLDERS)

# Who may watch what of whom; what is over, is a file, or is another's permits nothing.
GRANTS: dict[tuple[str, str], uri.Folder] = {
    ("1", "s1"): uri.Folder("my", "/docs", "2"),
    ("1", "s2"): uri.Folder("my", "/", "3"),
    ("2", "s3"): uri.Folder("my", "/docs/sub", "1"),
    ("2", "s1"): uri.Folder("my", "/private", "3"),
}
NO_GRANTS: tuple[dict[str, Any], ...] = (
    {"share_id": "s4", "user_id": "1", "owner_id": "2", "path": "/", "expires_at": START},
    {"share_id": "s5", "user_id": "1", "owner_id": "2", "path": "/docs/f1", "is_folder": 0},
    {"share_id": "s3", "user_id": "4", "owner_id": "2", "path": "/"},
)


def rows() -> list[event.Row]:
    """Make the journal: each owner's changes in each folder, by turns, each with names of its own.

    Some come into a folder or leave it; none ends one.
    """
    return [_row(position) for position in range(1, LAST + 1)]


def _row(position: int) -> event.Row:
    owner = OWNERS[position % 3]
    folder = FOLDERS[position // 3 % len(FOLDERS)]
    kind = ("create", "rename", "delete")[position // (3 * len(FOLDERS)) % 3]
    other = FOLDERS[(position // 3 + 4) % len(FOLDERS)]
    return event.Row(
        position=position,
        tag=kept.tag_of(position),
        user_id=owner,
        fs="my",
        type=kind,
        file_id=f"{owner}.{position}",
        from_path=f"{folder}/f{position}",
        to_path=f"{other}/t{position}" if kind == "rename" else None,
        client_id=None,
        actor_id=None,
        recorded_at=START + timedelta(minutes=position),
        rejected=None,
    )


ROWS = rows()


def fill(app: Flask) -> None:
    """Put the journal and the grants into the app's database, and follow it to its end."""
    database = sidecar.of(app).database
    kept.keep(database, [kept.row(**row._asdict()) for row in ROWS])
    granted: list[dict[str, Any]] = [
        {"share_id": share, "user_id": user, "owner_id": to.owner_id, "path": to.path}
        for (user, share), to in GRANTS.items()
    ]
    for values in (*granted, *NO_GRANTS):
        statement = insert(schema.grant).values({"is_folder": 1, **values})
        database.write(partial(Connection.execute, statement=statement))
    while sidecar.of(app).tailer.turn():
        pass


def watcher(user_id: str, text: str) -> scope.Watcher | None:
    """Say who watches what by this URI, as the rules have it; None where nothing is."""
    try:
        place = uri.parse(text, scheme=SCHEME, user_id=user_id)
    except errors.RequestError:
        return None
    if isinstance(place, uri.Folder):
        return scope.Watcher.of(user_id, None, place)
    root = GRANTS.get((user_id, place.share_id))
    if root is None:
        return None
    path = (root.path.rstrip("/") + place.path).rstrip("/") or "/"
    return scope.Watcher.of(user_id, None, replace(root, path=path), place)


def visible(who: scope.Watcher, after: int = 0) -> list[event.Change]:
    """List what `who` may be told of the rows after a position, oldest first."""
    seen = [
        scope.view(row, who) for row in ROWS if row.position > after and row.user_id == who.owner_id
    ]
    assert not any(isinstance(each, scope.End) for each in seen)
    return [each for each in seen if isinstance(each, event.Change)]


# -- requests ------------------------------------------------------------------------------------


REFUSALS = {
    STREAM: {(400, 40001), (401, 401), (403, 403), (429, 429)},
    CHANGES: {(400, 40001), (401, 401), (403, 403), (410, 410)},
    HISTORY: {(400, 40001), (401, 401), (403, 403)},
}
POST_REFUSALS = {(400, 40001), (401, 401), (403, 403), (413, 413), (415, 415)}
DETAILS = ("Traceback", "sqlite", "SELECT ", 'File "')


def get(
    app: Flask, door: str, text: str, user_id: str = "1", headers: Mapping[str, str] | None = None
) -> TestResponse:
    """Ask at `door` with the query `text`; of the stream only whether it would be opened."""
    environ = {
        f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()
    }
    method = "HEAD" if door == STREAM else "GET"
    bearer = tokens.bearer(tokens.token(sub=user_id))
    return app.test_client().open(
        f"{door}?{text}", method=method, headers=bearer, environ_overrides=environ
    )


def check_refusal(answer: TestResponse, allowed: set[tuple[int, int]]) -> None:
    """Hold an error to the protocol: status and code are known, nothing of the inside is told."""
    if answer.request.method == "HEAD":
        assert answer.status_code in {status for status, _ in allowed}
        return
    document = answer.get_json()
    assert (answer.status_code, document["code"]) in allowed, document
    assert [*document][:3] == ["code", "msg", "correlation_id"]
    assert str(uuid.UUID(document["correlation_id"])) == document["correlation_id"]
    assert 0 < len(document["msg"]) < 400
    assert not any(word in answer.text for word in DETAILS)


def told(answer: TestResponse) -> list[tuple[str, str, str, str]]:
    """List the changes of a page, in a fixed order."""
    return sorted(
        (each["type"], each["file_id"], each["from"], each["to"])
        for each in answer.get_json()["data"]["events"]
    )


def expected(
    changes: Sequence[event.Change], *, again: bool = False
) -> list[tuple[str, str, str, str]]:
    """List what should be told in the same order; `again`: perhaps for the second time."""
    found: list[tuple[str, str, str, str]] = []
    for kind, file_id, path, to_path, _ in changes:
        if again and kind == "rename":
            found += [("delete", file_id, path, ""), ("create", file_id, to_path, "")]
        else:
            found.append((kind, file_id, path, to_path))
    return sorted(found)


def pages(app: Flask, door: str, text: str, user_id: str, limit: int) -> Iterator[TestResponse]:
    """Follow the pages of the history to their end."""
    before = ""
    while True:
        answer = get(app, door, f"{text}&limit={limit}{before}", user_id)
        yield answer
        if answer.status_code != 200 or answer.get_json()["data"]["next"] is None:
            return
        before = f"&before={answer.get_json()['data']['next']}"


# -- streams -------------------------------------------------------------------------------------

MAX_SINGLE_BYTES = 60 * 1024


def check_path(path: str) -> None:
    """Hold a path to what clients rely on: some delete recursively by it."""
    assert path.startswith("/")
    assert not {"", ".", ".."} & set(path[1:].split("/"))
    assert "\0" not in path
    assert len(path.encode()) <= uri.MAX_PATH_BYTES


def check_shape(changes: Sequence[Mapping[str, str]]) -> None:
    """Hold changes to the protocol."""
    for each in changes:
        assert list(each) == ["type", "file_id", "from", "to"]
        assert each["type"] in {"create", "modify", "rename", "delete"}
        assert (each["to"] != "") == (each["type"] == "rename")
        for path in filter(None, (each["from"], each["to"])):
            check_path(path)


def heard(reader: Connected) -> tuple[list[str], list[dict[str, str]]]:
    """Read a stream until nothing more comes: the names of its frames, and the changes in them."""
    names: list[str] = []
    changes: list[dict[str, str]] = []
    for written in reader.frames:
        found = FRAME.fullmatch(written)
        assert found is not None, written
        name, document = found[1].decode(), json.loads(found[3])
        data = document if isinstance(document, list) else [document]
        assert name in FRAME_NAMES
        assert len(written) <= sse.MAX_FRAME_BYTES or len(data) == 1
        assert len(written) <= MAX_SINGLE_BYTES
        names.append(name)
        if name == sse.KEEP_ALIVE:
            break
        changes += data
    check_shape(changes)
    return names, changes

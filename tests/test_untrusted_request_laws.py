"""Whatever a request holds: an answer that the protocol knows, and nobody else's rows in it."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from events_app import errors, history, intake, schema, scope, sidecar, sse, uri
from events_app.event import Cursor, Point
from tests import databases, kept, reused, tokens, untrusted
from tests.untrusted import CHANGES, DOORS, HISTORY, LAST, OWNERS, REFUSALS, law
from tests.worker import Worker


@pytest.fixture(scope="module")
def app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """Serve the journal of three users."""
    made = tokens.app(reused.url(request, "sqlite"), DEBOUNCE="0")
    untrusted.fill(made)
    yield made
    assert len(sidecar.of(made).admission) == 0
    assert not sidecar.of(made).tailer._bells
    sidecar.of(made).close()


# -- URIs ----------------------------------------------------------------------------------------


def parsed(text: str, user_id: str = "1") -> uri.Folder | uri.Share | None:
    """Read a URI; None where it is refused."""
    try:
        return uri.parse(text, scheme=untrusted.SCHEME, user_id=user_id)
    except (errors.BadParameter, errors.ForeignFolder):
        return None


@given(untrusted.ANY_URIS)
@settings(max_examples=max(1_500, settings().max_examples))
def test_a_parsed_folder_is_clean_and_its_text_means_the_same(text: str) -> None:
    place = parsed(text)
    if place is None:
        return
    assert place.path.startswith("/")
    assert not {"", ".", ".."} & set(place.path.split("/")[1:]) or place.path == "/"
    assert len(place.path.encode()) <= uri.MAX_PATH_BYTES
    assert "\0" not in place.path
    if isinstance(place, uri.Folder):
        assert (place.fs, place.owner_id) == ("my", "")
        written = f"cloudreve://my{quote(place.path)}"
    else:
        assert place.share_id
        written = f"cloudreve://{quote(place.share_id, safe='')}@share{quote(place.path)}"
    assert parsed(written) == place


@given(untrusted.ANY_URIS, st.sampled_from(OWNERS), st.sampled_from(DOORS))
@example("cloudreve://my/\ud800", OWNERS[0], DOORS[0])
@law
def test_every_door_answers_any_uri_as_the_protocol_says(
    app: Flask, text: str, user_id: str, door: str
) -> None:
    answer = untrusted.get(app, door, f"uri={untrusted.in_query(text)}", user_id)
    if answer.status_code != 200:
        untrusted.check_refusal(answer, REFUSALS[door])
    # Bytes that are no UTF-8 stay escaped in what werkzeug hands over.
    heard = text.encode(errors="surrogatepass").decode(errors="werkzeug.url_quote")
    allowed = untrusted.watcher(user_id, heard or "cloudreve://my") is not None
    assert (answer.status_code == 200) == allowed


# -- whose rows ----------------------------------------------------------------------------------

WATCHED = ("/", "/docs", "/docs/sub", "/Docs", "/docs ", "/docs%", "/doc_", "/private", "/nothing")
MOUNTS = ("my", "s1@share", "s2@share", "s3@share", "S1@share", "s4@share", "2@my", "1@my")
ADDRESSES = st.builds(
    lambda mount, path: f"cloudreve://{mount}{quote(path)}",
    st.sampled_from(MOUNTS),
    st.sampled_from(WATCHED),
)


@given(ADDRESSES, st.sampled_from(OWNERS), st.integers(1, 100), st.booleans())
@law
def test_history_is_what_one_may_see_and_nothing_else(
    app: Flask,
    address: str,
    user_id: str,
    limit: int,
    walks: bool,  # noqa: FBT001 -- hypothesis hands it over by its place
) -> None:
    """In pages of any size, by an index or by a walk."""
    who = untrusted.watcher(user_id, address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "FEW", 0 if walks else 2_000)
        patch.setattr(history, "LOOK_ROWS", 7 if walks else 10_000)
        text = f"uri={untrusted.in_query(address)}"
        answers = list(untrusted.pages(app, HISTORY, text, user_id, limit))
    if who is None:
        untrusted.check_refusal(answers[0], {(403, 403)})
        return
    found = [each for answer in answers for each in untrusted.told(answer)]
    assert sorted(found) == untrusted.expected(untrusted.visible(who))


def cursor(user_id: str, address: str, position: int) -> Cursor:
    """Make the cursor of whoever watches there, or would."""
    who = untrusted.watcher(user_id, address)
    folder = uri.Folder("my", "/") if who is None else who.folder
    tag = kept.tag_of(position) if position else 0
    return Cursor.at(reused.EPOCH, Point(position, tag), user_id, folder)


@given(ADDRESSES, st.sampled_from(OWNERS), st.integers(0, LAST), st.integers(1, 60))
@law
def test_changes_are_what_one_may_see_and_nothing_else(
    app: Flask, address: str, user_id: str, position: int, limit: int
) -> None:
    """In pages of any size from any place on, each change once."""
    who, asked = untrusted.watcher(user_id, address), f"uri={untrusted.in_query(address)}"
    if who is None:
        untrusted.check_refusal(untrusted.get(app, CHANGES, asked, user_id), {(403, 403)})
        return
    text, more = cursor(user_id, address, position).text(), True
    found: list[tuple[str, str, str, str]] = []
    while more:
        answer = untrusted.get(app, CHANGES, f"{asked}&cursor={text}&limit={limit}", user_id)
        found += untrusted.told(answer)
        data = answer.get_json()["data"]
        more, text = data["more"], data["cursor"]
    assert sorted(found) == untrusted.expected(untrusted.visible(who, position))


# -- cursors -------------------------------------------------------------------------------------

EPOCHS = st.sampled_from([reused.EPOCH] * 4 + [0, 1, reused.EPOCH + 1, 2**63, 2**64 - 1])
POSITIONS = st.integers(0, LAST) | st.sampled_from([LAST + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
TAGS = st.integers(0, LAST).map(kept.tag_of) | st.sampled_from([0, 2**32 - 1])


PERMITTED = [
    *((owner, "my") for owner in OWNERS),
    *((user_id, f"{share_id}@share") for user_id, share_id in untrusted.GRANTS),
]


@st.composite
def forged(draw: st.DrawFn, address: str, user_id: str) -> str:
    """Draw a cursor of this watcher or of another one, with anything changed in it."""
    made = cursor(user_id, address, draw(st.integers(0, LAST)))
    if draw(st.integers(0, 3)) == 0:
        made = cursor(draw(st.sampled_from(OWNERS)), draw(ADDRESSES), made.point.position)
    if draw(st.integers(0, 3)) == 0:
        made = made._replace(point=draw(st.builds(Point, POSITIONS, TAGS)))
    if draw(st.integers(0, 3)) == 0:
        made = made._replace(epoch=draw(EPOCHS))
    return made._replace(partly=draw(st.booleans())).text()


@st.composite
def mutilated(draw: st.DrawFn, address: str, user_id: str) -> str:
    """Draw such a cursor with some of its bytes or characters changed, added or taken away."""
    packed = bytearray(base64.urlsafe_b64decode(draw(forged(address, user_id)) + "="))
    for _ in range(draw(st.integers(0, 2))):
        packed[draw(st.integers(0, len(packed) - 1))] = draw(st.integers(0, 255))
    text = base64.urlsafe_b64encode(bytes(packed)).rstrip(b"=").decode()
    at = draw(st.integers(0, len(text)))
    put = draw(
        st.sampled_from(
            ["", "", "=", "A", "+", "/", " ", "\n", "\0", "é", "\N{ARABIC-INDIC DIGIT THREE}"]
        )
    )
    return text[:at] + put + text[at + draw(st.integers(0, 2)) :]


INVENTED = (
    st.binary(min_size=28, max_size=30).map(lambda b: base64.urlsafe_b64encode(b).decode())
    | st.builds(
        lambda *values: base64.urlsafe_b64encode(struct.pack(">BQQI8s", *values)).decode(),
        st.integers(0, 255),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.binary(min_size=8, max_size=8),
    )
    | st.integers().map(str)
    | st.text(st.characters(codec=None), max_size=50)
)


@st.composite
def attempts(draw: st.DrawFn) -> tuple[str, str, str]:
    """Draw a cursor, the folder that it is shown for, and the user who shows it."""
    user_id, mount = draw(st.sampled_from(PERMITTED))
    address = f"cloudreve://{mount}{quote(draw(st.sampled_from(WATCHED)))}"
    if draw(st.integers(0, 5)) == 0:
        address = draw(ADDRESSES)
    text = draw(st.one_of(forged(address, user_id), mutilated(address, user_id), INVENTED))
    return text, address, user_id


def asked_for(text: str) -> str | None:
    """Return what is heard of a text that is sent: what is no Unicode comes as U+FFFD."""
    return text.encode(errors="surrogatepass").decode(errors="replace") or None


def check_own(start: Cursor, user_id: str, who: scope.Watcher) -> None:
    """Hold a cursor that was honoured to what makes it the watcher's own."""
    position = start.point.position
    own = Cursor.at(reused.EPOCH, Point(position, kept.tag_of(position)), user_id, who.folder)
    assert start.watcher == own.watcher
    assert start.epoch == own.epoch
    assert start.point == own.point or position == 0, "at the floor there is no row to compare"


@given(attempts())
@law
def test_a_cursor_resumes_at_a_place_of_its_own_or_not_at_all(
    app: Flask, attempt: tuple[str, str, str]
) -> None:
    text, address, user_id = attempt
    asked = f"uri={untrusted.in_query(address)}&cursor={untrusted.in_query(text)}&limit=1000"
    answer = untrusted.get(app, CHANGES, asked, user_id)
    who = untrusted.watcher(user_id, address)
    if answer.status_code != 200:
        untrusted.check_refusal(answer, REFUSALS[CHANGES])
        if answer.status_code == 410:
            fresh = Cursor.parse(answer.get_json()["data"]["cursor"])
            assert fresh is not None
            assert fresh.point.position == LAST
        return
    assert who is not None
    start = Cursor.parse(asked_for(text) or "")
    if start is None:
        assert untrusted.told(answer) == []
        return
    check_own(start, user_id, who)
    visible = untrusted.visible(who, start.point.position)
    assert untrusted.told(answer) == untrusted.expected(visible, again=start.partly)


@pytest.fixture(scope="module")
def worker(app: Flask) -> Iterator[Worker]:
    """Follow the same journal on a clock that waits for nobody."""
    made = Worker(sidecar.of(app).settings.database_url)
    yield made
    assert made.holds_nothing()
    made.close()


@given(attempts(), st.sampled_from(["array", "object"]))
@law
def test_a_stream_resumes_at_a_place_of_its_own_or_begins_afresh(
    worker: Worker, attempt: tuple[str, str, str], payload: sse.Payload
) -> None:
    text, address, user_id = attempt
    who = untrusted.watcher(user_id, address)
    heard = asked_for(text)
    if who is None or heard is None:
        return
    with contextlib.closing(worker.stream(who, heard, payload=payload, debounce=0)) as reader:
        names, changes = untrusted.heard(reader)
    start = Cursor.parse(heard)
    if names[0] == "subscribed":
        assert names == ["subscribed", "keep-alive"]
        assert changes == []
        return
    assert start is not None
    check_own(start, user_id, who)
    found = [(each["type"], each["file_id"], each["from"], each["to"]) for each in changes]
    visible = untrusted.visible(who, start.point.position)
    assert sorted(found) == untrusted.expected(visible, again=start.partly)


@pytest.mark.parametrize("at", range(29))
def test_each_byte_of_a_cursor_counts(app: Flask, at: int) -> None:
    """All but the first, which says how to go on and not where."""
    address = "cloudreve://s1@share"
    packed = bytearray(base64.urlsafe_b64decode(cursor("1", address, 40).text() + "="))
    for flipped in (0x01, 0x80, 0xFF):
        changed = bytes(packed[:at] + bytes([packed[at] ^ flipped]) + packed[at + 1 :])
        text = base64.urlsafe_b64encode(changed).decode()
        asked = f"uri={untrusted.in_query(address)}&cursor={text}"
        assert untrusted.get(app, CHANGES, asked).status_code == 410


# -- parameters and headers ----------------------------------------------------------------------

ODD_NUMBERS = (
    *("", "0", "1", "51", "1000", "1001", "9" * 30, "0" * 5_000, "-1", "+1", "1e3", "1e400"),
    *("0x1", "\N{ARABIC-INDIC DIGIT THREE}", "1_0", " 1", "253402300800"),
)
ODD_WORDS = ("array", "object", "ARRAY", "create", "rename")
ODD_TIMES = (
    *("2026-11-22T00:00:00Z", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59Z"),
    *("0001-01-01T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T00:00:00+23:59"),
    "2026-11-22T00:00:00.123456789012Z",
)
ODD_VALUES = (
    st.text(max_size=3)
    | st.text(max_size=30)
    | st.integers(-2, 99).map(str)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes().map(str)
    | st.sampled_from([*ODD_NUMBERS, *ODD_WORDS, *ODD_TIMES])
)
PARAMETERS = (
    *("limit", "before", "wait", "since", "until", "type", "payload", "client_id"),
    *("last_event_id", "cursor", "uri", "access_token", "", "limit[]"),
)


@given(
    st.sampled_from(DOORS),
    st.lists(st.tuples(st.sampled_from(PARAMETERS), ODD_VALUES), max_size=3),
    st.dictionaries(
        st.sampled_from(["X-Cr-Client-Id", "Last-Event-ID", "Accept", "Origin", "Cookie", "Range"]),
        untrusted.HEADERS | st.sampled_from([untrusted.CLIENT, "", ","]),
        max_size=2,
    ),
)
@law
def test_any_parameters_and_headers_are_answered_as_the_protocol_says(
    app: Flask, door: str, parameters: list[tuple[str, str]], headers: dict[str, str]
) -> None:
    text = "&".join(f"{name}={untrusted.in_query(value)}" for name, value in parameters)
    answer = untrusted.get(app, door, text, headers=headers)
    if answer.status_code != 200:
        untrusted.check_refusal(answer, REFUSALS[door])
    elif door != untrusted.STREAM:
        assert {each[1].partition(".")[0] for each in untrusted.told(answer)} <= {"1"}


@given(untrusted.HEADERS, st.sampled_from(DOORS))
@law
def test_any_authorization_that_is_no_token_is_401(app: Flask, text: str, door: str) -> None:
    environ = {"HTTP_AUTHORIZATION": text}
    answer = app.test_client().get(door, environ_overrides=environ)
    untrusted.check_refusal(answer, {(401, 401)})


# -- bodies --------------------------------------------------------------------------------------

ITEM: dict[str, Any] = {"type": "create", "file_id": "f", "from": "/a", "meta": {"a": [1, None]}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
VALUES = (
    JSON
    | untrusted.NAMES.map(lambda name: f"/{name}")
    | st.sampled_from(
        ["1", "2", "rename", "delete", "/a/../b", "//", "x" * 65, "y" * 129, "z" * 5_000, 10**400]
    )
)
KEYS = st.sampled_from(
    (
        *("type", "file_id", "from", "to", "user_id", "fs", "is_folder", "client_id", "actor_id"),
        *("event_key", "meta", "rejected", "position", "__proto__"),
    )
)
ITEMS = st.dictionaries(KEYS, VALUES, max_size=3).map(lambda changed: ITEM | changed) | JSON
FORMS = st.sampled_from(["application/json", "application/x-ndjson"])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str]:
    """Draw changes as an array or as lines, and do something to the bytes."""
    form, items = draw(FORMS), draw(st.lists(ITEMS, max_size=4))
    written = [json.dumps(each, ensure_ascii=draw(st.booleans())) for each in items]
    text = f"[{','.join(written)}]" if form == "application/json" else "\n".join(written)
    body = bytearray(text.encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body), form


@pytest.fixture(scope="module")
def writable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """Serve an empty journal of its own."""
    with databases.migrated("sqlite", tmp_path_factory.mktemp("writable")) as url:
        made = tokens.app(url)
        yield made
        sidecar.of(made).close()


@given(bodies(), st.sampled_from(["", "wait=0", "wait=x", "wait=0&wait=0"]))
@law
def test_a_body_is_written_whole_and_as_the_mover_takes_it_or_not_at_all(
    writable: Flask, body: tuple[bytes, str], text: str
) -> None:
    content, form = body
    database = sidecar.of(writable).database
    answer = writable.test_client().post(
        f"{untrusted.STREAM}?{text}",
        data=content,
        headers=tokens.bearer(tokens.token(sub="1")) | {"Content-Type": form},
    )
    found = database.read(lambda db: db.execute(select(schema.outbox)).mappings().all())
    if answer.status_code != 201:
        untrusted.check_refusal(answer, untrusted.POST_REFUSALS)
        assert not found
        return
    assert answer.get_json()["data"] == {"accepted": len(found)}
    for row in found:
        assert (row["user_id"], row["actor_id"]) == ("1", "1")
        moved = intake.clean({**row, "meta": None}, row["created_at"])
        assert moved["rejected"] is None
    database.write(lambda db: db.execute(delete(schema.outbox)))

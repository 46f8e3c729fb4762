"""A body of changes: what is taken of it, what is refused, and in which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events_app import errors, intake, outbox, pieces, submission
from events_app.submission import Author, Form

USER = Author("42", None)
SERVICE = Author(None, None)
CLIENT = "0b0e5f3a-6c1d-4f1e-9d5a-3a1b2c3d4e5f"
OTHER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
MOST = 3

SMALLEST: dict[str, Any] = {"type": "create", "file_id": "f9", "from": "/docs/plan.md"}
WRITTEN = {
    "user_id": "42",
    "type": "create",
    "file_id": "f9",
    "fs": "my",
    "from_path": "/docs/plan.md",
    "to_path": None,
    "is_folder": 0,
    "client_id": None,
    "actor_id": "42",
    "event_key": None,
    "meta": None,
}


def read(body: bytes | str, form: Form = "array", author: Author = USER) -> list[dict[str, Any]]:
    """Read a body to its end."""
    written = body.encode() if isinstance(body, str) else body
    return list(submission.changes(written, form, author, MOST))


def row(author: Author = USER, **changed: Any) -> dict[str, Any]:
    """Read a body of the smallest change with these keys; `from_` stands for `from`."""
    keys = {name.rstrip("_"): value for name, value in changed.items()}
    (found,) = read(json.dumps([SMALLEST | keys]), author=author)
    return found


def refusal(
    body: bytes | str, form: Form = "array", author: Author = USER
) -> tuple[type[errors.RequestError], str, Any]:
    """Read a body that is refused: how, in which words, and the index in it."""
    with pytest.raises(errors.RequestError) as caught:
        read(body, form, author)
    data = caught.value.data
    if data is not None:
        assert caught.value.message == f"change {data['index']}: {data['reason']}"
        return caught.type, str(data["reason"]), data["index"]
    return caught.type, caught.value.message, None


def with_key(text: str) -> str:
    """Write a body of the smallest change with one more key, as text that may be no JSON."""
    return f"[{json.dumps(SMALLEST)[:-1]}, {text}}}]"


# -- what is taken -------------------------------------------------------------------------------


def test_the_smallest_change_has_three_keys_and_its_row_has_every_column() -> None:
    assert row() == WRITTEN
    assert tuple(row()) == outbox.COLUMNS


def test_every_key_has_its_column() -> None:
    given_keys: dict[str, Any] = {
        "fs": "share",
        "is_folder": True,
        "client_id": CLIENT.upper(),
        "event_key": "k1",
        "to": "/b",
        "type": "rename",
    }
    assert row(**given_keys) == WRITTEN | {
        "type": "rename",
        "fs": "share",
        "to_path": "/b",
        "is_folder": 1,
        "client_id": CLIENT,
        "event_key": "k1",
    }


@pytest.mark.parametrize(
    ("changed", "column", "value"),
    [
        ({"to": ""}, "to_path", None),
        ({"to": None}, "to_path", None),
        ({"is_folder": 1}, "is_folder", 1),
        ({"is_folder": False}, "is_folder", 0),
        ({"is_folder": 1.0}, "is_folder", 1),
        ({"client_id": None}, "client_id", None),
        ({"client_id": "my laptop"}, "client_id", None),
        ({"client_id": f"urn:uuid:{CLIENT}"}, "client_id", CLIENT),
        ({"from_": "/docs//plan.md/"}, "from_path", "/docs/plan.md"),
        ({"from_": "/😀\t\n\\N"}, "from_path", "/😀\t\n\\N"),
        ({"event_key": None}, "event_key", None),
        ({"meta": None}, "meta", None),
    ],
)
def test_what_only_looks_odd_is_cleaned_as_the_mover_does(
    changed: dict[str, Any], column: str, value: Any
) -> None:
    assert row(**changed) == WRITTEN | {column: value}


def test_the_requests_client_id_is_the_default() -> None:
    author = Author("42", OTHER)
    assert row(author)["client_id"] == OTHER
    assert row(author, client_id=CLIENT)["client_id"] == CLIENT


def test_a_user_acts_in_its_own_name_whatever_the_change_says() -> None:
    assert row(actor_id="7")["actor_id"] == "42"
    assert row(user_id="42")["user_id"] == "42"


def test_a_service_says_whose_change_it_is_and_who_did_it() -> None:
    found = row(SERVICE, user_id="7")
    assert (found["user_id"], found["actor_id"]) == ("7", None)
    assert row(SERVICE, user_id="7", actor_id="8")["actor_id"] == "8"


@pytest.mark.parametrize(
    "meta",
    [
        '{"size" : 1.10,  "n": 123456789012345678901234567890, "e":1e999}',
        '"\\u00e9\\u0000 \\ud83d\\ude00 é"',
        "[]",
        "0",
        "[" * 30 + "]" * 30,
        "9" * 10_000,
    ],
)
def test_meta_is_kept_as_it_was_written(meta: str) -> None:
    (found,) = read(with_key(f'"meta": {meta}'))
    assert found["meta"] == meta


@pytest.mark.parametrize(
    ("body", "form", "count"),
    [
        ("[{0}]", "array", 1),
        (" \r\n[\t{0} ,\n{0}\n] \n", "array", 2),
        ("{0}", "lines", 1),
        ("{0}\n{0}\n{0}", "lines", 3),
        ("\n\n {0} \r\n\r\n{0}\n", "lines", 2),
    ],
)
def test_a_body_is_an_array_or_lines(body: str, form: Form, count: int) -> None:
    assert read(body.replace("{0}", json.dumps(SMALLEST)), form) == [WRITTEN] * count


def test_a_change_may_be_as_long_as_two_paths_with_every_byte_escaped() -> None:
    path = "/" + "\x01" * 4_095
    assert row(type="rename", from_=path, to=path + "")["to_path"] == path


# -- what is refused -----------------------------------------------------------------------------

BAD = errors.BadParameter


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "a JSON array of changes is expected, it is something else"),
        ("{}", "a JSON array of changes is expected, it is an object"),
        ("null", "it is something else"),
        ("[]", "it holds no change"),
        (" [ ] ", "it holds no change"),
        ("[", "an object is expected"),
        ("[] []", "something follows the array, at character 3"),
        (b"\xef\xbb\xbf[]", "it begins with a byte order mark"),
        ("[]".encode("utf-16-le"), "an object is expected"),
        (b'[{"type":"\xff"}]', "byte 10 is not valid UTF-8"),
        (json.dumps([SMALLEST])[:-1], "neither a comma nor a closing bracket"),
        (json.dumps([SMALLEST]) + ",", "something follows the array"),
    ],
)
def test_what_is_no_list_of_changes_is_refused_as_a_whole(body: bytes | str, words: str) -> None:
    kind, said, index = refusal(body)
    assert kind is BAD
    assert words in said
    assert index in {None, 0}


@pytest.mark.parametrize("body", ["", "\n", " \r\n \n"])
def test_lines_without_a_change_are_refused(body: str) -> None:
    assert refusal(body, "lines") == (BAD, "body: it holds no change", None)


WRONG_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"type": "moved"}, "Invalid enum value 'moved' - at `$.type`"),
    ({"type": "Create"}, "Invalid enum value 'Create' - at `$.type`"),
    ({"type": 1}, "Expected `str`, got `int` - at `$.type`"),
    ({"file_id": ""}, "Expected `str` of length >= 1 - at `$.file_id`"),
    ({"file_id": 9}, "Expected `str`, got `int` - at `$.file_id`"),
    ({"file_id": "x" * 129}, "Expected `str` of length <= 128 - at `$.file_id`"),
    ({"file_id": "a\0"}, "file_id holds a NUL"),
    ({"from": ""}, "Expected `str` of length >= 1 - at `$.from`"),
    ({"from": "docs"}, "from does not start with /"),
    ({"from": "/"}, "from is the root, which is no entry of its own"),
    ({"from": "/a/../b"}, "from has a .. segment"),
    ({"from": "/" + "é" * 2_048}, "from is longer than 4096 bytes"),
    ({"to": "/b"}, "to is for renames only"),
    ({"type": "rename"}, "a rename needs to"),
    ({"type": "rename", "to": "b"}, "to does not start with /"),
    ({"user_id": ""}, "Expected `str` of length >= 1 - at `$.user_id`"),
    ({"fs": ""}, "Expected `str` of length >= 1 - at `$.fs`"),
    # With a user's token it counts for nothing, and is wrong all the same.
    ({"actor_id": "a\0"}, "actor_id holds a NUL"),
    ({"is_folder": 0.5}, "Expected `float` that's a multiple of 1.0 - at `$.is_folder`"),
    ({"is_folder": 2}, "Expected `float` <= 1.0 - at `$.is_folder`"),
    ({"is_folder": "no"}, "Expected `bool | float`, got `str` - at `$.is_folder`"),
    ({"client_id": 1}, "Expected `str | null`, got `int` - at `$.client_id`"),
    ({"event_key": "k" * 129}, "Expected `str` of length <= 128 - at `$.event_key`"),
    ({"event_key": ""}, "Expected `str` of length >= 1 - at `$.event_key`"),
    ({"form": "/a"}, "there is no key 'form'; the nearest is 'from'"),
    ({"from_path": "/a"}, "there is no key 'from_path'; the nearest is 'from'"),
    ({"clientid": CLIENT}, "there is no key 'clientid'; the nearest is 'client_id'"),
    ({"created_at": "now"}, "there is no key 'created_at'; the nearest is "),
    ({"": 1}, "there is no key ''; the nearest is "),
    ({"x" * 5_000: 1}, "there is no key '" + "x" * 64 + "'; the nearest is "),
]


@pytest.mark.parametrize(("changed", "words"), WRONG_KEYS, ids=lambda each: str(each)[:40])
@pytest.mark.parametrize("form", ["array", "lines"])
def test_a_wrong_change_is_refused_with_its_index_and_reason(
    changed: dict[str, Any], words: str, form: Form
) -> None:
    texts = [json.dumps(each) for each in (SMALLEST, SMALLEST | changed, SMALLEST)]
    body = f"[{','.join(texts)}]" if form == "array" else "\n".join(texts)
    kind, said, index = refusal(body, form)
    assert (kind, index) == (BAD, 1)
    assert said.startswith(words)
    assert len(said) < 210


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (with_key('"from": "/b"'), "the key 'from' comes twice"),
        (with_key('"meta": {"a": 1, "a": 2}'), "the key 'a' comes twice"),
        (with_key('"meta": NaN'), "it is not JSON: NaN is no number"),
        (with_key('"meta": [-Infinity]'), "it is not JSON: -Infinity is no number"),
        (with_key('"meta": 01'), "it is not JSON: Expecting ',' delimiter at its character"),
        (with_key('"meta": "\\ud800"'), "it is not JSON: half of a surrogate pair"),
        (with_key('"fs": "\\udc00"'), "it is not JSON: half of a surrogate pair"),
        (with_key('"fs": "\n"'), "it is not JSON: Invalid control character at"),
        (with_key('"meta": ' + "[" * 31 + "]" * 31), "meta is nested more than 30 deep"),
        (with_key('"meta": ' + '{"a":' * 31 + "0" + "}" * 31), "meta is nested more than 30 deep"),
        (with_key('"meta": ' + "[" * 100_000), "it is nested too deeply"),
        (with_key('"meta": "' + "x" * 140_000 + '"'), "it is longer than 131072 characters"),
        ("[" * 1_000_000, "an object is expected"),
        ("[null]", "an object is expected"),
        ("[{]", "it is not JSON: Expecting property name"),
        ("[{}]", "Object missing required field `type`"),
    ],
    ids=lambda each: each[:60],
)
def test_what_readers_of_json_disagree_about_is_refused(body: str, words: str) -> None:
    kind, said, index = refusal(body)
    assert (kind, index) == (BAD, 0)
    assert said.startswith(words)


class Name(str):
    """A key that counts how often keys are compared."""

    __slots__ = ()
    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.comparisons += 1
        return super().__eq__(other)


def test_a_key_that_comes_twice_is_found_in_one_pass() -> None:
    """There are 14,000 in the longest change; each against each took two seconds of everybody's."""
    names = [Name(number) for number in range(1_000)]
    with pytest.raises(ValueError, match="the key '999' comes twice"):
        pieces._without_repetition([(name, 0) for name in [*names, Name(999)]])
    assert Name.comparisons < len(names)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{0}{0}", "something follows it in its line"),
        ("{0},", "something follows it in its line"),
        ("[{0}]", "an object is expected"),
        ("{", "it is not JSON: Expecting property name"),
        ('{"a":\n1}', "it is not JSON: Expecting value"),
        ("x" * 140_000, "it is longer than 131072 characters"),
    ],
)
def test_a_line_is_one_change(line: str, words: str) -> None:
    smallest = json.dumps(SMALLEST)
    kind, said, index = refusal(smallest + "\n" + line.replace("{0}", smallest), "lines")
    assert (kind, index) == (BAD, 1)
    assert said.startswith(words)


@pytest.mark.parametrize("form", ["array", "lines"])
def test_one_change_too_many_is_refused(form: Form) -> None:
    texts = [json.dumps(SMALLEST)] * (MOST + 1)
    body = f"[{','.join(texts)}]" if form == "array" else "\n".join(texts)
    assert refusal(body, form) == (errors.TooLarge, "more than 3 changes in one request", None)


def test_a_user_writes_for_nobody_else() -> None:
    changes = [SMALLEST, SMALLEST | {"user_id": "43"}]
    words = "user_id names somebody else: that takes a service token"
    assert refusal(json.dumps(changes)) == (errors.ForeignUser, words, 1)


def test_a_service_names_the_user_of_each_change() -> None:
    changes = [SMALLEST | {"user_id": "7"}, SMALLEST]
    words = "a service names the user_id of each change"
    assert refusal(json.dumps(changes), author=SERVICE) == (BAD, words, 1)


def test_a_reason_is_one_printable_line_whatever_it_quotes() -> None:
    for odd in ({"type": "a\r\nlevel=critical"}, {"\x1b[2J\n": 1}, {"from": "\n"}):
        _, said, _ = refusal(json.dumps([SMALLEST | odd]))
        assert said.isprintable()


# -- laws ----------------------------------------------------------------------------------------

ODD_TEXT = st.text(max_size=6) | st.sampled_from(["/a", "/a/../b", "/", "", "/é", "rename", CLIENT])
ODD_VALUE = st.none() | st.booleans() | st.integers(-1, 2) | ODD_TEXT | st.lists(ODD_TEXT)
ODD_CHANGE = st.dictionaries(
    st.sampled_from([*submission.KEYS, "form", "From"]), ODD_VALUE, max_size=4
).map(lambda changed: SMALLEST | changed)


def taken(body: bytes | str, form: Form = "array") -> list[dict[str, Any]] | errors.RequestError:
    """Read a body, or return why it is refused."""
    try:
        return read(body, form)
    except errors.RequestError as error:
        return error


@given(ODD_CHANGE)
def test_what_is_taken_the_mover_does_not_reject(change: dict[str, Any]) -> None:
    """And it cleans nothing more in it."""
    found = taken(json.dumps([change]))
    if isinstance(found, errors.RequestError):
        assert found.data is not None
        return
    moved = found[0] | {"created_at": NOW}
    assert intake.clean(moved, NOW) == moved | {"rejected": None}


@given(st.lists(ODD_CHANGE, min_size=1, max_size=MOST))
def test_an_array_and_lines_are_read_alike(changes: list[dict[str, Any]]) -> None:
    array, lines = taken(json.dumps(changes)), taken("\n".join(map(json.dumps, changes)), "lines")
    assert str(array) == str(lines)


@given(st.binary(max_size=60), st.sampled_from(["array", "lines"]), st.integers(0, 60))
def test_no_body_is_more_than_refused(noise: bytes, form: Form, at: int) -> None:
    body = json.dumps([SMALLEST]).encode()
    for each in (noise, body[:at] + noise + body[at:], body[:at] + noise):
        found = taken(each, form)
        assert isinstance(found, list) or found.status in {400, 403, 413}


def test_the_schema_says_what_a_change_may_hold() -> None:
    schema = msgspec.json.schema(submission.Item)["$defs"]["Item"]
    assert schema["required"] == ["type", "file_id", "from"]
    assert list(schema["properties"]) == submission.KEYS
    assert schema["additionalProperties"] is False
    for name, limit in (("file_id", 128), ("fs", 32)):
        assert schema["properties"][name]["maxLength"] == limit == intake.LENGTHS[name]
    for name in ("user_id", "actor_id", "event_key"):
        assert schema["properties"][name]["anyOf"][0]["maxLength"] == intake.LENGTHS[name]

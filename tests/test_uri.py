"""A URI names one clean folder of its own user, or says what is wrong with it."""

from __future__ import annotations

import re

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events_app import errors, uri
from events_app.uri import Folder, Share

patiently = hypothesis.settings(deadline=None)

# Enough kinds of characters to break a parser; few enough that segments often repeat.
PATHS = st.text(alphabet="aB./%é#😀 ", max_size=40)
CLEAN_PATHS = PATHS.map(uri.clean_path)


def parse(text: str, user_id: str = "42") -> Folder:
    found = uri.parse(text, scheme="cloudreve", user_id=user_id)
    assert isinstance(found, Folder)
    return found


def parse_share(text: str, user_id: str = "42") -> Folder | Share:
    return uri.parse(text, scheme="cloudreve", user_id=user_id)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("cloudreve://my", "/"),
        ("cloudreve://my/", "/"),
        ("cloudreve://42@my", "/"),
        ("cloudreve://42@my/docs", "/docs"),
        ("cloudreve://my/docs/", "/docs"),
        ("cloudreve://my//docs///a//", "/docs/a"),
        ("cloudreve://my/docs/./a/../b", "/docs/b"),
        ("cloudreve://my/../../docs", "/docs"),
        ("cloudreve://my/..", "/"),
        ("cloudreve://my/%2e%2E/docs", "/docs"),
        ("cloudreve://my/docs%2Fa", "/docs/a"),
        ("cloudreve://my/%2F..%2Fdocs", "/docs"),
        ("cloudreve://my/.../..a/b..", "/.../..a/b.."),
        ("cloudreve://my/docs?type=file&a=%zz", "/docs"),
        ("cloudreve://my?search", "/"),
        ("cloudreve://my/a%3Fb?c", "/a?b"),
        ("cloudreve://my/a#b", "/a#b"),
        ("cloudreve://my/a+b", "/a+b"),
        ("cloudreve://my/a%2Bb%20c%25", "/a+b c%"),
        ("cloudreve://my/%2520", "/%20"),
        ("cloudreve://my/a@b:c", "/a@b:c"),
        ("cloudreve://my/caf%C3%A9/😀", "/café/😀"),
        ("cloudreve://my/café", "/café"),
        ("cloudreve://my/cafe%CC%81", "/cafe\N{COMBINING ACUTE ACCENT}"),
        ("cloudreve://my/line%0Abreak", "/line\nbreak"),
        ("CloudReve://MY/Docs", "/Docs"),
    ],
)
def test_the_path_is_decoded_and_then_cleaned(text: str, path: str) -> None:
    assert parse(text) == Folder("my", path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begin with cloudreve://"),
        ("/docs", "begin with cloudreve://"),
        ("cloudreve:my/docs", "begin with cloudreve://"),
        ("https://my/docs", "begin with cloudreve://"),
        (" cloudreve://my", "begin with cloudreve://"),
        ("cloudreve://", "file system"),
        ("cloudreve:///docs", "file system"),
        ("cloudreve://trash", "file system"),
        ("cloudreve://shared_with_me/docs", "file system"),
        ("cloudreve://my.example/docs", "file system"),
        ("cloudreve://my#docs", "file system"),
        ("cloudreve://%6Dy/docs", "file system"),
        ("cloudreve://my:80/docs", "port"),
        ("cloudreve://my:/docs", "port"),
        ("cloudreve://@my/docs", "empty"),
        ("cloudreve://my/%zz", "hexadecimal"),
        ("cloudreve://my/%2", "hexadecimal"),
        ("cloudreve://my/100%", "hexadecimal"),
        ("cloudreve://my/%+1", "hexadecimal"),
        ("cloudreve://%zz@my/docs", "hexadecimal"),
        ("cloudreve://my/%ff", "UTF-8"),
        ("cloudreve://my/%C3", "UTF-8"),
        ("cloudreve://my/%C0%AF", "UTF-8"),
        ("cloudreve://my/%ED%A0%80", "UTF-8"),
        ("cloudreve://my/\ud800", "UTF-8"),
        ("cloudreve://%ff@my/docs", "UTF-8"),
        ("cloudreve://my/a%00b", "NUL"),
        ("cloudreve://my/a\0b", "NUL"),
        ("cloudreve://4%002@my/docs", "NUL"),
        ("cloudreve://my/" + "a" * 4096, "4096 bytes"),
        ("cloudreve://my/" + "é" * 2048, "4096 bytes"),
        ("cloudreve://my?" + "a" * 16_000, "16000 characters"),
    ],
)
def test_an_unusable_uri_is_a_parameter_error_that_names_the_reason(text: str, reason: str) -> None:
    with pytest.raises(errors.BadParameter, match=reason) as caught:
        parse(text)
    assert caught.value.message.startswith("uri: ")
    assert len(caught.value.message) < 100


def test_the_longest_path_is_4096_bytes_with_its_slash_however_escaped() -> None:
    for text in ("a" * 4095, "%61" * 4095):
        assert parse("cloudreve://my/" + text).path == "/" + "a" * 4095


def test_the_longest_text_is_16000_characters() -> None:
    text = "cloudreve://my/docs?"
    assert parse(text + "a" * (16_000 - len(text))).path == "/docs"


def test_a_folder_is_at_most_256_deep_however_it_is_written() -> None:
    """Each folder above it is looked for by name: more of them would be megabytes."""
    assert parse("cloudreve://my" + "/a" * 256 + "/../b/").path == "/a" * 255 + "/b"
    for mount in ("my", "s1@share"):
        with pytest.raises(errors.BadParameter, match="more than 256 deep"):
            parse(f"cloudreve://{mount}/a" + "%2Fa" * 256)


def test_another_users_folder_is_foreign() -> None:
    for text in ("cloudreve://43@my/docs", "cloudreve://42x@my", "cloudreve://42%20@my"):
        with pytest.raises(errors.ForeignFolder):
            parse(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("cloudreve://xY3@share", Share("xY3", "/")),
        ("cloudreve://xY3@SHARE/", Share("xY3", "/")),
        ("cloudreve://xY3@share/a/../b%20c/", Share("xY3", "/b c")),
        ("cloudreve://xY3@share/../../a", Share("xY3", "/a")),
        ("cloudreve://xY3:s3cret%40@share/a", Share("xY3", "/a")),
        ("cloudreve://x%3AY@share", Share("x:Y", "/")),
        ("cloudreve://42@share", Share("42", "/")),
    ],
)
def test_a_share_is_named_by_its_id_and_not_by_its_password(text: str, share: Share) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cloudreve://share", "no share"),
        ("cloudreve://share/a", "no share"),
        ("cloudreve://@share", "empty"),
        ("cloudreve://:secret@share", "empty"),
        ("cloudreve://x@share:80", "port"),
        ("cloudreve://x@share/%00", "NUL"),
        ("cloudreve://%ff@share", "UTF-8"),
    ],
)
def test_an_unusable_share_is_a_parameter_error_that_names_the_reason(
    text: str, reason: str
) -> None:
    with pytest.raises(errors.BadParameter, match=reason):
        parse_share(text)


def test_what_is_wrong_with_the_uri_is_said_before_whose_it_is() -> None:
    for text in ("cloudreve://43@trash", "cloudreve://43@my/%zz", "cloudreve://43@my:1/"):
        with pytest.raises(errors.BadParameter):
            parse(text)


@pytest.mark.parametrize(
    ("written", "user_id"),
    [
        ("%34%32", "42"),
        ("a@example.com", "a@example.com"),
        ("a%40example.com", "a@example.com"),
        ("auth0%7C7", "auth0|7"),
        ("oidc:7", "oidc:7"),
        ("J%C3%BCrgen", "Jürgen"),
    ],
)
def test_the_user_is_decoded_and_compared_exactly(written: str, user_id: str) -> None:
    assert parse(f"cloudreve://{written}@my/docs", user_id) == Folder("my", "/docs")


def test_user_ids_differ_by_case() -> None:
    with pytest.raises(errors.ForeignFolder):
        parse("cloudreve://alice@my", "Alice")


def test_the_scheme_is_the_deployments() -> None:
    assert uri.parse("drive://my/a", scheme="drive", user_id="42") == Folder("my", "/a")
    with pytest.raises(errors.BadParameter, match="begin with drive://"):
        uri.parse("cloudreve://my/a", scheme="drive", user_id="42")


@patiently
@given(st.text())
def test_any_text_at_all_is_parsed_or_refused(text: str) -> None:
    for whole in (text, "cloudreve://" + text, "cloudreve://my/" + text):
        try:
            folder = parse(whole)
        except errors.RequestError:
            continue
        assert folder == Folder("my", uri.clean_path(folder.path))


PIECES = [
    "cloudreve",
    "CloudReve",
    "://",
    "/",
    "my",
    "MY",
    "share",
    "@",
    ":",
    "?",
    "%",
    "%41",
    "%00",
]
# Good and bad UTF-8, escaped: overlong, a surrogate, beyond the last character, cut off.
ESCAPES = ["%c3%a4", "%C3", "%E0%80%80", "%e0%a0%80", "%ED%A0%80", "%ED%9f%80", "%80"]
ESCAPES += ["%f0%90%80%80", "%F0%80%80%80", "%F4%80%80%80", "%F4%90%80%80", "%2f", "%zz"]
TEXTS = st.lists(st.sampled_from([*PIECES, *ESCAPES, "ä", "\0", "a", "\n", "#", ".."]), max_size=8)
PATTERN = re.compile(uri.pattern("cloudreve"))


def is_taken(text: str) -> bool:
    try:
        uri.named(text, scheme="cloudreve")
    except errors.BadParameter:
        return False
    return True


@patiently
@given(TEXTS.map("".join))
def test_what_fits_the_pattern_is_what_is_taken(text: str) -> None:
    whole = [text, *(f"cloudreve://{before}{text}" for before in ("", "my/", "a@", "a:b@share"))]
    for each in (*whole, f"cloudreve://{text}@share/", f"cloudreve://{text}@my"):
        assert is_taken(each) == bool(PATTERN.fullmatch(each)), each


def test_every_character_may_be_escaped_but_one() -> None:
    characters = [*range(1, 0x800), 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x3FFFF, 0x40000, 0x10FFFF]
    for each in characters:
        escaped = "".join(f"%{byte:02x}" for byte in chr(each).encode())
        assert PATTERN.fullmatch(f"cloudreve://my/{escaped}"), escaped
    assert not PATTERN.fullmatch("cloudreve://my/%00")


@patiently
@given(PATHS)
def test_a_clean_path_is_absolute_and_has_no_odd_segment(path: str) -> None:
    clean = uri.clean_path(path)
    assert clean[0] == "/"
    assert clean == "/" or not {"", ".", ".."} & set(clean[1:].split("/"))


@patiently
@given(PATHS)
def test_cleaning_twice_is_cleaning_once(path: str) -> None:
    assert uri.clean_path(uri.clean_path(path)) == uri.clean_path(path)


@patiently
@given(CLEAN_PATHS, CLEAN_PATHS)
def test_a_path_joined_to_a_folder_is_relative_to_it_again(folder: str, rest: str) -> None:
    joined = uri.clean_path(folder + rest)
    assert uri.at_or_below(joined, folder)
    assert uri.relative(joined, folder) == rest


@patiently
@given(CLEAN_PATHS, CLEAN_PATHS)
def test_a_path_is_at_or_below_exactly_its_ancestors(path: str, folder: str) -> None:
    assert uri.at_or_below(path, folder) == (folder in uri.ancestors(path))


@pytest.mark.parametrize("path", ["/docs-old/x", "/Docs/x", "/doc", "/", "/x/docs", "/docs\0"])
def test_a_folder_is_a_whole_segment_in_its_own_case(path: str) -> None:
    assert not uri.at_or_below(path, "/docs")
    with pytest.raises(ValueError, match="not below"):
        uri.relative(path, "/docs")


def test_a_path_relative_to_a_folder_begins_with_one_slash() -> None:
    assert uri.relative("/docs/a/b.md", "/docs") == "/a/b.md"
    assert uri.relative("/docs/a/b.md", "/") == "/docs/a/b.md"
    assert uri.relative("/docs", "/docs") == "/"
    assert uri.relative("/", "/") == "/"


def test_the_ancestors_begin_with_the_path_itself_and_end_at_the_root() -> None:
    assert uri.ancestors("/a/b/c.md") == ("/a/b/c.md", "/a/b", "/a", "/")
    assert uri.ancestors("/") == ("/",)

"""The Flutter model bites on each bad stream, and only there."""

import pytest

from tests.readers import chunks
from tests.readers.flutter import Flutter
from tests.readers.heard import Heard

GOOD = (
    b"event: subscribed\nid: a\ndata: []\n\n"
    b'event: event\nid: b\ndata: [{"type":"create","file_id":"f1","from":"/\\u540d.md","to":""},'
    b'{"type":"rename","file_id":"f2","from":"/a","to":"/b"}]\n\n'
    b"event: reconnect-required\nid: b\ndata: []\n\n"
)
HEARD = [
    Heard("subscribed"),
    Heard(
        "event",
        (
            {"type": "create", "file_id": "f1", "from": "/名.md", "to": ""},
            {"type": "rename", "file_id": "f2", "from": "/a", "to": "/b"},
        ),
    ),
    Heard("reconnect-required"),
]
WHOLE = '{"type":"delete","file_id":"f1","from":"/a","to":""}'


def read(pieces: list[bytes]) -> tuple[list[Heard], list[str]]:
    flutter = Flutter()
    heard = [frame for piece in pieces for frame in flutter.feed(piece)]
    return heard + list(flutter.end()), flutter.dropped


def test_reads_a_good_stream_however_it_is_cut() -> None:
    assert read(chunks.one_byte_each(GOOD)) == (HEARD, [])
    assert all(read(pieces) == (HEARD, []) for pieces in chunks.every_split(GOOD))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param('{"type":"create","from":"/b","to":""}', id="no file_id"),
        pytest.param('{"file_id":"f2","from":"/b","to":""}', id="no type"),
        pytest.param('{"type":"create","file_id":"f2","to":""}', id="no from"),
        pytest.param('{"type":"create","file_id":2,"from":"/b","to":""}', id="a number"),
        pytest.param('{"type":"create","file_id":"f2","from":"/b","to":null}', id="a null"),
        pytest.param("null", id="null for a change"),
        pytest.param('["create"]', id="a list for a change"),
    ],
)
def test_drops_the_good_with_one_bad(bad: str) -> None:
    """The client goes on as if nothing had happened: the good change is lost for ever."""
    data = f"[{WHOLE},{bad}]"
    assert read([f"event: event\ndata: {data}\n\n".encode()]) == ([], [data])


def test_breaks_a_character_that_two_chunks_share() -> None:
    body = 'event: event\ndata: [{"type":"create","file_id":"f","from":"/名","to":""}]\n\n'.encode()
    at = body.index("名".encode())
    heard, _ = read([body[: at + 2], body[at + 2 :]])
    assert heard[0].changes[0]["from"] == "/\ufffd\ufffd"


def test_ignores_names_it_does_not_know() -> None:
    body = f"event: hello\ndata: []\n\nevent: event\ndata: [{WHOLE}]\n\n".encode()
    heard, _ = read([body])
    assert [frame.name for frame in heard] == ["hello", "event"]


def test_loses_a_frame_without_its_empty_line() -> None:
    assert read([f"event: event\ndata: [{WHOLE}]\n".encode()]) == ([], [])

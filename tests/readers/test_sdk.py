"""The SDK model bites on each bad stream, and only there."""

import pytest

from tests.readers import chunks
from tests.readers.heard import Heard
from tests.readers.sdk import Sdk, ThrownError

GOOD = (
    b"event: resumed\nid: a\ndata: []\n\n"
    b'event: event\nid: a\ndata: {"type":"create","file_id":"f1","from":"/\\u540d.md","to":""}\n\n'
    b'event: event\nid: b\ndata: {"type":"rename","file_id":"f2","from":"/a","to":"/b"}\n\n'
    b"event: keep-alive\nid: b\ndata: []\n\n"
)
HEARD = [
    Heard("resumed"),
    Heard("event", ({"type": "create", "file_id": "f1", "from": "/名.md", "to": ""},)),
    Heard("event", ({"type": "rename", "file_id": "f2", "from": "/a", "to": "/b"},)),
    Heard("keep-alive"),
]


def read(pieces: list[bytes]) -> list[Heard]:
    sdk = Sdk()
    heard = [frame for piece in pieces for frame in sdk.feed(piece)]
    return heard + list(sdk.end())


def test_reads_a_good_stream_however_it_is_cut() -> None:
    assert read(chunks.one_byte_each(GOOD)) == HEARD
    assert all(read(pieces) == HEARD for pieces in chunks.every_split(GOOD))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'event: event\ndata: [{"type":"create"}]\n\n', id="an array"),
        pytest.param(b"event: event\ndata: []\n\n", id="an empty array"),
        pytest.param(b"event: event\ndata: null\n\n", id="null"),
        pytest.param(b"event: event\ndata: {\n\n", id="no JSON"),
        pytest.param(b"event: hello\ndata: []\n\n", id="a name it doesn't know"),
        pytest.param(b"data: []\n\n", id="no name"),
        pytest.param(b"event: subscribed\ndata: \xff\n\n", id="no UTF-8"),
        pytest.param(b"event: subscribed\ndata: []\n", id="an end within a frame"),
        pytest.param(b"event: subscribed\ndata: [", id="an end within a line"),
    ],
)
def test_throws_at_its_caller(body: bytes) -> None:
    with pytest.raises(ThrownError):
        read([body])


def test_throws_over_reconnect_required_after_all_that_came_before_it() -> None:
    """The frame ends the iteration as an error; nothing may stand behind it."""
    sdk = Sdk()
    heard = list(sdk.feed(GOOD))
    with pytest.raises(ThrownError) as thrown:
        list(sdk.feed(b"event: reconnect-required\nid: b\ndata: []\n\n"))
    assert (heard, thrown.value.name) == (HEARD, "reconnect-required")


def test_hears_what_stood_before_a_bad_frame_and_nothing_behind_it() -> None:
    heard: list[Heard] = []
    with pytest.raises(ThrownError):
        heard += Sdk().feed(GOOD + b"event: hello\ndata: []\n\n" + GOOD)
    assert heard == HEARD

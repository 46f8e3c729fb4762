"""The desktop model bites on each bad stream, and only there."""

import pytest

from tests.readers import chunks
from tests.readers.desktop import ClientFaultError, Desktop
from tests.readers.heard import Heard

GOOD = (
    b"event: subscribed\nid: a\ndata: []\n\n"
    b'event: event\nid: b\ndata: [{"type":"create","file_id":"f1","from":"/\\u540d.md","to":""},'
    b'{"type":"rename","file_id":"f2","from":"/a","to":"/\\ud83d\\uddc2"}]\n\n'
    b"event: keep-alive\nid: b\ndata: []\n\n"
    b"event: reconnect-required\nid: b\ndata: []\n\n"
)
HEARD = [
    Heard("subscribed"),
    Heard(
        "event",
        (
            {"type": "create", "file_id": "f1", "from": "/名.md", "to": ""},
            {"type": "rename", "file_id": "f2", "from": "/a", "to": "/🗂"},
        ),
    ),
    Heard("keep-alive"),
    Heard("reconnect-required"),
]
CHANGE = '{"type":"create","file_id":"f1","from":"/名.md","to":""}'
EVENT = b'event: event\ndata: [{"type":"delete","file_id":"f","from":"/a","to":""}]\n\n'
GONE = [Heard("event", ({"type": "delete", "file_id": "f", "from": "/a", "to": ""},))]


def read(pieces: list[bytes]) -> list[Heard]:
    desktop = Desktop()
    heard = [frame for piece in pieces for frame in desktop.feed(piece)]
    return heard + list(desktop.end())


def test_reads_a_good_stream_however_it_is_cut() -> None:
    assert read(chunks.one_byte_each(GOOD)) == HEARD
    assert all(read(pieces) == HEARD for pieces in chunks.every_split(GOOD))


def test_understands_one_object_as_well() -> None:
    heard = read([f"event: event\ndata: {CHANGE}\n\n".encode()])
    assert [change["from"] for change in heard[0].changes] == ["/名.md"]


def test_breaks_a_character_that_two_chunks_share() -> None:
    """Why JSON on the wire is ASCII: the file would be looked for under another name."""
    body = f"event: event\ndata: [{CHANGE}]\n\n".encode()
    at = body.index("名".encode())
    whole, cut = read([body]), read([body[: at + 1], body[at + 1 :]])
    assert whole[0].changes[0]["from"] == "/名.md"
    assert cut[0].changes[0]["from"] == "/\ufffd\ufffd\ufffd.md"


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b": ping\n\n", id="a comment"),
        pytest.param(b"retry: 1000\n\n", id="a lone retry"),
        pytest.param(b"id: 7\n\n", id="a lone id"),
        pytest.param(b"event: hello\ndata: []\n\n", id="a name it doesn't know"),
        pytest.param(b"event: event\ndata: []\n\n", id="an empty array"),
        pytest.param(b"event: event\n\n", id="a block without data"),
        pytest.param(b"\xef\xbb\xbfevent: subscribed\ndata: []\n\n", id="a byte order mark"),
    ],
)
def test_stalls_behind_a_block_that_says_nothing(block: bytes) -> None:
    """What stands behind it in the same chunk waits for the next chunk, however late that is."""
    desktop = Desktop()
    assert list(desktop.feed(block + EVENT)) == []
    assert list(desktop.feed(b"event: keep")) == GONE


def test_hears_at_the_end_what_stood_behind_one_such_block_but_not_behind_two() -> None:
    assert read([b": ping\n\n" + EVENT]) == GONE
    assert read([b": ping\n\n: ping\n\n: ping\n\n" + EVENT]) == []


def test_takes_only_the_last_line_of_data() -> None:
    with pytest.raises(ClientFaultError):
        read([b'event: event\ndata: [{"type":"delete","file_id":"f",\ndata: "from":"/a"}]\n\n'])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param('[{"type":"create","file_id":"f","from":"/a"}]', id="a key is missing"),
        pytest.param('[{"type":"create","file_id":"f","from":"/a","to":null}]', id="a null"),
        pytest.param('[{"type":"create","file_id":7,"from":"/a","to":""}]', id="a number"),
        pytest.param('[{"type":"create",', id="no JSON"),
        pytest.param("hello", id="a bare word"),
    ],
)
def test_counts_a_fault_over_a_bad_event(data: str) -> None:
    with pytest.raises(ClientFaultError):
        read([f"event: event\ndata: {data}\n\n".encode()])

"""Every frame against its literal bytes, and the sizes that frames keep."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events_app import sse
from events_app.event import Change

PLAN = Change("create", "f9", "/plan.md")
MOVED = Change("rename", "f9", "/plan.md", "/final.md")


@pytest.mark.parametrize(
    ("frame", "written"),
    [
        (sse.frame(sse.SUBSCRIBED, "c1"), b"event: subscribed\nid: c1\ndata: []\n\n"),
        (sse.frame(sse.RESUMED, "c1"), b"event: resumed\nid: c1\ndata: []\n\n"),
        (
            sse.frame(sse.RESUMED, "c1", retry_seconds=1.2345),
            b"event: resumed\nid: c1\nretry: 1234\ndata: []\n\n",
        ),
        (sse.frame(sse.KEEP_ALIVE, "c1"), b"event: keep-alive\nid: c1\ndata: []\n\n"),
        (sse.frame(sse.KEEP_ALIVE, None), b"event: keep-alive\ndata: []\n\n"),
        (
            sse.frame(sse.RECONNECT_REQUIRED, "c1"),
            b"event: reconnect-required\nid: c1\ndata: []\n\n",
        ),
    ],
)
def test_a_frame_without_changes_is_these_bytes(frame: bytes, written: bytes) -> None:
    assert frame == written


def test_an_event_frame_is_these_bytes() -> None:
    assert list(sse.event_frames([PLAN, MOVED], "b", "a", "array")) == [
        (
            b"event: event\nid: a\n"
            b'data: [{"type":"create","file_id":"f9","from":"/plan.md","to":""},'
            b'{"type":"rename","file_id":"f9","from":"/plan.md","to":"/final.md"}]\n\n'
        )
    ]


def test_in_object_mode_each_change_is_a_frame_and_only_the_last_moves_the_id() -> None:
    assert list(sse.event_frames([PLAN, MOVED], "b", "a", "object")) == [
        (
            b"event: event\nid: b\n"
            b'data: {"type":"create","file_id":"f9","from":"/plan.md","to":""}\n\n'
        ),
        (
            b"event: event\nid: a\n"
            b'data: {"type":"rename","file_id":"f9","from":"/plan.md","to":"/final.md"}\n\n'
        ),
    ]


@pytest.mark.parametrize("payload", ["array", "object"])
def test_no_changes_are_no_frame(payload: sse.Payload) -> None:
    """An empty `event` array stalls a widely used client."""
    assert list(sse.event_frames([], "b", "a", payload)) == []


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("/a\nb", b'"/a\\nb"'),
        ("/a\rb", b'"/a\\rb"'),
        ("/\x01\x1f\x7f", b'"/\\u0001\\u001f\\u007f"'),
        ("/\u2028\u2029\x85", b'"/\\u2028\\u2029\\u0085"'),
        ("/\U0001f600", b'"/\\ud83d\\ude00"'),
        ("/né", b'"/n\\u00e9"'),
        ('/"\\', b'"/\\"\\\\"'),
        ("/\ufeff", b'"/\\ufeff"'),
    ],
)
def test_whatever_a_name_holds_the_frame_is_ascii_on_one_line(name: str, written: bytes) -> None:
    (frame,) = sse.event_frames([Change("create", "f", name)], "b", "a", "array")
    expected = b'event: event\nid: a\ndata: [{"type":"create","file_id":"f","from":'
    assert frame == expected + written + b',"to":""}]\n\n'


def test_a_batch_over_32_kib_is_split_and_only_the_last_part_moves_the_id() -> None:
    changes = [Change("create", f"f{number}", f"/{number:0100}") for number in range(1000)]
    frames = list(sse.event_frames(changes, "before", "after", "array"))
    assert len(frames) > 4
    assert all(len(frame) <= 32 * 1024 for frame in frames)
    assert all(len(frame) > 32 * 1024 - 200 for frame in frames[:-1]), "full before it is split"
    assert [frame.split(b"\n")[1] for frame in frames] == [
        *[b"id: before"] * (len(frames) - 1),
        b"id: after",
    ]
    assert [path for frame in frames for path in paths(frame)] == [
        change.from_path for change in changes
    ]


@pytest.mark.parametrize("over", range(-3, 4))
def test_the_limit_is_kept_to_the_byte(over: int) -> None:
    """Two changes that would make a frame of 32 KiB and so many bytes."""
    (small,) = sse.event_frames([PLAN, PLAN], "before", "a", "array")
    padding = sse.MAX_FRAME_BYTES + over - len(small)
    padded = PLAN._replace(from_path=PLAN.from_path + "x" * padding)
    frames = list(sse.event_frames([PLAN, padded], "before", "a", "array"))
    assert all(len(frame) <= sse.MAX_FRAME_BYTES for frame in frames)
    assert len(frames) == (2 if over > 0 else len(frames))
    assert len(frames) == 1 or over > -2, "split only where it must be"


def test_a_single_change_over_32_kib_goes_alone_and_stays_under_60_kib() -> None:
    """The longest there is: both paths 4,096 bytes of control characters, the widest of ids."""
    longest = Change("rename", "\U0001f600" * 128, "/" + "\x01" * 4095, "/" + "\x02" * 4095)
    frames = list(sse.event_frames([PLAN, longest, PLAN], "b", "a", "array"))
    assert [len(paths(frame)) for frame in frames] == [1, 1, 1]
    assert 32 * 1024 < len(frames[1]) <= 60 * 1024


@given(
    st.lists(st.builds(Change, st.just("create"), st.text(), st.text(max_size=3000)), min_size=1),
    st.sampled_from(["array", "object"]),
)
def test_what_was_written_is_read_back(changes: list[Change], payload: sse.Payload) -> None:
    found = [
        path for frame in sse.event_frames(changes, "b", "a", payload) for path in paths(frame)
    ]
    assert found == [change.from_path for change in changes]


def paths(frame: bytes) -> list[str]:
    lines = frame.decode("ascii").split("\n")
    assert len(lines) == 5
    document = json.loads(lines[2].removeprefix("data: "))
    changes = document if isinstance(document, list) else [document]
    assert all(list(change) == ["type", "file_id", "from", "to"] for change in changes)
    return [change["from"] for change in changes]

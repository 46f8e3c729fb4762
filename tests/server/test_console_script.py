"""The parts of the console's script that need no page, in Node.js: the files that browsers get."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from events_app import sse
from events_app.event import Change
from tests import conftest
from tests.readers import chunks, history, test_sdk
from tests.readers.heard import Heard, from_frame

DRIVER = Path(__file__).with_name("console_script.mjs")
KEEP_ALIVE = {"name": "keep-alive", "id": "", "data": "[]"}


def ask(*questions: dict[str, Any]) -> list[Any]:
    """Ask one program all of this."""
    done = subprocess.run(
        [conftest.toolchain("node"), DRIVER],
        input="".join(json.dumps(each) + "\n" for each in questions),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def read(*bodies: Sequence[bytes], last_id: str = "") -> list[list[dict[str, Any]]]:
    """Read bodies, each in its chunks; return the frames of each."""
    return ask(
        *(
            {"read": [base64.b64encode(chunk).decode() for chunk in body], "id": last_id}
            for body in bodies
        )
    )


def call(name: str, *given: Any) -> Any:
    """Call one function."""
    (answer,) = ask({"call": name, "with": given})
    return answer["value"] if "value" in answer else answer["error"]


def heard(frames: Sequence[dict[str, Any]], *, ids: bool = True) -> list[Heard]:
    return [from_frame(each["name"], each["data"], each["id"] if ids else "") for each in frames]


# -- bytes to frames -------------------------------------------------------------------------------


def test_a_good_stream_is_read_however_it_is_cut() -> None:
    ways = [chunks.one_byte_each(test_sdk.GOOD), *chunks.every_split(test_sdk.GOOD)]
    assert all(heard(frames, ids=False) == test_sdk.HEARD for frames in read(*ways))


@pytest.mark.parametrize("payload", ["array", "object"])
def test_the_worst_names_are_read_in_both_forms(payload: sse.Payload) -> None:
    """The history that every reader is told, with a frame of its own for what is very long."""
    told = [
        Change(each["type"], each["file_id"], each["from"], each["to"])
        for each in history.FIRST + history.LONG
    ]
    body = b"".join(sse.event_frames(told, "before", "after", payload))
    whole, cut = read([body], [body[at : at + 7] for at in range(0, len(body), 7)])
    changes = [change for frame in heard(whole) for change in frame.changes]
    assert changes == history.FIRST + history.LONG
    assert whole == cut
    assert [frame["id"] for frame in whole] == ["before"] * (len(whole) - 1) + ["after"]


# As the HTML standard has it; of these events-app itself sends the fewest.
@pytest.mark.parametrize(
    ("body", "frames"),
    [
        pytest.param(
            "event: é\r\nid: 1\r\ndata: 名 🗂️\r\n\r\nevent: b\rdata: x\r\rdata: y\n\n",
            [
                {"name": "é", "id": "1", "data": "名 🗂️"},
                {"name": "b", "id": "1", "data": "x"},
                {"name": "message", "id": "1", "data": "y"},
            ],
            id="every end of a line, within one body",
        ),
        pytest.param(
            "\ufeffevent: a\ndata: \ufeff\n\n",
            [{"name": "a", "id": "", "data": "\ufeff"}],
            id="a byte order mark, at the beginning alone",
        ),
        pytest.param(
            ": hello\n:\n\nevent: a\n\nretry: 5\n\ndata\n\nevent: b\ndata:  two \ndata:x:y\n\n",
            [
                {"name": "message", "id": "", "data": ""},
                {"name": "b", "id": "", "data": " two \nx:y"},
            ],
            id="comments, blocks without data, colons and spaces",
        ),
        pytest.param(
            "id: 1\nretry: 2719\ndata: x\n\nid: a\0b\nretry: 1.5\ndata: y\n\nid\ndata: z\n\n",
            [
                {"name": "message", "id": "1", "data": "x", "retry": 2719},
                {"name": "message", "id": "1", "data": "y"},
                {"name": "message", "id": "", "data": "z"},
            ],
            id="ids and times to wait, good and bad ones",
        ),
        pytest.param(
            "id: 2\n\ndata: x\n\n",
            [{"name": "message", "id": "2", "data": "x"}],
            id="an id without data, which holds",
        ),
        pytest.param(
            "data: x\n\ndata: y\n", [{"name": "message", "id": "", "data": "x"}], id="end"
        ),
    ],
)
def test_it_reads_as_the_standard_says_however_it_is_cut(
    body: str, frames: list[dict[str, Any]]
) -> None:
    text = body.encode()
    ways = [chunks.one_byte_each(text), *chunks.every_split(text)]
    assert read(*ways) == [frames] * len(ways)


def test_what_is_no_utf_8_is_replaced() -> None:
    ((frame,),) = read([b"data: a\xff\xe5\x90b\n\n"])
    assert frame["data"] == "a\ufffd\ufffdb"


def test_a_frame_is_there_before_the_line_feed_that_may_follow_its_end() -> None:
    (frames,) = read([b"event: keep-alive\rdata: []\r\r"])
    assert frames == [KEEP_ALIVE]


def test_the_id_of_the_request_holds_until_there_is_another() -> None:
    (frames,) = read([b"data: x\n\nid: b\ndata: y\n\n"], last_id="a")
    assert [frame["id"] for frame in frames] == ["a", "b"]


@pytest.mark.parametrize(
    "data",
    ["{", "null", "1", '"text"', "[null]", '[{"type":"create"}]', '[{"type":1,"from":"","to":""}]'],
)
def test_what_holds_no_changes_is_an_error(data: str) -> None:
    assert call("changesOf", {"data": data}) in {"SyntaxError", "TypeError"}


# -- when to come back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "retry", "chance", "milliseconds"),
    [
        (0, 2719, 0.5, 2719),
        (0, None, 0.25, 1250),
        (1, 2719, 0.5, 5438),
        (3, 1000, 0, 8000),
        (50, 4999, 0, 60_000),
        (0, 0, 0, 1000),
    ],
)
def test_a_pause_is_what_the_server_said_and_doubles_with_each_failure(
    failures: int, retry: int | None, chance: float, milliseconds: int
) -> None:
    assert call("pauseAfter", failures, retry, chance) == milliseconds


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 405])
def test_it_does_not_come_back_where_the_request_is_what_is_wrong(status: int) -> None:
    assert call("isForGood", status) is True


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_it_comes_back_where_a_later_one_may_do_better(status: int) -> None:
    assert call("isForGood", status) is False


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/plain é 名 🗂️", "/plain é 名 🗂️"),
        ("a\u202eb\u2069", "a[U+202E]b[U+2069]"),
        (
            "\0\x1b\x7f\x85\u00ad\u200b\ufeff",
            "[U+0000][U+001B][U+007F][U+0085][U+00AD][U+200B][U+FEFF]",
        ),
        ("a\U000e0041", "a[U+E0041]"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("", ""),
    ],
)
def test_what_nobody_would_see_is_marked(text: str, shown: str) -> None:
    parts = call("partsOf", text)
    assert (
        "".join(f"[{each['text']}]" if each["isMark"] else each["text"] for each in parts) == shown
    )


def test_half_of_a_pair_is_marked() -> None:
    assert call("partsOf", "a\ud800")[1] == {"text": "U+D800", "isMark": True}


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(-5, "0 s"), (1999, "1 s"), (119_999, "119 s"), (120_000, "2 min"), (7_260_000, "2 h 1 min")],
)
def test_an_age_is_said_in_words(milliseconds: int, words: str) -> None:
    assert call("age", milliseconds) == words

"""The protocol from outside: the classes are its headings, the tests its sentences."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import httpx
import pytest

from tests.conformance.subject import (
    PATIENCE_SECONDS,
    Subject,
    create,
    delete,
    modify,
    rename,
)
from tests.frames import Reader


def listen(
    server: Subject, uri: str, client: str | None = None, last: str | None = None, query: str = ""
) -> Reader:
    return Reader(server, "me", client, uri, last, query)


def told(reader: Reader, count: int = 1) -> list[tuple[str, str, str]]:
    found = reader.changes(count, PATIENCE_SECONDS)
    return [(each["type"], each["from"], each["to"]) for each in found]


def code(answer: httpx.Response) -> tuple[int, int]:
    """Check the shape of an error; return its status and code."""
    document = answer.json()
    assert set(document) >= {"code", "msg", "correlation_id"}
    assert document["msg"]
    uuid.UUID(document["correlation_id"])
    return answer.status_code, document["code"]


class TestTheRequest:
    """`GET /api/v4/file/events`."""

    @pytest.mark.parametrize(
        "written",
        [
            "{client}",
            "{{{client}}}",
            "urn:uuid:{client}",
            "{bare}",
        ],
    )
    def test_a_client_id_is_the_same_however_it_is_written(
        self, server: Subject, uri: str, client: str, written: str
    ) -> None:
        bare = client.replace("-", "")
        with listen(server, uri, client) as reader:
            reader.expect("subscribed")
            reader.expect("keep-alive")
        again = written.format(client=client.upper(), bare=bare)
        with listen(server, uri, again) as reader:
            reader.expect("resumed")

    @pytest.mark.parametrize(
        "text",
        [
            "cloudreve://trash",
            "cloudreve://shared_with_me",
            "https://my/docs",
            "cloudreve://my/%zz",
        ],
    )
    def test_an_unusable_uri_is_a_parameter_error(self, server: Subject, text: str) -> None:
        assert code(server.ask(uri=text)) == (400, 40001)

    def test_a_client_id_that_is_no_uuid_is_a_parameter_error(self, server: Subject) -> None:
        assert code(server.ask(client_id="laptop")) == (400, 40001)

    def test_a_foreign_user_id_is_403(self, server: Subject) -> None:
        assert code(server.ask(uri=f"cloudreve://{uuid.uuid4().hex}@my/docs")) == (403, 403)

    def test_the_path_is_decoded_and_cleaned(self, server: Subject, path: str) -> None:
        with listen(server, f"cloudreve://MY/x/..{path}//a%20b/./?search") as reader:
            reader.expect("subscribed")
            server.append(create(f"{path}/a b/c"))
            assert told(reader) == [("create", "/c", "")]


class TestTheStream:
    """*The stream*."""

    def test_it_is_an_event_stream_that_nobody_keeps_or_packs(
        self, server: Subject, uri: str
    ) -> None:
        with listen(server, uri) as reader:
            head = reader.head.lower() + "\r\n"
            assert reader.status == httpx.codes.OK
            assert "content-type: text/event-stream; charset=utf-8\r\n" in head
            assert "cache-control: no-cache, no-transform\r\n" in head
            assert "x-accel-buffering: no\r\n" in head
            assert "transfer-encoding: chunked" in head
            assert "content-encoding" not in head

    def test_the_first_frame_leaves_within_a_second(self, server: Subject, uri: str) -> None:
        began = time.monotonic()
        with listen(server, uri) as reader:
            assert reader.frame() is not None
        assert time.monotonic() - began < PATIENCE_SECONDS, "and how fast is measured elsewhere"

    def test_a_first_connection_is_subscribed_and_says_an_empty_array(
        self, server: Subject, uri: str, client: str
    ) -> None:
        with listen(server, uri, client) as reader:
            frame = reader.expect("subscribed")
        assert (frame.data, bool(frame.id)) == ("[]", True)

    def test_a_change_has_four_keys_in_this_order_always_text(
        self, server: Subject, path: str, uri: str
    ) -> None:
        with listen(server, uri) as reader:
            reader.expect("subscribed")
            server.append(create(f"{path}/é 😀"))
            frame = reader.expect("event", seconds=PATIENCE_SECONDS)
        assert frame.data.isascii()
        (change,) = json.loads(frame.data)
        assert list(change) == ["type", "file_id", "from", "to"]
        assert change == {
            "type": "create",
            "file_id": f"f-{path}/é 😀",
            "from": "/é 😀",
            "to": "",
        }

    def test_in_object_mode_a_frame_is_one_change(
        self, server: Subject, path: str, uri: str
    ) -> None:
        with listen(server, uri, query="&payload=object") as reader:
            reader.expect("subscribed")
            server.append(create(f"{path}/a"), create(f"{path}/b"))
            frames = [reader.expect("event", seconds=PATIENCE_SECONDS) for _ in range(2)]
        assert [json.loads(each.data)["from"] for each in frames] == ["/a", "/b"]
        assert frames[0].id != frames[1].id

    def test_only_the_last_frame_of_a_split_batch_moves_the_id(
        self, server: Subject, path: str, uri: str
    ) -> None:
        names = [f"{number:03}{'x' * 200}" for number in range(200)]
        with listen(server, uri) as reader:
            first = reader.expect("subscribed")
            server.append(*(create(f"{path}/{name}", file_id=name[:9]) for name in names))
            heard: list[str] = []
            ids: list[str | None] = []
            while len(heard) < len(names):
                frame = reader.expect("event", seconds=PATIENCE_SECONDS)
                assert len(frame.data) <= 32 * 1024
                heard += [each["from"] for each in frame.changes]
                ids.append(frame.id)
        assert heard == [f"/{name}" for name in names]
        assert len(ids) > 1
        assert first.id not in {None, ids[-1]}
        assert ids[0] != ids[-1]

    def test_a_silent_stream_says_keep_alive_with_the_newest_cursor(
        self, server: Subject, path: str, uri: str
    ) -> None:
        with listen(server, uri) as reader:
            first = reader.expect("subscribed")
            server.append(create("/elsewhere" + path))
            moved = next(
                frame
                for _ in range(10)
                if (frame := reader.expect("keep-alive", seconds=PATIENCE_SECONDS)).id != first.id
            )
        assert moved.data == "[]"


class TestWhatIsPromised:
    """*What is promised*."""

    def test_nothing_is_lost_over_a_disconnect(
        self, server: Subject, path: str, uri: str, client: str
    ) -> None:
        with listen(server, uri, client) as reader:
            reader.expect("subscribed")
            reader.expect("keep-alive")
        server.append(create(f"{path}/missed"))
        with listen(server, uri, client) as reader:
            reader.expect("resumed")
            assert told(reader) == [("create", "/missed", "")]

    def test_with_last_event_id_resumption_is_exact(
        self, server: Subject, path: str, uri: str
    ) -> None:
        with listen(server, uri) as reader:
            reader.expect("subscribed")
            server.append(create(f"{path}/a"))
            last = reader.expect("event", seconds=PATIENCE_SECONDS).id
        server.append(rename(f"{path}/a", f"{path}/b"))
        with listen(server, uri, last=last) as reader:
            reader.expect("resumed")
            assert told(reader) == [("rename", "/a", "/b")]

    def test_changes_come_in_the_order_of_the_journal(
        self, server: Subject, path: str, uri: str
    ) -> None:
        with listen(server, uri) as reader:
            reader.expect("subscribed")
            for number in range(5):
                server.append(create(f"{path}/{number}"))
            assert [each[1] for each in told(reader, 5)] == [f"/{number}" for number in range(5)]

    def test_a_run_is_told_as_what_it_comes_to(self, server: Subject, path: str, uri: str) -> None:
        """An atomic save, and a file that came and went."""
        with listen(server, uri) as reader:
            reader.expect("subscribed")
            server.append(
                create(f"{path}/a.tmp"),
                modify(f"{path}/a.tmp"),
                rename(f"{path}/a.tmp", f"{path}/a"),
                create(f"{path}/gone"),
                delete(f"{path}/gone"),
            )
            assert told(reader) == [("create", "/a", "")]

    def test_what_crosses_the_border_is_created_or_deleted(
        self, server: Subject, path: str, uri: str
    ) -> None:
        server.append(create(f"{path}/a"), create(f"{path}x/b"))
        with listen(server, uri) as reader:
            reader.expect("subscribed")
            server.append(rename(f"{path}/a", f"{path}x/a"))
            assert told(reader) == [("delete", "/a", "")]
            server.append(rename(f"{path}x/b", f"{path}/b"))
            assert told(reader) == [("create", "/b", "")]


class TestWhoIsRemembered:
    """*Who is remembered*."""

    def test_a_client_without_any_id_starts_afresh(self, server: Subject, uri: str) -> None:
        for _ in range(2):
            with listen(server, uri) as reader:
                reader.expect("subscribed")

    def test_folders_of_one_client_never_mix(self, server: Subject, uri: str, client: str) -> None:
        with listen(server, uri, client) as reader:
            reader.expect("subscribed")
            reader.expect("keep-alive")
        with listen(server, uri + "/below", client) as reader:
            reader.expect("subscribed")

    @pytest.mark.parametrize("text", ["garbage", "0", "A" * 40])
    def test_a_cursor_that_is_none_starts_afresh(
        self, server: Subject, uri: str, client: str, text: str
    ) -> None:
        with listen(server, uri, client, last=text) as reader:
            reader.expect("subscribed")

    def test_another_users_cursor_starts_afresh(self, server: Subject, uri: str) -> None:
        with Reader(server, "other", uri=uri) as reader:
            theirs = reader.expect("subscribed").id
        with listen(server, uri, last=theirs) as reader:
            reader.expect("subscribed")

    def test_a_change_is_not_told_to_the_client_that_made_it(
        self, server: Subject, path: str, uri: str, client: str
    ) -> None:
        with listen(server, uri, client) as mine, listen(server, uri) as others:
            mine.expect("subscribed")
            others.expect("subscribed")
            server.append(create(f"{path}/mine"), client_id=client)
            assert told(others) == [("create", "/mine", "")]
            server.append(create(f"{path}/theirs"))
            assert told(mine) == [("create", "/theirs", "")]


class TestEnds:
    """*Ends*."""

    def test_a_folder_that_goes_ends_the_stream_and_starts_afresh(
        self, server: Subject, path: str, uri: str, client: str
    ) -> None:
        server.append(create(path, is_folder=True))
        with listen(server, uri, client) as reader:
            reader.expect("subscribed")
            server.append(delete(path, is_folder=True))
            last = reader.expect("reconnect-required", seconds=PATIENCE_SECONDS)
            assert reader.frame() is None
        with listen(server, uri, client, last.id) as reader:
            reader.expect("subscribed")


class TestWhoIsAsking:
    """*Who is asking*."""

    DOORS = ("", "/changes", "/history")

    @pytest.mark.parametrize("door", DOORS)
    def test_without_a_token_every_door_is_401(self, server: Subject, door: str) -> None:
        answer = server.ask(door, user=None)
        assert code(answer) == (401, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    def test_a_token_in_the_query_is_none_unless_that_was_switched_on(
        self, server: Subject
    ) -> None:
        answer = server.ask("/changes", user=None, access_token=server.tokens["me"])
        assert answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.OK}


class TestTheOtherDoors:
    """*The other doors*."""

    def test_append_says_how_many_and_where_they_are(self, server: Subject, path: str) -> None:
        answer = httpx.post(
            server.events_url,
            params={"wait": "30"},
            json=[create(f"{path}/a"), create(f"{path}/b")],
            headers=server.headers(),
            timeout=PATIENCE_SECONDS,
        )
        assert answer.status_code == httpx.codes.CREATED
        data = answer.json()["data"]
        assert data["accepted"] == 2
        assert 0 < data["first"] < data["last"]

    def test_lines_of_json_are_as_good_as_an_array(
        self, server: Subject, path: str, uri: str
    ) -> None:
        lines = "".join(json.dumps(create(f"{path}/{name}")) + "\n" for name in "ab")
        with listen(server, uri) as reader:
            reader.expect("subscribed")
            answer = httpx.post(
                server.events_url,
                content=lines,
                headers=server.headers() | {"Content-Type": "application/x-ndjson"},
                timeout=PATIENCE_SECONDS,
            )
            assert answer.status_code == httpx.codes.CREATED
            assert [each[1] for each in told(reader, 2)] == ["/a", "/b"]

    def test_a_bad_item_is_named_and_nothing_is_written(
        self, server: Subject, path: str, uri: str
    ) -> None:
        bad: list[dict[str, Any]] = [create(f"{path}/a"), {"type": "explode"}]
        with listen(server, uri) as reader:
            reader.expect("subscribed")
            answer = httpx.post(
                server.events_url, json=bad, headers=server.headers(), timeout=PATIENCE_SECONDS
            )
            assert code(answer) == (400, 40001)
            data = answer.json()["data"]
            assert (data["index"], bool(data["reason"])) == (1, True)
            server.append(create(f"{path}/after"))
            assert told(reader) == [("create", "/after", "")]

    def test_a_retry_with_the_same_key_is_written_once(
        self, server: Subject, path: str, uri: str
    ) -> None:
        once = create(f"{path}/a", event_key=uuid.uuid4().hex)
        with listen(server, uri) as reader:
            reader.expect("subscribed")
            server.append(once)
            server.append(once)
            server.append(create(f"{path}/b"))
            assert [each[1] for each in told(reader, 2)] == ["/a", "/b"]

    def test_writing_for_another_user_is_403(self, server: Subject, path: str) -> None:
        foreign = create(f"{path}/a", user_id=uuid.uuid4().hex)
        answer = httpx.post(
            server.events_url, json=[foreign], headers=server.headers(), timeout=PATIENCE_SECONDS
        )
        assert code(answer) == (403, 403)

    def test_pages_go_on_from_now(self, server: Subject, path: str, uri: str) -> None:
        server.append(create(f"{path}/before"))
        first = server.page(uri=uri)
        assert (first["events"], first["more"]) == ([], False)
        server.append(create(f"{path}/a"))
        page = server.page(uri=uri, cursor=first["cursor"], wait="30")
        assert [each["from"] for each in page["events"]] == ["/a"]

    def test_a_cursor_goes_from_a_stream_to_pages_and_back(
        self, server: Subject, path: str, uri: str
    ) -> None:
        with listen(server, uri) as reader:
            cursor = reader.expect("subscribed").id or ""
        server.append(create(f"{path}/a"))
        page = server.page(uri=uri, cursor=cursor, wait="30")
        assert [each["from"] for each in page["events"]] == ["/a"]
        server.append(create(f"{path}/b"))
        with listen(server, uri, last=page["cursor"]) as reader:
            reader.expect("resumed")
            assert told(reader) == [("create", "/b", "")]

    def test_a_cursor_that_cannot_be_honoured_is_410_with_a_fresh_one(
        self, server: Subject, path: str, uri: str
    ) -> None:
        answer = server.ask("/changes", uri=uri, cursor="garbage")
        assert code(answer) == (410, 410)
        data = answer.json()["data"]
        assert data["reason"]
        server.append(create(f"{path}/a"))
        page = server.page(uri=uri, cursor=data["cursor"], wait="30")
        assert [each["from"] for each in page["events"]] == ["/a"]

    def test_history_is_unfolded_and_newest_first(
        self, server: Subject, path: str, uri: str
    ) -> None:
        server.append(
            create(f"{path}/a", meta={"ip": "192.0.2.7"}), rename(f"{path}/a", f"{path}/b")
        )
        answer = server.ask("/history", uri=uri)
        assert answer.status_code == httpx.codes.OK
        events = answer.json()["data"]["events"]
        assert [(each["type"], each["from"], each["to"]) for each in events] == [
            ("rename", "/a", "/b"),
            ("create", "/a", ""),
        ]
        assert events[0]["position"] > events[1]["position"]
        assert not any("meta" in each for each in events)

    @pytest.mark.parametrize("door", ["/healthz", "/readyz", "/metrics"])
    def test_who_watches_the_server_needs_no_token(self, server: Subject, door: str) -> None:
        assert httpx.get(server.url + door, timeout=PATIENCE_SECONDS).status_code == 200

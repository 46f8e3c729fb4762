"""What schemathesis is told beyond schemathesis.toml: bodies of lines, and how streams begin."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

from events_app import append

BEGINNINGS = {"subscribed", "resumed", "keep-alive"}


@schemathesis.serializer(*(media for media, form in append.FORMS.items() if form == "lines"))
def one_line(context: Any, value: Any) -> bytes:
    """Write a body of one change: the document has the schema of a line."""
    del context
    return json.dumps(value).encode() + b"\n"


@schemathesis.check
def a_stream_begins_as_promised(context: Any, response: Any, case: Any) -> None:
    """Its first frame says whether the client has a past, or that it is held."""
    del context, case
    media = response.headers.get("content-type", [""])[0]
    if response.status_code == 200 and media.startswith("text/event-stream"):
        name = response.content.partition(b"\n")[0].decode().removeprefix("event: ")
        assert name in BEGINNINGS, f"the first frame is {name!r}"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Say whose tree changed, as a service must: the document cannot know who asks."""
    del context, kwargs
    if (user := os.environ.get("FUZZ_ON_BEHALF_OF")) and case.method == "POST":
        changes = case.body if isinstance(case.body, list) else [case.body]
        for change in changes:
            if isinstance(change, dict) and change.get("user_id") is None:
                change["user_id"] = user

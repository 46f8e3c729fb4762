"""Values to frames, byte for byte as the protocol has them.

Every frame is an `event`, an `id` and one `data` line, then an empty line: LF only, one space
after each colon, ASCII only. Widely used clients stall on, or lose the frame behind, anything
else: a comment, a block without data, an unknown name, an empty `event` array. The only line more
is `retry`, in the frame that begins a stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

from events_app.event import Change

SUBSCRIBED = "subscribed"
RESUMED = "resumed"
EVENT = "event"
KEEP_ALIVE = "keep-alive"
RECONNECT_REQUIRED = "reconnect-required"

MAX_FRAME_BYTES = 32 * 1024

Payload = Literal["array", "object"]

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def frame(
    name: str, cursor: str | None, data: str = "[]", *, retry_seconds: float | None = None
) -> bytes:
    """Write one frame; without a cursor (a stream that is still held) it has no `id`.

    `retry_seconds` is how long a client that goes by the standard waits before it comes back.
    """
    identity = "" if cursor is None else f"id: {cursor}\n"
    # Before `data`: a block must end with it, and begin as every other.
    retry = "" if retry_seconds is None else f"retry: {round(1000 * retry_seconds)}\n"
    return f"event: {name}\n{identity}{retry}data: {data}\n\n".encode("ascii")


# One folder is watched by many, and what they are told together is encoded once. Only short runs:
# the cache must not hold megabytes.
SHARED_CHANGES = 8
SHARED_RUNS = 256


def event_frames(
    changes: Sequence[Change], before: str, after: str, payload: Payload
) -> Sequence[bytes]:
    """Write `changes` as frames of at most 32 KiB, of which only the last carries `after`.

    The others carry `before`, the one that the client has: if it breaks off between them it resumes
    before the batch.
    """
    if len(changes) > SHARED_CHANGES:
        return _event_frames(tuple(changes), before, after, payload)
    # Those who are told this together may have different ones, of which a single frame has none.
    alike = _shared(tuple(changes), "", after, payload)
    return alike if len(alike) == 1 else _shared(tuple(changes), before, after, payload)


def _event_frames(
    changes: tuple[Change, ...], before: str, after: str, payload: Payload
) -> tuple[bytes, ...]:
    batches = list(_batches(changes, payload, len(frame(EVENT, max(before, after, key=len), ""))))
    cursors = [*[before] * (len(batches) - 1), after]
    return tuple(frame(EVENT, at, data) for at, data in zip(cursors, batches, strict=False))


_shared = lru_cache(maxsize=SHARED_RUNS)(_event_frames)


def _batches(changes: Sequence[Change], payload: Payload, overhead: int) -> Iterator[str]:
    encoded = (_encode(document(change)) for change in changes)
    if payload == "object":
        yield from encoded
        return
    batch: list[str] = []
    size = overhead + 2
    for item in encoded:
        if batch and size + len(item) + 1 > MAX_FRAME_BYTES:
            yield f"[{','.join(batch)}]"
            batch, size = [], overhead + 2
        batch.append(item)
        size += len(item) + 1
    if batch:
        yield f"[{','.join(batch)}]"


def document(change: Change) -> dict[str, str]:
    """Return `change` as JSON has it: these four keys in this order, always strings."""
    return {
        "type": change.type,
        "file_id": change.file_id,
        "from": change.from_path,
        "to": change.to_path,
    }

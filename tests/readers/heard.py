"""What a reader tells its application, in one shape for every reader."""

import json
from typing import NamedTuple

Change = dict[str, str]

KEYS = ("type", "file_id", "from", "to")


class Heard(NamedTuple):
    """One frame as its reader passed it on.

    `id` is empty for readers that keep no ids.
    """

    name: str
    changes: tuple[Change, ...] = ()
    id: str = ""


def from_frame(name: str, data: str, frame_id: str) -> Heard:
    """Make of a frame what a plain client's application does, in either payload mode.

    Data that is no JSON becomes a part of the name, which nothing expects.
    """
    try:
        value = json.loads(data)
    except ValueError:
        return Heard(f"{name} with {data!r}", (), frame_id)
    changes = value if isinstance(value, list) else [value]
    return Heard(name, tuple(changes), frame_id)


def is_change(value: object) -> bool:
    """Whether a strict reader takes `value` for a change: an object whose keys are all texts."""
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in KEYS)

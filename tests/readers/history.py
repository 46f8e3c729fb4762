"""The history that every reader is told: rows as an app writes them, and what must be heard.

The names are the worst that a file system takes: what ends a line, a frame or a string elsewhere,
characters of one to four bytes, two spellings of one name, and paths that only just fit.
"""

from tests.readers.heard import Change

# The watched folder, and its URI as a client writes it.
FOLDER = "/Übersicht 1"
URI = "cloudreve://my/%C3%9Cbersicht%201"

# Each of its characters is six bytes of JSON: the change is over 32 KiB and goes in its own frame.
GIANT = "/" + "\x01" * 4000


def _change(kind: str, file_id: str, path: str, to: str = "") -> Change:
    return {"type": kind, "file_id": file_id, "from": path, "to": to}


FIRST = [
    _change("create", "f1", "/plan.md"),
    _change("create", "f2", "/名前 🗂️.txt"),
    _change("modify", "f3", "/a\nb\r\nc\n\nevent: subscribed\ndata: []\n\n"),
    _change("create", "f4", "/é"),
    _change("create", "f5", "/e\u0301"),
    _change("rename", "f6", "/alt", "/neu/ß \u2028\ufeff\x7f"),
    _change("delete", "f7", '/ "\\ %41?#\t... '),
]
LONG = [_change("rename", "f8", GIANT, GIANT + "\x02")]
MISSED = [
    _change("create", "f9", "/verpasst ✓"),
    _change("rename", "f10", "/p", "/q"),
    _change("delete", "f11", "/r"),
]


def row(change: Change) -> dict[str, str | None]:
    """Write the row of the outbox, as the app does, that makes a watcher of FOLDER hear this."""
    return {
        "type": change["type"],
        "file_id": change["file_id"],
        "from_path": FOLDER + change["from"],
        "to_path": FOLDER + change["to"] if change["to"] else None,
    }


def second_delivery(changes: list[Change]) -> list[Change]:
    """Tell it to someone who may know it: to repeat a rename does harm, so none is repeated."""
    return [told for change in changes for told in _without_rename(change)]


def _without_rename(change: Change) -> list[Change]:
    if change["type"] != "rename":
        return [change]
    gone = change | {"type": "delete", "to": ""}
    return [gone, gone | {"type": "create", "from": change["to"]}]

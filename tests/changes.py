"""Changes in few words."""

from __future__ import annotations

from events_app.event import Change


def create(path: str, file_id: str = "1") -> Change:
    return Change("create", file_id, path)


def modify(path: str, file_id: str = "1") -> Change:
    return Change("modify", file_id, path)


def rename(path: str, to_path: str, file_id: str = "1") -> Change:
    return Change("rename", file_id, path, to_path)


def delete(path: str, file_id: str = "1") -> Change:
    return Change("delete", file_id, path)


def own(change: Change) -> Change:
    """Mark `change` as what the watcher did itself."""
    return change._replace(own=True)

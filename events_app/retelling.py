"""Tell again what a client may have heard in part already.

Theory of operation
    Wherever the client was interrupted, its tree differs from the server's only at and below paths
    that the run's changes name. So the last word on each of them is enough: `delete` what is not
    there any more, `create` what is, and let the client look it up. A word on a path is no longer
    needed after a later one on the same path or on a folder above it.
    What the watcher did itself moves the words about what it moved, and removes those about what
    it deleted or replaced.

Rules
    There are no renames: a repeated one would move whatever stands at the old path by now.
    No state of the client is assumed: a word is as right for one that has heard all as for one
    that has heard nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from events_app.event import Change


class _Node:
    """The last word on one path, if there is one, and the paths below it."""

    __slots__ = ("below", "number", "word")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.word: Change | None = None
        self.number = 0


def last_words(run: Iterable[Change]) -> list[Change]:
    """List the last word on every path that `run` names, in the order in which they fell."""
    root = _Node()
    for number, change in enumerate(run):
        if change.own:
            _do(root, change)
        elif change.type == "rename":
            _say(root, Change("delete", change.file_id, change.from_path), 2 * number)
            _say(root, Change("create", change.file_id, change.to_path), 2 * number + 1)
        else:
            _say(root, change, 2 * number)
    return [word for _number, word in sorted(_said(root))]


def _say(root: _Node, word: Change, number: int) -> None:
    node = _reach(root, word.from_path.split("/"))
    if word.type == "modify" and node.word is not None and node.word.type == "create":
        return
    if word.type in {"create", "delete"}:
        node.below.clear()
    node.word, node.number = word, number


def _do(root: _Node, own: Change) -> None:
    """Move or remove what waits to be said, as the client has moved or removed what it is about."""
    moved = None if own.type == "modify" else _cut(root, own.from_path)
    if own.type == "rename":
        _cut(root, own.to_path)
        if moved is not None:
            *above, name = own.to_path.split("/")
            _reach(root, above).below[name] = moved


def _reach(node: _Node, names: list[str]) -> _Node:
    for name in names:
        below = node.below.get(name)
        if below is None:
            below = node.below[name] = _Node()
        node = below
    return node


def _cut(node: _Node, path: str) -> _Node | None:
    *above, name = path.split("/")
    for each in above:
        if each not in node.below:
            return None
        node = node.below[each]
    return node.below.pop(name, None)


def _said(root: _Node) -> Iterator[tuple[int, Change]]:
    waiting = list(root.below.items())
    while waiting:
        path, node = waiting.pop()
        if node.word is not None:
            yield node.number, node.word._replace(from_path=path)
        waiting += [(f"{path}/{name}", below) for name, below in node.below.items()]

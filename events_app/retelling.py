"""Tell again what a client may have heard in part already.

Theory of operation
    Wherever the client was interrupted, its tree differs from the server's only at and below paths
    that the run's changes name. So the last word on each of them is enough: `delete` what is not
    there any more, `create` what is, and let the client look it up. A client leaves alone what has
    another id, and so a `delete` is said of everyone who stood there. A word on a path is no longer
    needed after a later one on the same path, or after a folder above it was created or deleted.
    Words on what is in a folder that moves go along with it.
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
    """The last word on one path, if there is one, and the paths below it.

    `ends` are the deletes of all that has stood there, by file id.
    """

    __slots__ = ("below", "ends", "number", "word")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.ends: dict[str, Change] = {}
        self.word: Change | None = None
        self.number = 0

    def words(self) -> Iterable[Change]:
        """List what is to be said: of a place that is empty, the end of whoever stood there."""
        if self.word is None:
            return ()
        return self.ends.values() if self.word.type == "delete" else (self.word,)


def last_words(run: Iterable[Change]) -> list[Change]:
    """List the last word on every path that `run` names, in the order in which they fell."""
    root = _Node()
    for number, change in enumerate(run):
        if change.own:
            _do(root, change)
        elif change.type == "rename":
            _rename(root, change, 2 * number)
        else:
            _say(root, change, 2 * number)
    return [word for _number, _length, word in sorted(_said(root))]


def _rename(root: _Node, change: Change, number: int) -> None:
    """Say that it is gone from one path and is at another, where the words below it are right."""
    moved = _cut(root, change.from_path)
    _say(root, Change("delete", change.file_id, change.from_path), number)
    _say(root, Change("create", change.file_id, change.to_path), number + 1)
    if moved is not None:
        _reach(root, change.to_path.split("/")).below = moved.below
        left = _reach(root, change.from_path.split("/"))
        left.ends = moved.ends | left.ends


def _say(root: _Node, word: Change, number: int) -> None:
    node = _reach(root, word.from_path.split("/"))
    if word.type == "modify" and node.word is not None and node.word.type == "create":
        return
    if word.type in {"create", "delete"}:
        node.below.clear()
    if word.type == "delete":
        node.ends[word.file_id] = word
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


def _said(root: _Node) -> Iterator[tuple[int, int, Change]]:
    """Yield each word with the keys of its order: after the words on the folders above it."""
    waiting = [(path, node, 0) for path, node in root.below.items()]
    while waiting:
        path, node, after = waiting.pop()
        number = max(node.number, after)
        for word in node.words():
            yield number, len(path), word._replace(from_path=path)
        waiting += [(f"{path}/{name}", below, number) for name, below in node.below.items()]

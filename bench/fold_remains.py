"""How much of a run is left to send when it is folded, beside the least that must be said."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from bench.file_app import App, Entry
from bench.table import Table
from events_app import merge

LENGTHS = (5, 20, 40)
HISTORIES = 2_000

HOW = (
    "Random valid histories of files and folders below each other, few enough that most rows are"
    " about something that an earlier row was about: creates, restores, modifies, renames, deletes,"
    " swaps and atomic saves. *The least*: one change for each entry whose place or content is"
    " another than before in a way that no folder's move or end implies; two where both are, or"
    " where it was deleted and restored."
)

NAMES = "abcdef"
FILE, FOLDER = "f{}", "d{}"
DEEPEST = 6
MOST_BEFORE = 12
STEPS = (
    *("create", "create", "restore", "modify", "modify", "modify", "modify"),
    *("rename", "rename", "rename", "delete", "save", "swap"),
)


def measure(*, quick: bool) -> Table:
    """Measure histories of some lengths."""
    histories = HISTORIES // 10 if quick else HISTORIES
    lines = []
    for rows in LENGTHS:
        apps = itertools.islice(random_apps(rows), histories)
        counts = [(len(merge.fold(app.rows)), least(app)) for app in apps]
        shares = (sum(each) / (histories * rows) for each in zip(*counts, strict=True))
        met = sum(sent == needed for sent, needed in counts) / histories
        lines.append((f"{rows} rows", *(f"{share:.2f}" for share in shares), f"{met:.0%}"))
    columns = (f"share of the rows, {histories:,} histories", "sent", "the least", "meet it")
    return Table("What a fold leaves to send", HOW, columns, lines)


def random_apps(rows: int) -> Iterator[App]:
    """Give apps that have written so many rows, without end and always the same ones."""
    for seed in itertools.count():
        app = App(seed)
        for _ in range(app.rng.randint(0, MOST_BEFORE)):
            _step(app, "create")
        app.begin()
        while len(app.rows) < rows:
            _step(app, app.rng.choice(STEPS))
        # A step of several rows may have gone beyond the end.
        if len(app.rows) == rows:
            yield app


def least(app: App) -> int:
    """Count what must be said even if every folder's move and end says it for all below."""
    after = app.places()
    created = {row.file_id for row in app.rows if row.type == "create"}
    modified = {row.file_id for row in app.rows if row.type == "modify"}
    lived = {"", *app.before} & {"", *after} - created
    count = len(created & after.keys())
    for file_id, place in app.before.items():
        if file_id in lived:
            count += (after[file_id] != place) + (file_id in modified)
        else:
            count += place.folder_id in lived
    return count


def _step(app: App, kind: str) -> None:
    """Do one thing to something, or nothing where it cannot be done."""
    _, *entries = app.root.all()
    parent = app.rng.choice([app.root, *filter(_holds, entries)])
    name = app.rng.choice(NAMES)
    if kind == "create":
        app.create(parent, name, app.new(app.rng.choice((FILE, FOLDER))))
    elif kind == "restore" and app.gone:
        file_id = app.gone.pop(app.rng.randrange(len(app.gone)))
        app.create(parent, name, file_id)
    elif entries:
        _change(app, kind, app.rng.choice(entries), parent, name)


def _change(app: App, kind: str, entry: Entry, parent: Entry, name: str) -> None:
    other = parent.children.get(name)
    # Nothing goes below itself, nor into the place of a folder that it is in.
    apart = other is None or entry not in other.all()
    if kind == "delete":
        app.delete(entry)
    elif kind == "rename" and apart and parent not in entry.all():
        app.rename(entry, parent, name)
    elif kind == "swap" and other and apart and other not in entry.all():
        app.rotate([entry, other])
    elif kind == "modify" and not _is_folder(entry):
        app.modify(entry)
    elif kind == "save" and not _is_folder(entry):
        app.save(entry)


def _is_folder(entry: Entry) -> bool:
    return entry.file_id.startswith("d")


def _holds(entry: Entry) -> bool:
    """Say whether something may be put into it."""
    return _is_folder(entry) and entry.path().count("/") < DEEPEST

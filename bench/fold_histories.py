"""The histories whose fold is timed: each is valid and told, and as long as asked for or longer."""

from __future__ import annotations

from collections.abc import Sequence

from bench.file_app import App, Entry

FOLDERS = 36
DEEPEST = 6
SAME_FILES = 1_000
FILES_AT_A_TIME = 100


def flat(app: App, rows: int) -> None:
    """Create, modify, rename and delete files, a tenth as many as rows."""
    folders, files = _begin(app, rows // 10)
    while len(app.rows) < rows:
        _touch(app, folders, files)


def flat_same_files(app: App, rows: int) -> None:
    """Do the same to as many files, however many rows there are."""
    folders, files = _begin(app, SAME_FILES)
    while len(app.rows) < rows:
        _touch(app, folders, files)


def flat_in_turn(app: App, rows: int) -> None:
    """Do the same to a tenth as many files as rows, to some of them at a time."""
    folders, files = _begin(app, rows // 10)
    for start in range(0, len(files), FILES_AT_A_TIME):
        worked_on = files[start : start + FILES_AT_A_TIME]
        for _ in range(10 * len(worked_on)):
            _touch(app, folders, worked_on)


def flat_with_own(app: App, rows: int) -> None:
    """Let the watcher rename folders, and save files that nobody else touches."""
    folders, files = _begin(app, rows // 10)
    mine, theirs = files[: rows // 100], files[rows // 100 :]
    while len(app.rows) < rows:
        app.own = len(app.rows) % 10 == 0
        if not app.own:
            _touch(app, folders, theirs)
        elif app.rng.getrandbits(1):
            app.modify(app.rng.choice(mine))
        else:
            folder = app.rng.choice(folders)
            app.rename(folder, folder.parent or app.root, app.new("team {}"))


def nested(app: App, rows: int) -> None:
    """Rename a folder, or move it to one of its parent's depth; then touch a file below it."""
    levels = [[app.root]]
    for _ in range(DEEPEST):
        levels.append([app.create(up, app.new("{}")) for up in levels[-1] for _ in range(2)])
    folders = [folder for level in levels[1:] for folder in level]
    files = {folder: [app.create(folder, app.new("{}.odt"))] for folder in folders}
    app.begin()
    while len(app.rows) < rows:
        depth = app.rng.randint(1, DEEPEST)
        folder = app.rng.choice(levels[depth])
        stays = app.rng.randrange(4)
        parent = folder.parent if stays else app.rng.choice(levels[depth - 1])
        app.rename(folder, parent or app.root, app.new("{}"))
        while (inner := [each for each in folder.children.values() if each in files]) and (
            app.rng.getrandbits(1)
        ):
            folder = app.rng.choice(inner)
        _touch(app, [folder], files[folder])


def rings(app: App, rows: int) -> None:
    """Rotate two to five files, which is a swap where it is two."""
    _, files = _begin(app, rows // 10)
    while len(app.rows) < rows:
        app.rotate(app.rng.sample(files, app.rng.randint(2, 5)))


def one_ring(app: App, rows: int) -> None:
    """Move each file away and back, so that all have places to step aside to; then one ring."""
    folders, files = _begin(app, (rows - 1) // 3)
    for file in files:
        parent, name = file.parent or app.root, file.name
        app.rename(file, folders[0], app.new())
        app.rename(file, parent, name)
    app.rotate(files)
    while len(app.rows) < rows:
        app.modify(files[0])


def saves(app: App, rows: int) -> None:
    """Save files atomically."""
    _, files = _begin(app, rows // 10)
    while len(app.rows) < rows:
        at = app.rng.randrange(len(files))
        files[at] = app.save(files[at])


def unpacked(app: App, rows: int) -> None:
    """Create files only: nothing of it can be merged."""
    folders, _ = _begin(app, 0)
    for _ in range(rows):
        app.create(app.rng.choice(folders), app.new())


def one_file(app: App, rows: int) -> None:
    """Rename one file all the time."""
    folders, [file] = _begin(app, 1)
    for _ in range(rows):
        app.rename(file, app.rng.choice(folders), app.new())


def rescues(app: App, rows: int) -> None:
    """Move files out of a folder, which then is deleted."""
    folders, _ = _begin(app, 0)
    dying = app.create(app.root, "dying folder")
    files = [app.create(dying, app.new()) for _ in range(rows - 1)]
    app.begin()
    for file in files:
        app.rename(file, app.rng.choice(folders), file.name)
    app.delete(dying)


def _begin(app: App, count: int) -> tuple[list[Entry], list[Entry]]:
    """Make folders, and so many files in them, that are there before the first row."""
    top = app.create(app.root, "documents")
    folders = [app.create(top, f"team {n:02}") for n in range(FOLDERS)]
    files = [app.create(app.rng.choice(folders), app.new()) for _ in range(count)]
    app.begin()
    return folders, files


def _touch(app: App, folders: Sequence[Entry], files: list[Entry]) -> None:
    """Do one thing to one file, or create one; as many come as go."""
    at = app.rng.randrange(len(files))
    kind = app.rng.choice(("create", "modify", "modify", "modify", "rename", "delete"))
    if kind == "create":
        files.append(app.create(app.rng.choice(folders), app.new()))
    elif kind == "rename":
        app.rename(files[at], app.rng.choice(folders), app.new())
    elif kind == "delete" and len(files) > 1:
        files[at], files[-1] = files[-1], files[at]
        app.delete(files.pop())
    else:
        app.modify(files[at])

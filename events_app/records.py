"""`flask events audit` and `prune`: for those who keep the records, and for how long."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

from events_app import complaint, errors, event, history, journal, listing, moment, sidecar, upkeep
from events_app import uri as addresses
from events_app.database import Database

PAGE_ROWS = 1_000
# From here on a person would wonder whether anything happens.
LONG = 100_000

# What fits a line; the other layouts have every column.
TABLE = ("position", "recorded_at", "user_id", "actor", "type", "from_path", "to_path", "rejected")
COLUMNS = (
    *("position", "recorded_at", "created_at", "user_id", "actor", "type", "file_id", "fs"),
    *("is_folder", "from_path", "to_path", "client_id", "event_key", "meta", "rejected"),
)
Layout = Callable[[Iterator[Sequence[listing.Line]]], Iterator[str]]
LAYOUTS: dict[str, tuple[Sequence[str], Layout]] = {
    "table": (TABLE, listing.tables),
    "jsonl": (COLUMNS, listing.pages_of_json),
    "csv": (COLUMNS, listing.comma_separated),
}


class Written(click.ParamType[Any]):
    """An option that a function reads, which says by ValueError what is wrong with it."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        """Show it as `name` in the help."""
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the option."""
        try:
            return self._read(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


TIME = Written("time", moment.parse_day)
AGE = Written("age", moment.parse_age)


@click.command()
@click.option("--user", help="Whose files.  [default: everybody's]")
@click.option("--uri", help="This file or folder, and what is below it.")
@click.option("--file-id", help="The app's id of a file or folder.")
@click.option("--actor", help="Who did it: the owner, unless the app named somebody else.")
@click.option("--type", "kind", type=click.Choice(event.TYPES), help="Only these changes.")
@click.option("--since", type=TIME, help="Recorded then or later: RFC 3339, a day, or seconds.")
@click.option("--until", type=TIME, help="Recorded before then.")
@click.option("--format", "layout", type=click.Choice(list(LAYOUTS)), default="table")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.  [default: all]")
@with_appcontext
@complaint.plainly
def audit(
    user: str | None,
    uri: str | None,
    file_id: str | None,
    actor: str | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    layout: str,
    limit: int | None,
) -> None:
    """List what happened, the newest first, also what was rejected.

    The conditions are joined by `and`. Times are the journal's.
    """
    user, folder = _place(user, uri)
    question = history.Question(
        user_id=user,
        fs=folder.fs if folder else None,
        path=folder.path if folder else None,
        file_id=file_id,
        actor=actor,
        types=(kind,) if kind else None,
        since=since,
        until=until,
    )
    columns, lines = LAYOUTS[layout]
    database = sidecar.of(current_app).database
    with _quiet_when_nobody_reads():
        pages = _pages(database, question, limit)
        for line in lines([_line(entry, columns) for entry in page] for page in pages):
            click.echo(line)


def _place(user: str | None, uri: str | None) -> tuple[str | None, addresses.Folder | None]:
    if uri is None:
        return user, None
    scheme = sidecar.of(current_app).settings.uri_scheme
    named, folder = addresses.named(uri, scheme=scheme)
    if isinstance(folder, addresses.Share):
        raise errors.BadParameter("uri: it is a share; name its owner's folder")
    if named and user and named != user:
        raise errors.BadParameter("uri: it names another user than --user")
    return named or user, folder


def _line(entry: history.Entry, columns: Sequence[str]) -> listing.Line:
    return {name: getattr(entry, name) for name in columns}


def _pages(
    database: Database, question: history.Question, limit: int | None
) -> Iterator[list[history.Entry]]:
    """Read page after page, each in a transaction of its own."""
    floor, last = database.read(history.ends)
    left, before = limit, last + 1
    with _progress("reading", last - floor) as advance:
        while left is None or left > 0:
            rows = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
            page = _page(database, question, before, rows)
            if page.entries:
                yield page.entries
            if left is not None:
                left -= len(page.entries)
            if page.next is None:
                return
            advance(before - page.next)
            before = page.next


def _page(database: Database, question: history.Question, before: int, rows: int) -> history.Page:
    return database.read(lambda db: history.page(db, question, before, rows))


@contextlib.contextmanager
def _quiet_when_nobody_reads() -> Iterator[None]:
    """End well when the program behind a pipe has read enough, such as head."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _progress(what: str, length: int) -> AbstractContextManager[Callable[[int], object]]:
    """Show a bar where it takes long and a person looks, who is not reading the rows there."""
    looking = sys.stderr.isatty() and not sys.stdout.isatty()
    if length < LONG or not looking:
        return contextlib.nullcontext(lambda _steps: None)
    return _bar(what, length)


@contextlib.contextmanager
def _bar(what: str, length: int) -> Iterator[Callable[[int], object]]:
    with click.progressbar(length=length, label=what, file=sys.stderr) as bar:
        yield bar.update


@click.command()
@click.option("--older-than", type=AGE, required=True, help="Such as 90d, 12h, 30m, 2w.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@with_appcontext
@complaint.plainly
def prune(
    older_than: float,
    dry_run: bool,  # noqa: FBT001 -- click hands flags over by name
) -> None:
    """Remove the oldest changes from the journal, for ever, and say what went.

    In small batches, as the workers do with EVENTS_RETENTION.
    """
    database = sidecar.of(current_app).database
    floor, last = database.read(history.ends)
    steps = _prunable(database, older_than) if dry_run else _pruned(database, older_than)
    count = 0
    with _progress("looking" if dry_run else "pruning", last - floor) as advance:
        for step in steps:
            count += step
            advance(step)
    if not count:
        click.echo("nothing is that old; no change goes")
        return
    verb, begins = ("would remove", "would begin") if dry_run else ("removed", "begins")
    first = 1 + (floor + count if dry_run else database.read(history.ends)[0])
    click.echo(f"{verb} {count} changes; the journal {begins} at position {first}")


def _pruned(database: Database, age_seconds: float) -> Iterator[int]:
    return upkeep.batches(lambda: database.write(lambda db: journal.prune(db, age_seconds)))


def _prunable(database: Database, age_seconds: float) -> Iterator[int]:
    """Count as pruning would, look after look, and change nothing."""
    floor, _ = database.read(history.ends)
    limit = database.read(journal.head).now - timedelta(seconds=age_seconds)
    while count := _next_prunable(database, floor, limit):
        yield count
        floor += count


def _next_prunable(database: Database, floor: int, limit: datetime) -> int:
    return database.read(lambda db: journal.prunable(db, floor, limit))

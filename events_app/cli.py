"""`flask events …`: thin commands."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from flask_jwt_extended import create_access_token

from events_app import (
    complaint,
    doctor,
    errors,
    event,
    intake,
    journal,
    listing,
    outbox,
    records,
    settings,
    sidecar,
    standings,
    uri,
)

# Where `make run` keeps its random secret, below the checkout.
DEMO_SECRET = Path("var/jwt-secret")
LONGEST_TTL_SECONDS = 10 * 365 * 86_400
TAIL_TOKEN_SECONDS = 12 * 3_600

commands = AppGroup("events", help="The sidecar for file events.")
commands.add_command(records.audit)
commands.add_command(records.prune)


@commands.command()
@click.option("--user", required=True, help="The user id, as in the tables.")
@click.option(
    "--ttl",
    type=click.IntRange(1, LONGEST_TTL_SECONDS),
    default=3600,
    show_default=True,
    help="Seconds until it expires.",
)
@click.option("--scope", multiple=True, help="A scope, as of a third-party client; repeatable.")
@complaint.plainly
def token(user: str, ttl: int, scope: tuple[str, ...]) -> None:
    """Print an access token for USER, and nothing else."""
    _require_signing_key()
    click.echo(_make_token(user, ttl, scope))


def _require_signing_key() -> None:
    """See to a secret to sign with: the environment's, else the one that `make run` keeps.

    Only here: the server itself never starts with a secret that it was not given.
    """
    configured = sidecar.of(current_app).settings
    kept = Path(current_app.root_path).parent / DEMO_SECRET
    if configured.jwt_secret is None and configured.jwt_algorithm == "HS256" and kept.exists():
        current_app.config["JWT_SECRET_KEY"] = kept.read_text().strip()
        return
    settings.require_keys(configured)
    if configured.jwt_secret is None:
        raise errors.SettingsError("tokens are made where the private key is; here it is not")


def _make_token(user: str, seconds: int, scopes: Sequence[str] = ()) -> str:
    configured = sidecar.of(current_app).settings
    claims: dict[str, object] = {"token_type": "access"}
    if configured.jwt_issuer:
        claims["iss"] = configured.jwt_issuer
    if configured.jwt_audience:
        claims["aud"] = configured.jwt_audience
    if scopes:
        claims |= {"client_id": "events-app", "scopes": list(scopes)}
    lifetime = timedelta(seconds=seconds)
    return str(create_access_token(user, expires_delta=lifetime, additional_claims=claims))


@commands.command()
@click.option("--user", required=True, help="Whose tree changed.")
@click.argument("kind", type=click.Choice(event.TYPES))
@click.argument("path")
@click.argument("to_path", required=False)
@click.option("--file-id", required=True, help="The app's stable id of the file or folder.")
@click.option("--folder", is_flag=True, help="It is a folder.")
@click.option("--client-id", help="The X-Cr-Client-Id of the client that did it.")
@click.option("--actor", help="Who did it, when it is not USER.")
@click.option("--event-key", help="Makes a retry harmless.")
@complaint.plainly
def append(
    user: str,
    kind: str,
    path: str,
    to_path: str | None,
    file_id: str,
    folder: bool,  # noqa: FBT001 -- click hands flags over by name
    client_id: str | None,
    actor: str | None,
    event_key: str | None,
) -> None:
    """Write one change into the outbox, as the app would.

    PATH is absolute and decoded; TO_PATH only for a rename.
    """
    database = sidecar.of(current_app).database
    batch = outbox.Batch(is_postgresql=database.is_postgresql)
    change = {
        "user_id": user,
        "type": kind,
        "file_id": file_id,
        "fs": uri.FILE_SYSTEM,
        "from_path": path,
        "to_path": to_path,
        "is_folder": folder,
        "client_id": client_id,
        "actor_id": actor,
        "event_key": event_key,
        "meta": None,
    }
    batch.add(intake.offered(change))
    database.write(batch.write)


@commands.command()
@click.option("--user", required=True, help="Whose stream.")
@click.option("--uri", help="The folder to watch.  [default: the whole drive]")
@click.option(
    "--url", default="http://127.0.0.1:8000", show_default=True, help="Where the server is."
)
@click.option("--client-id", help="A UUID to be remembered by.  [default: a new one]")
@complaint.plainly
def tail(user: str, uri: str | None, url: str, client_id: str | None) -> None:
    """Show the live stream of USER in the terminal; Ctrl-C ends it.

    It makes its own token, reconnects by itself and resumes after the last frame it saw.
    """
    from events_app import terminal  # noqa: PLC0415 -- an HTTP client is nothing for the workers

    _require_signing_key()
    address = uri or f"{sidecar.of(current_app).settings.uri_scheme}://my"

    def new_token() -> str:
        return _make_token(user, TAIL_TOKEN_SECONDS)

    terminal.follow(url, address, client_id or str(uuid.uuid4()), new_token)


@commands.command("doctor")
@complaint.plainly
def examine() -> None:
    """Check settings, database, schema, isolation, roles and driver; say what to do."""
    findings = doctor.examine(sidecar.of(current_app))
    for finding in findings:
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {finding.what}: {finding.says}")
    if not all(finding.ok for finding in findings):
        raise click.exceptions.Exit(1)


FORMATS = {"table": listing.table, "jsonl": listing.json_lines}


@commands.command("subscriptions")
@click.option("--user", help="Only this user's.  [default: everybody's]")
@click.option(
    "--behind",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Only those so many positions behind.",
)
@click.option("--format", "layout", type=click.Choice(list(FORMATS)), default="table")
@complaint.plainly
def list_subscriptions(user: str | None, behind: int, layout: str) -> None:
    """Show which client is how far behind, and since when; the furthest first."""
    found = sidecar.of(current_app).database.read(lambda db: standings.read(db, user, behind))
    for line in FORMATS[layout]([each._asdict() for each in found]):
        click.echo(line)


@commands.command("new-epoch")
@complaint.plainly
def new_epoch() -> None:
    """Make every client list its folder afresh: after a backup was restored.

    The positions after the backup were given out once and will be again, to other changes.
    """
    database = sidecar.of(current_app).database
    before = database.read(journal.head).epoch
    database.write(lambda db: journal.raise_epoch(db, before))
    after = database.read(journal.head).epoch
    click.echo(f"the epoch was {before} and is {after}; every client starts afresh")


def install(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(commands)

"""A migrated database of its own for each test, on every engine."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy
from alembic import command as alembic_command
from alembic import config as alembic_config
from sqlalchemy import make_url

ROOT = Path(__file__).resolve().parents[1]
ADDRESSES = ROOT / "var" / "servers.env"

ENGINES = ("sqlite", "postgresql", "mariadb")


def server_address(engine: str) -> str | None:
    """Return the administrator's URL of a test server, if there is one."""
    variable = f"TEST_{engine.upper()}_URL"
    if variable in os.environ:
        return os.environ[variable]
    if ADDRESSES.exists():
        for line in ADDRESSES.read_text().splitlines():
            if line.startswith(f"{variable}="):
                return line.partition("=")[2]
    return None


def plain_environment() -> dict[str, str]:
    """Copy our environment without settings: an unknown one would stop a program of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EVENTS_")}


def alembic(url: str, *arguments: str) -> str:
    """Run alembic on the database at `url`; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=plain_environment() | {"EVENTS_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def upgrade(url: str) -> None:
    """Do what `alembic upgrade head` does, without starting an interpreter for it."""
    configuration = alembic_config.Config(toml_file=ROOT / "pyproject.toml")
    configuration.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    alembic_command.upgrade(configuration, "head")


@contextlib.contextmanager
def empty(engine: str, folder: Path) -> Iterator[str]:
    """Make an empty database; its URL. `folder` is where SQLite puts the file."""
    if engine == "sqlite":
        yield f"sqlite:///{folder / f'{secrets.token_hex(4)}.db'}"
        return
    address = server_address(engine)
    assert address is not None
    name = f"test_{secrets.token_hex(4)}"
    administrator = sqlalchemy.create_engine(
        address, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )
    with administrator.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield make_url(address).set(database=name).render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if engine == "postgresql" else ""
        with administrator.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}{force}")


@contextlib.contextmanager
def migrated(engine: str, folder: Path) -> Iterator[str]:
    """Make a database with our tables; its URL."""
    with empty(engine, folder) as url:
        upgrade(url)
        yield url

"""What figures depend on: the machine, the versions and how the databases write."""

from __future__ import annotations

import os
import platform
import sqlite3
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection

from bench import places
from bench.table import Table
from events_app.database import Database
from tests import databases

PACKAGES = ("gunicorn", "gevent", "flask", "sqlalchemy", "psycopg", "pymysql", "events-app")

_ASKED = {
    "postgresql": ("SHOW server_version", "SHOW fsync", "SHOW synchronous_commit"),
    "mariadb": (
        "SELECT VERSION()",
        "SELECT @@innodb_flush_log_at_trx_commit",
        "SELECT @@log_bin",
    ),
}
_ANSWERED = {
    "postgresql": "PostgreSQL {}, fsync = {}, synchronous_commit = {}",
    "mariadb": "MariaDB {}, innodb_flush_log_at_trx_commit = {}, log_bin = {}",
}


def table(command: str) -> Table:
    """Describe where and how the figures were taken."""
    rows = [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("command", f"`{command}`"),
        ("processor", f"{_processor()}, {os.cpu_count()} cores"),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"),
        ("load before", " ".join(f"{load:.2f}" for load in os.getloadavg())),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        ("packages", ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)),
        *(("database", _database(engine)) for engine in places.engines()),
        *(("not measured", places.TITLES[engine]) for engine in places.missing()),
    ]
    how = "Everything runs on this machine and talks over its loopback address."
    return Table("Machine", how, ("what", ""), rows)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _database(engine: str) -> str:
    if engine == "sqlite":
        with places.database(engine) as url:
            database = Database(url)
            modes = database.read(_sqlite_modes)
            database.close()
        return f"SQLite {sqlite3.sqlite_version}, {modes}"
    address = str(databases.server_address(engine))
    with sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool).connect() as connection:
        answers = [connection.exec_driver_sql(asked).scalar() for asked in _ASKED[engine]]
    return _ANSWERED[engine].format(*answers)


def _sqlite_modes(connection: Connection) -> str:
    journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    level = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    return f"journal_mode = {journal}, synchronous = {level} (2 is FULL)"

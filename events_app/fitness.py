"""Whether the sidecar can work in a database: its engine, version, isolation and schema."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy import Connection, inspect, text, update

from events_app import errors, schema
from events_app.columns import utc_now

# The oldest versions with SKIP LOCKED (MariaDB), with utf8mb4_0900_bin (MySQL, whose CHECKs are a
# version older), and that are still maintained or nearly so.
OLDEST = {"PostgreSQL": (13,), "MariaDB": (10, 6), "MySQL": (8, 0, 17)}

UPGRADE = "run: .venv/bin/alembic upgrade head"

_NO_ROW = update(schema.state).values(updated_at=utc_now()).where(schema.state.c.id < 0)


def refuse_unusable(connection: Connection) -> None:
    """Raise `DatabaseError` unless the sidecar can work here: engine, isolation, schema."""
    refuse_unsupported(connection)
    check_schema(connection)


def refuse_read_only(connection: Connection) -> None:
    """Raise what a database raises that takes no writes; it costs no transaction id."""
    connection.execute(_NO_ROW)


def refuse_unsupported(connection: Connection) -> None:
    """Raise `UnsupportedDatabase` for an engine, version or isolation level we cannot work on."""
    product, version = product_and_version(connection)
    if product in OLDEST and version < OLDEST[product]:
        raise errors.UnsupportedDatabase(
            f"{product} {_dotted(version)} is too old: it lacks SKIP LOCKED, CHECK or a collation "
            f"as the mover needs them; use {product} {_dotted(OLDEST[product])} or newer"
        )
    if product == "SQLite":
        return
    isolation = connection.get_isolation_level()
    if isolation != "READ COMMITTED":
        raise errors.UnsupportedDatabase(
            f"transactions run in {isolation}, not READ COMMITTED: the app's INSERTs would wait"
        )
    if product == "PostgreSQL":
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise errors.UnsupportedDatabase(f"the database is encoded in {encoding}, not UTF8")


def product_and_version(connection: Connection) -> tuple[str, tuple[int, ...]]:
    """Name the database server and its version."""
    dialect = connection.dialect
    version = tuple(part for part in dialect.server_version_info or () if isinstance(part, int))
    if dialect.name in {"mysql", "mariadb"}:
        return ("MariaDB" if getattr(dialect, "is_mariadb", False) else "MySQL"), version
    return {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[dialect.name], version


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def check_schema(connection: Connection) -> str:
    """Return the schema's version; raise `SchemaError` when it is missing or too old.

    Migrations are additive, so a newer schema than this code knows is fine.
    """
    if not inspect(connection).has_table(schema.VERSION_TABLE):
        raise errors.SchemaError(f"the tables are missing; {UPGRADE}")
    versions = sqlalchemy.table(schema.VERSION_TABLE, sqlalchemy.column("version_num"))
    found = connection.scalar(sqlalchemy.select(versions.c.version_num))
    if found is None:
        raise errors.SchemaError(f"the tables are missing; {UPGRADE}")
    if found < schema.REVISION:
        raise errors.SchemaError(
            f"the tables are of version {found}, this program needs {schema.REVISION}; {UPGRADE}"
        )
    return str(found)

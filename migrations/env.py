"""Run migrations on the shared database, touching no table but ours.

The database is the app's. So the version table has its own name, autogenerate sees only our
tables, and every statement runs under lock and statement timeouts: a migration that would wait
for the app's locks gives up instead of making the app wait behind it.
"""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, text

from events_app import database, fitness, schema, settings

LOCK_TIMEOUT_SECONDS = 10
STATEMENT_TIMEOUT_SECONDS = 600

TIMEOUTS = {
    "postgresql": (
        f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'",
        f"SET statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'",
    ),
    "mysql": (f"SET SESSION lock_wait_timeout = {LOCK_TIMEOUT_SECONDS}",),
    "mariadb": (f"SET SESSION lock_wait_timeout = {LOCK_TIMEOUT_SECONDS}",),
    "sqlite": (),
}


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Look at our own tables only."""
    del parents
    return kind != "table" or name in schema.metadata.tables


def include_object(item: object, *about: object) -> bool:
    """Expect an index only of the engine that it is for."""
    del about
    only = getattr(item, "info", {}).get("only")
    return only is None or only == context.get_context().dialect.name


def configure_and_run(connection: Connection | None, **options: object) -> None:
    """Run the migrations over `connection`, or print them."""
    context.configure(
        connection=connection,
        target_metadata=schema.metadata,
        version_table=schema.VERSION_TABLE,
        include_name=include_name,
        include_object=include_object,
        compare_type=True,
        **options,  # type: ignore[arg-type] # alembic's own options, passed through
    )
    with context.begin_transaction():
        context.run_migrations()


def database_url() -> str:
    """Take the address from a program that runs us (`sqlalchemy.url`), else the environment."""
    return (
        context.config.get_alembic_option("sqlalchemy.url")
        or settings.load(os.environ).database_url
    )


def run() -> None:
    """Migrate, or with --sql print what would be run."""
    url = database_url()
    if context.is_offline_mode():
        configure_and_run(None, url=url, literal_binds=True)
        return
    engine = database.create_engine(url, STATEMENT_TIMEOUT_SECONDS)
    database.create_sqlite_folder(url)
    with engine.connect() as connection:
        fitness.refuse_unsupported(connection)
        for statement in TIMEOUTS[connection.dialect.name]:
            connection.execute(text(statement))
        connection.commit()
        configure_and_run(connection)
        connection.commit()
    engine.dispose()


run()

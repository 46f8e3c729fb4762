"""Indexes and views for auditors.

On PostgreSQL the mover waits while an index is built; the app and the streams do not. Where the
journal is so large that this matters, the indexes are made before, by hand, CONCURRENTLY and under
these names (docs/how-to/audit.md): what is there is not made again.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from events_app.columns import octets

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JOURNAL = "file_event_journal"

# An index entry of PostgreSQL holds 2,704 bytes at the most, one of InnoDB 3,072.
PATH_BYTES = 2_048
PATH_CHARACTERS = 255

# In the order in which a person reads them. `actor` is who did it, named or not.
COLUMNS = (
    "position, recorded_at, created_at, user_id, {actor} AS actor, type, file_id, fs, is_folder, "
    "from_path, to_path, client_id, event_key, meta, rejected"
)
ANYBODY = COLUMNS.format(actor="COALESCE(actor_id, user_id)")

VIEWS = ("file_event_audit", "file_event_audit_by_path", "file_event_audit_by_actor")


def _prefix(column: str) -> dict[str, Any]:
    lengths = {column: PATH_CHARACTERS}
    return {"mysql_length": lengths, "mariadb_length": lengths}


def _create_indexes() -> None:
    dialect = op.get_context().dialect.name
    from_path: sa.ColumnClause[str] = sa.column("from_path")
    to_path: sa.ColumnClause[str] = sa.column("to_path")
    named = sa.column("actor_id").is_not(None)
    _create("user_time", ["user_id", "recorded_at"])
    _create("actor_time", ["actor_id", "recorded_at"], postgresql_where=named, sqlite_where=named)
    _create(
        "user_from",
        ["user_id", "from_path", "position"],
        postgresql_where=octets(from_path) <= PATH_BYTES,
        **_prefix("from_path"),
    )
    _create(
        "user_to",
        ["user_id", "to_path", "position"],
        postgresql_where=octets(to_path) <= PATH_BYTES,
        sqlite_where=to_path.is_not(None),
        **_prefix("to_path"),
    )
    if dialect == "postgresql":
        long = (octets(from_path) > PATH_BYTES) | (octets(to_path) > PATH_BYTES)
        _create("user_long", ["user_id", "position"], postgresql_where=long)


def _create(name: str, columns: list[str], **options: Any) -> None:
    there = op.get_context().dialect.name == "postgresql" or None
    op.create_index(f"{JOURNAL}_{name}", JOURNAL, columns, if_not_exists=there, **options)


def _create_views() -> None:
    dialect = op.get_context().dialect.name
    # Views that add to nobody's rights. PostgreSQL before 15 has only those of their owner.
    invoker = "SQL SECURITY INVOKER " if dialect in {"mysql", "mariadb"} else ""
    for view, parts in (
        ("file_event_audit", [_select(ANYBODY)]),
        ("file_event_audit_by_path", _by_path(long_apart=dialect == "postgresql")),
        ("file_event_audit_by_actor", _by_actor()),
    ):
        op.execute(f"CREATE {invoker}VIEW {view} AS {' UNION ALL '.join(parts)}")


def _by_path(*, long_apart: bool) -> list[str]:
    """Give each row under each of its paths; on PostgreSQL each part has an index of its own."""
    lengths = (f"<= {PATH_BYTES}", f"> {PATH_BYTES}") if long_apart else (None,)
    parts = []
    for column, only in (("from_path", None), ("to_path", "to_path <> from_path")):
        for length in lengths:
            measured = f"octet_length({column}) {length}" if length else None
            parts.append(_select(f"{column} AS path, {ANYBODY}", measured, only))
    return parts


def _by_actor() -> list[str]:
    """Give each row under its actor; each part has an index of its own."""
    return [
        _select(COLUMNS.format(actor="user_id"), "actor_id IS NULL"),
        _select(COLUMNS.format(actor="actor_id"), "actor_id IS NOT NULL"),
    ]


def _select(columns: str, *conditions: str | None) -> str:
    where = " AND ".join(filter(None, conditions))
    return f"SELECT {columns} FROM {JOURNAL}" + (f" WHERE {where}" if where else "")  # noqa: S608 -- our own names


def upgrade() -> None:
    _create_indexes()
    _create_views()


def downgrade() -> None:
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    names = ["user_time", "actor_time", "user_from", "user_to"]
    if op.get_context().dialect.name == "postgresql":
        names.append("user_long")
    for name in names:
        op.drop_index(f"{JOURNAL}_{name}", JOURNAL)

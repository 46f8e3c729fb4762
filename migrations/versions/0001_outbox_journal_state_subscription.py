"""The outbox, the journal, its state and the subscriptions."""

import time
from typing import Any

import sqlalchemy as sa
from alembic import op

from events_app.columns import BigInt, ByteString, ByteText, UtcTime, VerbatimJson, octets, utc_now

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INNODB: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}

# A queue table lives on dead rows: vacuum by count, not by share of a size that is mostly zero,
# and never wait long between two rounds. The state row is updated in place with every move.
POSTGRESQL_STORAGE = {
    "file_event_outbox": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000, "
    "autovacuum_vacuum_cost_delay = 0",
    "file_event_state": "fillfactor = 10, "
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000",
    "file_event_subscription": "fillfactor = 70",
}

MAX_PATH_BYTES = 4096


def _change_columns(*, server_defaults: bool) -> list[sa.Column[Any]]:
    def default(value: Any) -> Any:
        return value if server_defaults else None

    return [
        sa.Column("user_id", ByteString(64), nullable=False),
        sa.Column("type", ByteString(16), nullable=False),
        sa.Column("file_id", ByteString(128), nullable=False),
        sa.Column("fs", ByteString(32), nullable=False, server_default=default("my")),
        sa.Column("from_path", ByteText, nullable=False),
        sa.Column("to_path", ByteText),
        sa.Column("is_folder", sa.SmallInteger, nullable=False, server_default=default("0")),
        sa.Column("client_id", ByteString(36)),
        sa.Column("actor_id", ByteString(64)),
        sa.Column("event_key", ByteString(128)),
        sa.Column("meta", VerbatimJson),
        sa.Column("created_at", UtcTime, nullable=False, server_default=default(utc_now())),
    ]


def _create_outbox() -> None:
    op.create_table(
        "file_event_outbox",
        # CACHE 1: a connection that hoards ids would commit low ones long after high ones.
        sa.Column("id", BigInt, sa.Identity(cache=1), primary_key=True),
        *_change_columns(server_defaults=True),
        sa.CheckConstraint(
            "type IN ('create', 'modify', 'rename', 'delete')", name="file_event_outbox_type"
        ),
        sa.CheckConstraint(
            octets(sa.column("from_path")) <= MAX_PATH_BYTES, name="file_event_outbox_from_path"
        ),
        sa.CheckConstraint(
            octets(sa.column("to_path")) <= MAX_PATH_BYTES, name="file_event_outbox_to_path"
        ),
        sa.CheckConstraint(
            "(type = 'rename') = (COALESCE(to_path, '') <> '')", name="file_event_outbox_rename"
        ),
        sa.CheckConstraint("is_folder IN (0, 1)", name="file_event_outbox_is_folder"),
        sqlite_autoincrement=True,
        **INNODB,
    )


def _create_journal() -> None:
    op.create_table(
        "file_event_journal",
        sa.Column("position", BigInt, primary_key=True, autoincrement=False),
        *_change_columns(server_defaults=False),
        sa.Column("recorded_at", UtcTime, nullable=False),
        sa.Column("tag", sa.BigInteger, nullable=False),
        sa.Column("rejected", ByteString(255)),
        **INNODB,
    )
    op.create_index(
        "file_event_journal_user_position", "file_event_journal", ["user_id", "position"]
    )
    op.create_index(
        "file_event_journal_user_key", "file_event_journal", ["user_id", "event_key"], unique=True
    )


def _create_state() -> None:
    state = op.create_table(
        "file_event_state",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("floor_position", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.CheckConstraint("id = 1", name="file_event_state_one_row"),
        **INNODB,
    )
    # The first epoch is the time: a journal that was dropped and made anew never repeats one.
    op.execute(
        state.insert().values(
            id=1,
            last_position=0,
            floor_position=0,
            epoch=int(time.time()),
            updated_at=utc_now(),
        )
    )


def _create_subscription() -> None:
    op.create_table(
        "file_event_subscription",
        sa.Column("user_id", ByteString(64), primary_key=True),
        sa.Column("client_id", ByteString(36), primary_key=True),
        sa.Column("folder_hash", ByteString(64), primary_key=True),
        sa.Column("fs", ByteString(32), nullable=False),
        sa.Column("path", ByteText, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("sent_position", sa.BigInteger),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("state", ByteString(16), nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("seen_at", UtcTime, nullable=False),
        sa.CheckConstraint(
            "state IN ('new', 'live', 'fresh')", name="file_event_subscription_state"
        ),
        **INNODB,
    )
    op.create_index("file_event_subscription_seen_at", "file_event_subscription", ["seen_at"])


def upgrade() -> None:
    _create_outbox()
    _create_journal()
    _create_state()
    _create_subscription()
    if op.get_context().dialect.name == "postgresql":
        for table, parameters in POSTGRESQL_STORAGE.items():
            op.execute(f"ALTER TABLE {table} SET ({parameters})")


def downgrade() -> None:
    for table in (
        "file_event_subscription",
        "file_event_state",
        "file_event_journal",
        "file_event_outbox",
    ):
        op.drop_table(table)

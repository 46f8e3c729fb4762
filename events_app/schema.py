"""The five tables, as code sees them; migrations/ holds how a database gets them.

Names of tables and columns are public: apps and auditors write them into their own SQL.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    MetaData,
    SmallInteger,
    Table,
    column,
)

from events_app import uri
from events_app.columns import BigInt, ByteString, ByteText, UtcTime, VerbatimJson, octets, utc_now

VERSION_TABLE = "file_event_schema_version"
# The newest migration. Revisions are numbers of four digits, so that they compare as text.
REVISION = "0003"

metadata = MetaData()

INNODB: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}

outbox = Table(
    "file_event_outbox",
    metadata,
    Column("id", BigInt, Identity(cache=1), primary_key=True),
    Column("user_id", ByteString(64), nullable=False),
    Column("type", ByteString(16), nullable=False),
    Column("file_id", ByteString(128), nullable=False),
    Column("fs", ByteString(32), nullable=False, server_default="my"),
    Column("from_path", ByteText, nullable=False),
    Column("to_path", ByteText),
    Column("is_folder", SmallInteger, nullable=False, server_default="0"),
    Column("client_id", ByteString(36)),
    Column("actor_id", ByteString(64)),
    Column("event_key", ByteString(128)),
    Column("meta", VerbatimJson),
    Column("created_at", UtcTime, nullable=False, server_default=utc_now()),
    CheckConstraint(
        "type IN ('create', 'modify', 'rename', 'delete')", name="file_event_outbox_type"
    ),
    CheckConstraint(
        octets(column("from_path")) <= uri.MAX_PATH_BYTES, name="file_event_outbox_from_path"
    ),
    CheckConstraint(
        octets(column("to_path")) <= uri.MAX_PATH_BYTES, name="file_event_outbox_to_path"
    ),
    CheckConstraint(
        "(type = 'rename') = (COALESCE(to_path, '') <> '')", name="file_event_outbox_rename"
    ),
    CheckConstraint("is_folder IN (0, 1)", name="file_event_outbox_is_folder"),
    # The default would hand out the id of a deleted row again; ids of an outbox only ever grow.
    sqlite_autoincrement=True,
    **INNODB,
)

journal = Table(
    "file_event_journal",
    metadata,
    Column("position", BigInt, primary_key=True, autoincrement=False),
    Column("user_id", ByteString(64), nullable=False),
    Column("type", ByteString(16), nullable=False),
    Column("file_id", ByteString(128), nullable=False),
    Column("fs", ByteString(32), nullable=False),
    Column("from_path", ByteText, nullable=False),
    Column("to_path", ByteText),
    Column("is_folder", SmallInteger, nullable=False),
    Column("client_id", ByteString(36)),
    Column("actor_id", ByteString(64)),
    Column("event_key", ByteString(128)),
    Column("meta", VerbatimJson),
    Column("created_at", UtcTime, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
    Column("tag", BigInteger, nullable=False),
    Column("rejected", ByteString(255)),
    Index("file_event_journal_user_position", "user_id", "position"),
    Index("file_event_journal_user_key", "user_id", "event_key", unique=True),
    **INNODB,
)
# What auditors ask for: who touched a path, what somebody did in a span of time.
Index("file_event_journal_user_time", journal.c.user_id, journal.c.recorded_at)
Index(
    "file_event_journal_actor_time",
    journal.c.actor_id,
    journal.c.recorded_at,
    postgresql_where=journal.c.actor_id.is_not(None),
    sqlite_where=journal.c.actor_id.is_not(None),
)
# PostgreSQL refuses a row whose index entry is over 2,704 bytes, and with it the mover's whole
# batch. InnoDB indexes the beginning of a text, at most 3,072 bytes of a key.
INDEXED_PATH_BYTES = 2_048
INDEXED_PATH_CHARACTERS = 255
# What the indexes over paths hold on PostgreSQL, by column, and what the one beside them holds:
# a query must say the same to be served by them.
IS_SHORT = {
    column.name: octets(column) <= INDEXED_PATH_BYTES
    for column in (journal.c.from_path, journal.c.to_path)
}
IS_LONG = (octets(journal.c.from_path) > INDEXED_PATH_BYTES) | (
    octets(journal.c.to_path) > INDEXED_PATH_BYTES
)
Index(
    "file_event_journal_user_from",
    journal.c.user_id,
    journal.c.from_path,
    journal.c.position,
    postgresql_where=IS_SHORT["from_path"],
    mysql_length={"from_path": INDEXED_PATH_CHARACTERS},
    mariadb_length={"from_path": INDEXED_PATH_CHARACTERS},
)
Index(
    "file_event_journal_user_to",
    journal.c.user_id,
    journal.c.to_path,
    journal.c.position,
    postgresql_where=IS_SHORT["to_path"],
    sqlite_where=journal.c.to_path.is_not(None),
    mysql_length={"to_path": INDEXED_PATH_CHARACTERS},
    mariadb_length={"to_path": INDEXED_PATH_CHARACTERS},
)
Index(
    "file_event_journal_user_long",
    journal.c.user_id,
    journal.c.position,
    postgresql_where=IS_LONG,
    info={"only": "postgresql"},
).ddl_if(dialect="postgresql")

state = Table(
    "file_event_state",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("last_position", BigInteger, nullable=False),
    Column("floor_position", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    CheckConstraint("id = 1", name="file_event_state_one_row"),
    **INNODB,
)

grant = Table(
    "file_event_grant",
    metadata,
    Column("share_id", ByteString(64), primary_key=True),
    Column("user_id", ByteString(64), primary_key=True),
    Column("owner_id", ByteString(64), nullable=False),
    Column("fs", ByteString(32), nullable=False, server_default="my"),
    Column("path", ByteText, nullable=False),
    Column("is_folder", SmallInteger, nullable=False),
    Column("expires_at", UtcTime),
    CheckConstraint("is_folder IN (0, 1)", name="file_event_grant_is_folder"),
    **INNODB,
)

# What a subscription is: see `subscriptions`.
NEW, LIVE, FRESH = "new", "live", "fresh"

subscription = Table(
    "file_event_subscription",
    metadata,
    Column("user_id", ByteString(64), primary_key=True),
    Column("client_id", ByteString(36), primary_key=True),
    Column("folder_hash", ByteString(64), primary_key=True),
    Column("fs", ByteString(32), nullable=False),
    Column("path", ByteText, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("sent_position", BigInteger),
    Column("generation", BigInteger, nullable=False),
    Column("state", ByteString(16), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    CheckConstraint("state IN ('new', 'live', 'fresh')", name="file_event_subscription_state"),
    Index("file_event_subscription_seen_at", "seen_at"),
    **INNODB,
)
SUBSCRIPTION_KEY = tuple(subscription.primary_key.columns)

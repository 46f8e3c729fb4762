"""The grants: which folders of other users somebody may watch."""

import sqlalchemy as sa
from alembic import op

from events_app.columns import ByteString, ByteText, UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "file_event_grant",
        sa.Column("share_id", ByteString(64), primary_key=True),
        sa.Column("user_id", ByteString(64), primary_key=True),
        sa.Column("owner_id", ByteString(64), nullable=False),
        sa.Column("fs", ByteString(32), nullable=False, server_default="my"),
        sa.Column("path", ByteText, nullable=False),
        sa.Column("is_folder", sa.SmallInteger, nullable=False),
        sa.Column("expires_at", UtcTime),
        sa.CheckConstraint("is_folder IN (0, 1)", name="file_event_grant_is_folder"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
    )


def downgrade() -> None:
    op.drop_table("file_event_grant")

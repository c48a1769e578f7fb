"""A digest of each watched folder, so that a rescan looks only into those that changed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "surveyed",
        sa.Column("host", sa.String(32), primary_key=True),
        sa.Column("parent", sa.LargeBinary, primary_key=True),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )

"""Which watched folders are mount points."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "mounted",
        sa.Column("host", sa.String(32), primary_key=True),
        sa.Column("path", sa.LargeBinary, primary_key=True),
        sqlite_with_rowid=False,
    )

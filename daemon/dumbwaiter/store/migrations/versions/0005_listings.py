"""What a provider's own list shows."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("entries", sa.Column("listed_at", sa.Float))
    op.add_column("entries", sa.Column("unlisted_at", sa.Float))
    op.create_table(
        "listings",
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("cursor", sa.Text),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("ended_at", sa.Float),
    )

"""Whose turn it is: what a person has paused or ordered, and the uploads whose permission ends first."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("grant_until", sa.Float))
    by_hand = sa.text("state IN ('pending', 'stored') AND by_hand")
    op.create_index("jobs_by_hand", "jobs", ["host", "due_at"], sqlite_where=by_hand, postgresql_where=by_hand)
    begun = sa.text("state IN ('pending', 'stored') AND \"grant\" IS NOT NULL")
    op.create_index("jobs_begun", "jobs", ["host", "grant_until"], sqlite_where=begun, postgresql_where=begun)
    op.create_table(
        "pauses",
        sa.Column("host", sa.String(32), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("until", sa.Float),
    )

"""What a watch's rules need: settled keys, jobs ordered by hand, errands; and files of equal content under one key."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("proposed", sa.Text))
    op.add_column("jobs", sa.Column("by_hand", sa.Boolean, nullable=False, server_default=sa.false()))
    is_open = sa.text("state IN ('pending', 'stored')")
    op.create_index("jobs_proposed", "jobs", ["provider", "proposed"], sqlite_where=is_open, postgresql_where=is_open)
    # SQLite rebuilds the table for it; a partial index is made anew, because a copy would lose its condition.
    op.drop_index("entries_files", "entries")
    with op.batch_alter_table("entries") as entries:
        entries.drop_constraint("entries_key", type_="unique")
        entries.create_unique_constraint("entries_file", ["provider", "key", "parent", "name"])
    current = sa.text("current")
    op.create_index("entries_files", "entries", ["parent", "name"], sqlite_where=current, postgresql_where=current)
    op.create_table(
        "errands",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("host", sa.String(32), nullable=False),
        sa.Column("job", sa.BigInteger),
        sa.Column("watch", sa.Text, nullable=False),
        sa.Column("parent", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("due_at", sa.Float),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("errands_due", "errands", ["host", "due_at"])
    op.create_index("errands_file", "errands", ["parent", "name"])

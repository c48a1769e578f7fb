"""Jobs, entries, counters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("host", sa.String(32), nullable=False),
        sa.Column("watch", sa.Text, nullable=False),
        sa.Column("parent", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("ctime_ns", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("grant", sa.Text),
        sa.Column("checkpoint", sa.Text),
        sa.Column("receipt", sa.Text),
        sa.Column("digest", sa.Text),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("resent", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("lease", sa.String(32)),
        sa.Column("lease_until", sa.Float),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint(
            "host", "parent", "name", "provider", "inode", "size", "mtime_ns", "ctime_ns", name="jobs_version"
        ),
    )
    is_open = sa.text("state IN ('pending', 'stored')")
    shown = sa.text("state IN ('pending', 'stored', 'rejected')")
    op.create_index("jobs_due", "jobs", ["host", "due_at"], sqlite_where=is_open, postgresql_where=is_open)
    op.create_index("jobs_outbox", "jobs", ["parent", "name"], sqlite_where=shown, postgresql_where=shown)
    op.create_table(
        "entries",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("host", sa.String(32), nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("key_parent", sa.LargeBinary, nullable=False),
        sa.Column("key_name", sa.LargeBinary, nullable=False),
        sa.Column("watch", sa.Text, nullable=False),
        sa.Column("parent", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("current", sa.Boolean, nullable=False),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("ctime_ns", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("verified", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("stored_at", sa.Float, nullable=False),
        sa.UniqueConstraint("provider", "key", name="entries_key"),
    )
    current = sa.text("current")
    op.create_index("entries_keys", "entries", ["key_parent", "key_name"])
    op.create_index("entries_files", "entries", ["parent", "name"], sqlite_where=current, postgresql_where=current)
    op.create_index("entries_stored", "entries", ["stored_at"])
    op.create_table(
        "counters",
        sa.Column("host", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )

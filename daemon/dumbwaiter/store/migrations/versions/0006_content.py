"""Entries by their content."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index("entries_content", "entries", ["provider", "size", "digest"])

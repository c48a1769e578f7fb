"""What `status` counts, without reading every job and entry."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.drop_index("jobs_state", "jobs", if_exists=True)  # SQLite took it for the outbox's questions
    superseded = sa.text("state = 'superseded'")
    op.create_index(
        "jobs_superseded", "jobs", ["state"], sqlite_where=superseded, postgresql_where=superseded, if_not_exists=True
    )
    current = sa.text("current")
    op.create_index(
        "entries_watch",
        "entries",
        ["watch", "current"],
        sqlite_where=current,
        postgresql_where=current,
        if_not_exists=True,
    )

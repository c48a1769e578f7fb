"""How many jobs are in each state, without a look at every one."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("jobs_state", "jobs", ["state"])

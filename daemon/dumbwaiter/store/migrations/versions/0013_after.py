"""How many files are still to be put away, without reading the errands."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    after = sa.text("what = 'after' AND due_at IS NOT NULL")
    op.create_index("errands_after", "errands", ["host"], sqlite_where=after, postgresql_where=after)

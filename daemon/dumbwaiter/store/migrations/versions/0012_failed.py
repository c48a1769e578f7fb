"""Which errands failed, without reading those that are still to be done."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    failed = sa.text("error IS NOT NULL")
    op.create_index("errands_failed", "errands", ["due_at"], sqlite_where=failed, postgresql_where=failed)

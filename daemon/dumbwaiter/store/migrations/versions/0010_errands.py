"""Which errands a file has, without reading all of them: many wait where a hook is slow."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.drop_index("errands_file", "errands")  # no question needed it
    op.create_index("errands_job", "errands", ["job"])

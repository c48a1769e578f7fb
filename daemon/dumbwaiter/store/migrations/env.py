"""Runs migrations on the connection that `store.upgrade` hands over, all in its one transaction."""

from alembic import context

from dumbwaiter.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite does roll schema changes back once the driver's own transaction handling is out of the way.
    transactional_ddl=True,
)
context.run_migrations()

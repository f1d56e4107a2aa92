"""Alembic's entry: runs the migrations on the engine that ``schema.upgrade`` passes in."""

from alembic import context

from modelyard.storage.database import metadata


def run() -> None:
    """Run the migrations online; each revision is one transaction."""
    engine = context.config.attributes["engine"]
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


run()

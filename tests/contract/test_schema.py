"""Migrations make exactly the declared schema, and another schema is refused at start."""

import importlib
import pkgutil

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import modelyard
from modelyard.storage import Database, metadata
from modelyard.storage.schema import SchemaDiffers, current_version, latest_version, open_schema, upgrade


@pytest.fixture(scope="module", autouse=True)
def _every_table_is_declared():
    for module in pkgutil.walk_packages(modelyard.__path__, "modelyard."):
        if not module.name.endswith("__main__") and ".migrations" not in module.name:
            importlib.import_module(module.name)


def test_migrations_make_the_declared_schema(database_url):
    database = Database(database_url)
    open_schema(database)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert current_version(database) == latest_version()
    open_schema(database)
    upgrade(database)
    database.close()


def test_another_schema_is_refused_with_the_command_that_upgrades_it(database_url):
    database = Database(database_url)
    open_schema(database)
    with database.transaction() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaDiffers, match="modelyard doctor --upgrade") as caught:
        open_schema(database)
    assert caught.value.facts == {"found": "9999", "wanted": latest_version()}
    database.close()


def test_a_database_of_somebody_else_is_refused(database_url):
    database = Database(database_url)
    with database.transaction() as tx:
        tx.execute(sa.text("CREATE TABLE somebody_elses (x INTEGER)"))
    with pytest.raises(SchemaDiffers, match="of no known version"):
        open_schema(database)
    database.close()

"""The schema's version: made, checked and upgraded by Alembic; forward only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from modelyard.errors import Conflict
from modelyard.storage.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

SCRIPTS = Path(__file__).parent / "migrations"

# Alembic's own table. Read here directly: importing Alembic costs every command a second.
_VERSION = sa.table("alembic_version", sa.column("version_num", sa.String))


class SchemaDiffers(Conflict):
    """The database was made by another release."""

    code = "schema_differs"


def upgrade(database: Database) -> None:
    """Bring the database to this release's schema. Restartable: a finished step is not repeated."""
    from alembic import command

    command.upgrade(_config(database), "head")


def current_version(database: Database) -> str | None:
    """Return the schema version of the database, or None if it has none."""
    with database.reading() as connection:
        if not sa.inspect(connection).has_table(_VERSION.name):
            return None
        return connection.execute(sa.select(_VERSION.c.version_num)).scalar()


def latest_version() -> str:
    """Return the schema version that this release needs: the newest file of ``migrations/versions``."""
    return max(file.stem for file in (SCRIPTS / "versions").glob("v*.py")).removeprefix("v")


def open_schema(database: Database) -> None:
    """Create the schema in an empty database; refuse one of another version.

    Raises:
        SchemaDiffers: If the database holds another schema version; says which command upgrades it.
    """
    found = current_version(database)
    if found is None and not sa.inspect(database.engine).get_table_names():
        upgrade(database)
        return
    wanted = latest_version()
    if found != wanted:
        raise SchemaDiffers(
            f"The database has schema {found or 'of no known version'}, this release needs {wanted}. "
            "Back it up, then run: modelyard doctor --upgrade",
            found=found,
            wanted=wanted,
        )


def _config(database: Database) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["engine"] = database.engine
    return config

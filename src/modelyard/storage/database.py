"""The metadata database: SQLite in WAL mode by default, PostgreSQL by URL.

One SQL code base serves both; what differs between them stands in this module alone. Capabilities declare
their tables on ``metadata`` in their own ``store.py`` and receive a ``Database``.

Times are stored as integer microseconds since the epoch (``UtcTime``), documents as canonical JSON text
(``Json``), so that both databases compare, index and hash them alike.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite

from modelyard.errors import StorageFull, Unavailable

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_WRITE = "modelyard_write"
_BUSY_TIMEOUT_MS = 30_000


class UtcTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC ``datetime``, stored as integer microseconds since 1970."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        """Turn an aware time into microseconds."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        """Turn microseconds into an aware time."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Json(sa.types.TypeDecorator[Any]):
    """A JSON document, stored as text with sorted keys."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        """Encode with sorted keys and no spaces."""
        if value is None:
            return None
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """Decode the stored text."""
        return None if value is None else json.loads(value)


class Transaction:
    """One write transaction. Obtain it from ``Database.transaction``.

    ``before_commit`` callbacks run last inside the transaction (the event log takes its sequence there);
    ``after_commit`` callbacks run once it is durable.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.before_commit: list[Callable[[Transaction], None]] = []
        self.after_commit: list[Callable[[], None]] = []

    def execute(
        self, statement: sa.Executable, parameters: Mapping[str, Any] | list[dict[str, Any]] | None = None
    ) -> sa.CursorResult[Any]:
        """Execute a statement inside the transaction."""
        return self.connection.execute(statement, parameters)

    def insert_if_absent(self, table: sa.Table, values: Mapping[str, Any]) -> bool:
        """Insert a row unless one with the same key exists, and say whether it was inserted."""
        statement = self._dialect_insert(table).values(**values).on_conflict_do_nothing()
        key = table.primary_key.columns[0]
        return self.connection.execute(statement.returning(key)).first() is not None

    def upsert(self, table: sa.Table, values: Mapping[str, Any]) -> None:
        """Insert a row, or overwrite the other columns of the one with the same primary key."""
        keys = [column.name for column in table.primary_key]
        rest = {name: value for name, value in values.items() if name not in keys}
        statement = self._dialect_insert(table).values(**values)
        self.connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))

    def _dialect_insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        if self.connection.dialect.name == "sqlite":
            return sqlite.insert(table)
        return postgresql.insert(table)


class Database:
    """A metadata database, safe to share between threads.

    Args:
        url: ``sqlite:///path`` or ``postgresql+psycopg://…``.

    Raises:
        Unavailable: From any use, if the database cannot be reached or stays locked.
        StorageFull: From any write, if there is no room.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parsed = sa.make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._writer = threading.Lock()
        if self.is_sqlite:
            self.engine = _sqlite_engine(url)
        else:
            self.engine = sa.create_engine(url, pool_size=10, max_overflow=20, pool_pre_ping=True)

    @classmethod
    def at(cls, path: Path) -> Database:
        """Open the SQLite database in this file, creating the folder if needed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{path}")

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a write transaction; it commits at the end of the block, durably, or rolls back on error."""
        with (
            _translated(),
            self._one_writer(),
            self.engine.connect().execution_options(**{_WRITE: True}) as connection,
            connection.begin(),
        ):
            tx = Transaction(connection)
            yield tx
            for before in tx.before_commit:
                before(tx)
        for after in tx.after_commit:
            after()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a read transaction: one consistent snapshot on SQLite, READ COMMITTED on PostgreSQL."""
        with _translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Open a read transaction in which every statement sees the same state, on both databases."""
        with self.reading() as connection:
            if self.is_sqlite:
                yield connection
            else:
                yield connection.execution_options(isolation_level="REPEATABLE READ")

    def create_all(self) -> None:
        """Create every table declared so far. For tests; a home folder is made by migrations."""
        metadata.create_all(self.engine)

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        # SQLite has one writer per file. Threads of one process queue here, fairly and without polling,
        # instead of in SQLite's busy loop.
        if not self.is_sqlite:
            yield
            return
        with self._writer:
            yield


def _sqlite_engine(url: str) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver must not open transactions by itself: BEGIN is ours, below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the drivers' operational errors into ours; constraint violations stay for the stores to name."""
    try:
        yield
    except sa.exc.OperationalError as error:
        text = str(error.orig).lower()
        if "full" in text or "no space left" in text:
            raise StorageFull("The database has no room left. Free some space; no restart is needed.") from error
        raise Unavailable("The database did not answer. Try again in a moment.") from error

"""The manifest of prediction files: the database rows that say which files count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from modelyard.errors import Conflict
from modelyard.storage.database import Json, Transaction, UtcTime, metadata
from modelyard.storage.predictions.segment import START, Position

OPEN, SEALED, RETIRED = "open", "sealed", "retired"

files = sa.Table(
    "prediction_files",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("project", sa.String(255), nullable=False),
    sa.Column("endpoint", sa.String(255), nullable=False),
    sa.Column("path", sa.String(512), nullable=False, unique=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("min_time", UtcTime, nullable=False),
    sa.Column("max_time", UtcTime, nullable=False),
    sa.Column("min_id", sa.Text, nullable=False),
    sa.Column("max_id", sa.Text, nullable=False),
    sa.Column("first_number", sa.BigInteger, nullable=False),
    sa.Column("last_number", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("features", Json, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("sweeps", sa.Integer, nullable=False, default=0),
    sa.Index(None, "project", "endpoint", "state", "min_time"),
    sa.Index(None, "project", "endpoint", "last_number"),
    sa.Index(None, "state", "max_time"),
)

positions = sa.Table(
    "prediction_positions",
    metadata,
    sa.Column("writer", sa.String(255), primary_key=True),
    sa.Column("segment", sa.BigInteger, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
)

numbers = sa.Table(
    "prediction_numbers",
    metadata,
    sa.Column("project", sa.String(255), primary_key=True),
    sa.Column("endpoint", sa.String(255), primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One Parquet file that counts.

    Attributes:
        id: Its own id.
        project: Project of all its rows.
        endpoint: Endpoint of all its rows.
        path: Path below the store's folder.
        state: ``open``, ``sealed`` or ``retired`` (no longer read, deleted by a later sweep).
        rows: Number of rows.
        bytes: Size.
        min_time: Earliest event time.
        max_time: Latest event time, inclusive.
        min_id: Smallest prediction id.
        max_id: Largest prediction id.
        first_number: Smallest file number of its rows. Each written file gets the next number of its
            endpoint, in the order of commits; its rows keep it when they are sealed into another file.
        last_number: Largest file number of its rows.
        sha256: Hex digest of its content.
        features: Arrow type of each feature column by its name.
        created_at: Wall-clock time of its writing.
    """

    id: str
    project: str
    endpoint: str
    path: str
    state: str
    rows: int
    bytes: int
    min_time: datetime
    max_time: datetime
    min_id: str
    max_id: str
    first_number: int
    last_number: int
    sha256: str
    features: dict[str, str]
    created_at: datetime


class Advance(NamedTuple):
    """A reader's step: the records of ``writer`` from ``before`` up to ``after`` are stored now."""

    writer: str
    before: Position
    after: Position


_COLUMNS = [files.c[name] for name in StoredFile.__dataclass_fields__]


def insert(tx: Transaction, rows: Sequence[StoredFile]) -> None:
    """Add files."""
    if rows:
        tx.execute(sa.insert(files), [_values(row) for row in rows])


def find(
    connection: sa.Connection,
    *,
    project: str | None = None,
    endpoint: str | None = None,
    states: Collection[str] = (OPEN, SEALED),
    start: datetime | None = None,
    end: datetime | None = None,
    after_file: int | None = None,
    through_file: int | None = None,
) -> list[StoredFile]:
    """Return the files that may hold rows with ``start <= time < end`` and such file numbers, by time."""
    conditions: list[sa.ColumnElement[bool]] = [files.c.state.in_(states)]
    if project is not None:
        conditions.append(files.c.project == project)
    if endpoint is not None:
        conditions.append(files.c.endpoint == endpoint)
    if start is not None:
        conditions.append(files.c.max_time >= start)
    if end is not None:
        conditions.append(files.c.min_time < end)
    if after_file is not None:
        conditions.append(files.c.last_number > after_file)
    if through_file is not None:
        conditions.append(files.c.first_number <= through_file)
    query = sa.select(*_COLUMNS).where(*conditions).order_by(files.c.min_time, files.c.first_number)
    return [StoredFile(**row._mapping) for row in connection.execute(query)]


def retire(tx: Transaction, rows: Iterable[StoredFile]) -> None:
    """Take files out of every later reading.

    Raises:
        Conflict: If one of them has changed its state since it was read.
    """
    for row in rows:
        query = sa.update(files).where(files.c.id == row.id, files.c.state == row.state).values(state=RETIRED, sweeps=0)
        if tx.execute(query).rowcount != 1:
            raise Conflict(f"Prediction file {row.path} was sealed or retired by someone else meanwhile.")


def age_retired(tx: Transaction, grace: int) -> list[str]:
    """Forget the files that have been retired for ``grace`` sweeps, and count this sweep for the rest.

    Returns:
        Paths of the forgotten files.
    """
    done = (files.c.state == RETIRED, files.c.sweeps >= grace)
    paths = [row.path for row in tx.execute(sa.select(files.c.path).where(*done))]
    tx.execute(sa.delete(files).where(*done))
    tx.execute(sa.update(files).where(files.c.state == RETIRED).values(sweeps=files.c.sweeps + 1))
    return paths


def next_number(tx: Transaction, project: str, endpoint: str) -> int:
    """Take the endpoint's next file number. The row stays locked, so numbers follow the order of commits."""
    tx.insert_if_absent(numbers, {"project": project, "endpoint": endpoint, "last": 0})
    query = (
        sa.update(numbers)
        .where(numbers.c.project == project, numbers.c.endpoint == endpoint)
        .values(last=numbers.c.last + 1)
        .returning(numbers.c.last)
    )
    return int(tx.execute(query).scalar_one())


def last_number(connection: sa.Connection, project: str, endpoint: str) -> int:
    """Return the number of the newest committed file of an endpoint; 0 before the first."""
    query = sa.select(numbers.c.last).where(numbers.c.project == project, numbers.c.endpoint == endpoint)
    return int(connection.execute(query).scalar() or 0)


def advance(tx: Transaction, step: Advance) -> None:
    """Move a writer's position.

    Raises:
        Conflict: If it is not where this step begins: another reader has stored these records already.
    """
    tx.insert_if_absent(positions, {"writer": step.writer, **START._asdict()})
    query = (
        sa.update(positions)
        .where(
            positions.c.writer == step.writer,
            positions.c.segment == step.before.segment,
            positions.c.offset == step.before.offset,
        )
        .values(**step.after._asdict())
    )
    if tx.execute(query).rowcount != 1:
        raise Conflict(f"The records of {step.writer!r} from {tuple(step.before)} on were stored by another reader.")


def all_positions(connection: sa.Connection) -> dict[str, Position]:
    """Return the stored position of every writer."""
    return {row.writer: Position(row.segment, row.offset) for row in connection.execute(sa.select(positions))}


def forget_position(tx: Transaction, writer: str) -> None:
    """Drop the position of a writer that is gone for good."""
    tx.execute(sa.delete(positions).where(positions.c.writer == writer))


def _values(row: StoredFile) -> dict[str, Any]:
    return {name: getattr(row, name) for name in StoredFile.__dataclass_fields__}

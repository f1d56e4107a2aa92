"""Metric history in the database, in compressed chunks.

An append inserts one small chunk and reads nothing; ``compact`` merges small chunks into full ones. Chunks of
a series keep the order in which they were appended: a merged chunk takes the place of its first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from modelyard.errors import Conflict, Invalid
from modelyard.storage.database import Database, Transaction, metadata
from modelyard.storage.series.chunks import decode, encode
from modelyard.storage.series.model import Points, joined
from modelyard.storage.series.sample import sample

FULL_POINTS = 4096
_SMALL_CHUNKS = 64  # so many unsettled chunks make a series due: a point is re-encoded some 30 times at worst
_RowId = sa.BigInteger().with_variant(sa.Integer, "sqlite")

chunks = sa.Table(
    "series_chunks",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    sa.Column("series_id", sa.String(64), nullable=False),
    sa.Column("points", sa.Integer, nullable=False),
    sa.Column("first_step", sa.BigInteger, nullable=False),
    sa.Column("last_step", sa.BigInteger, nullable=False),
    sa.Column("sorted", sa.Boolean, nullable=False),
    sa.Column("settled", sa.Boolean, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Index(None, "series_id", "id"),
)
sa.Index(
    "ix_series_chunks_unsettled",
    chunks.c.series_id,
    sqlite_where=chunks.c.settled.is_(False),
    postgresql_where=chunks.c.settled.is_(False),
)


@dataclass(frozen=True, slots=True)
class _Chunk:
    id: int
    points: int
    first_step: int
    last_step: int
    sorted: bool
    settled: bool


class SeriesStore:
    """Histories of metrics, each named by an id of at most 64 characters that the caller chooses.

    Args:
        database: Holds the chunks.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, tx: Transaction, series_id: str, points: Points) -> None:
        """Append points to one series, in the caller's transaction."""
        self.append_many(tx, [(series_id, points)])

    def append_many(self, tx: Transaction, batches: Iterable[tuple[str, Points]]) -> None:
        """Append points to many series with one statement, in the caller's transaction.

        Args:
            tx: The transaction.
            batches: Series id and points; one series may come several times. Steps may come in any order
                and repeat.

        Raises:
            Invalid: If an id is empty or too long.
        """
        rows = []
        for series_id, points in batches:
            if not 0 < len(series_id) <= 64:
                raise Invalid(f"A series id has 1 to 64 characters, not {len(series_id)}.")
            rows += [_row(series_id, part) for part in _pieces(points)]
        if rows:
            tx.execute(sa.insert(chunks), rows)

    def read(
        self,
        series_id: str,
        *,
        start_step: int | None = None,
        end_step: int | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> Points:
        """Read points by step; equal steps in the order in which they were appended.

        Args:
            series_id: The series; an unknown one has no points.
            start_step: Smallest step, inclusive.
            end_step: Largest step, exclusive.
            offset: Points to skip. With ``limit`` it pages a series that logs everything at one step, where
                steps cannot.
            limit: Most points; None for all.
        """
        with self._database.snapshot() as connection:
            found = _find(connection, series_id, start_step, end_step)
            if start_step is None and end_step is None and _in_order(found):
                found, offset = _page(found, offset, limit)
            blobs = _blobs(connection, series_id, found)
        points = joined([decode(blob) for blob in blobs])
        if not _in_order(found):
            points = points[points.steps.argsort(kind="stable")]
        first = 0 if start_step is None else int(points.steps.searchsorted(start_step))
        behind = len(points) if end_step is None else int(points.steps.searchsorted(end_step))
        first = min(first + offset, behind)
        return points[first : behind if limit is None else min(first + limit, behind)]

    def sample(
        self,
        series_id: str,
        *,
        max_points: int = 2000,
        start_step: int | None = None,
        end_step: int | None = None,
    ) -> Points:
        """Read a series thinned out for drawing; every peak and trough stays. Arguments as for ``read``."""
        return sample(self.read(series_id, start_step=start_step, end_step=end_step), max_points)

    def count(self, series_id: str) -> int:
        """Return the number of points of a series."""
        query = sa.select(sa.func.sum(chunks.c.points)).where(chunks.c.series_id == series_id)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def delete(self, tx: Transaction, series_id: str) -> None:
        """Delete a series."""
        tx.execute(sa.delete(chunks).where(chunks.c.series_id == series_id))

    def due(self, *, limit: int = 100) -> list[str]:
        """Return series that have many small chunks."""
        query = (
            sa.select(chunks.c.series_id)
            .where(chunks.c.settled.is_(False))
            .group_by(chunks.c.series_id)
            .having(sa.func.count() >= _SMALL_CHUNKS)
            .order_by(sa.func.count().desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def compact(self, tx: Transaction, series_id: str, *, finished: bool = False) -> int:
        """Merge the small chunks of a series into full ones, in the caller's transaction.

        Args:
            tx: The transaction.
            series_id: A series that is ``due``, or whose run has ended.
            finished: No more points are expected, so that the last chunk is settled though it is not full.

        Returns:
            How many chunks the series has now fewer.

        Raises:
            Conflict: If another process compacts the same series.
        """
        found = _find(tx.connection, series_id, None, None)
        saved = 0
        for run in _runs(found):
            parts = _pieces(joined([decode(blob) for blob in _blobs(tx.connection, series_id, run)]))
            rows = [_row(series_id, part) for part in parts]
            # Only the end of the series may still grow.
            rows[-1]["settled"] |= finished or run[-1] is not found[-1]
            _replace(tx, series_id, run, rows)
            saved += len(run) - len(rows)
        return saved


def _pieces(points: Points) -> list[Points]:
    return [points[start : start + FULL_POINTS] for start in range(0, len(points), FULL_POINTS)]


def _row(series_id: str, points: Points) -> dict[str, Any]:
    steps = points.steps
    return {
        "series_id": series_id,
        "points": len(points),
        "first_step": int(steps.min()),
        "last_step": int(steps.max()),
        "sorted": bool((steps[1:] >= steps[:-1]).all()),
        "settled": len(points) >= FULL_POINTS,
        "blob": encode(points),
    }


def _find(connection: sa.Connection, series_id: str, start_step: int | None, end_step: int | None) -> list[_Chunk]:
    """Return what is known of the chunks that may hold such steps, in the order of appending."""
    conditions = [chunks.c.series_id == series_id]
    if start_step is not None:
        conditions.append(chunks.c.last_step >= start_step)
    if end_step is not None:
        conditions.append(chunks.c.first_step < end_step)
    columns = [chunks.c[name] for name in _Chunk.__dataclass_fields__]
    query = sa.select(*columns).where(*conditions).order_by(chunks.c.id)
    return [_Chunk(*row) for row in connection.execute(query)]


def _blobs(connection: sa.Connection, series_id: str, found: Sequence[_Chunk]) -> list[bytes]:
    """Return the content of neighbouring chunks.

    Raises:
        Conflict: If they were compacted since they were found.
    """
    if not found:
        return []
    query = (
        sa.select(chunks.c.id, chunks.c.points, chunks.c.blob)
        .where(chunks.c.series_id == series_id, chunks.c.id.between(found[0].id, found[-1].id))
        .order_by(chunks.c.id)
    )
    wanted = {chunk.id: chunk.points for chunk in found}
    rows = [row for row in connection.execute(query) if row.id in wanted]
    if [(row.id, row.points) for row in rows] != list(wanted.items()):
        raise Conflict(f"The chunks of series {series_id!r} changed while they were read. Try again.")
    return [bytes(row.blob) for row in rows]


def _in_order(found: Sequence[_Chunk]) -> bool:
    """Say whether reading these chunks one after the other gives ascending steps."""
    return all(chunk.sorted for chunk in found) and all(
        left.last_step <= right.first_step for left, right in zip(found, found[1:], strict=False)
    )


def _page(found: list[_Chunk], offset: int, limit: int | None) -> tuple[list[_Chunk], int]:
    """Leave out the chunks before and behind a page, and return the offset in what is left."""
    first = 0
    while first < len(found) and offset >= found[first].points:
        offset -= found[first].points
        first += 1
    if limit is None:
        return found[first:], offset
    behind, points = first, 0
    while behind < len(found) and points < offset + limit:
        points += found[behind].points
        behind += 1
    return found[first:behind], offset


def _runs(found: Sequence[_Chunk]) -> list[list[_Chunk]]:
    """Group unsettled neighbours; a settled chunk between them keeps them apart, for the order's sake."""
    runs: list[list[_Chunk]] = []
    neighbours = False
    for chunk in found:
        if not chunk.settled:
            if neighbours:
                runs[-1].append(chunk)
            else:
                runs.append([chunk])
        neighbours = not chunk.settled
    return runs


def _replace(tx: Transaction, series_id: str, run: Sequence[_Chunk], rows: Sequence[dict[str, Any]]) -> None:
    """Put merged rows in the place of a run of chunks, under the first of their ids."""
    ids = [chunk.id for chunk in run]
    gone = sa.delete(chunks).where(chunks.c.series_id == series_id, chunks.c.settled.is_(False))
    deleted = tx.execute(gone.where(chunks.c.id.between(ids[0], ids[-1]))).rowcount
    if deleted != len(run):
        raise Conflict(f"Series {series_id!r} is being compacted by another process.")
    tx.execute(sa.insert(chunks), [row | {"id": id} for row, id in zip(rows, ids, strict=False)])

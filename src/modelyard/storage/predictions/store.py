"""The prediction store: rows in Parquet files, of which a manifest in the database says which count.

A batch of rows becomes one open file per endpoint. Its manifest row and the new positions of the append
files that it came from commit in one transaction, so each prediction is stored exactly once, whatever dies
in between. Sealing swaps open files for sorted, compacted ones in one transaction; files that no longer
count stay on disk for a few sweeps, for the sake of whoever is reading them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from modelyard.errors import Corrupted, Unavailable
from modelyard.storage.database import Database, Transaction
from modelyard.storage.predictions import files, manifest, scan, sealing, sweeping
from modelyard.storage.predictions.manifest import OPEN, Advance, StoredFile
from modelyard.storage.predictions.scan import Selection
from modelyard.storage.predictions.schema import FEATURE_PREFIX, conform
from modelyard.storage.predictions.sealing import FileChange, change_of
from modelyard.storage.predictions.segment import Position
from modelyard.storage.predictions.sweeping import SweepReport
from modelyard.storage.ulid import NewId, ulid

_BATCH_ROWS = 65_536


Record = Callable[[Transaction, FileChange], None]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class PredictionStore:
    """The inference log of every endpoint.

    Args:
        database: Holds the manifest and the positions.
        folder: Holds the files, below ``open`` and ``sealed``.
        new_id: Makes file ids.
        now: Wall clock, for the age of open files.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        new_id: NewId = ulid,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._database = database
        self._folder = folder
        self._new_id = new_id
        self._now = now

    def write(self, tx: Transaction, rows: pa.Table, *, advances: Sequence[Advance] = ()) -> tuple[StoredFile, ...]:
        """Store rows and move the positions that they came from, in the caller's transaction.

        Writing the files takes about 40 ms per 10,000 rows with ten features; ``stage`` and ``commit`` do the
        same in two steps, so that the transaction need not be open for that long.

        Args:
            tx: The transaction.
            rows: Predictions of any endpoints in the columns of ``PREDICTION_SCHEMA`` and ``f.<feature>``.
            advances: Steps of the append readers that the rows came from.

        Raises:
            Invalid: If the rows do not have these columns.
            Conflict: If another reader stored these records already.
            StorageFull: If there is no room.
        """
        return self.commit(tx, self.stage(rows), advances=advances)

    def stage(self, rows: pa.Table) -> tuple[StoredFile, ...]:
        """Write rows to open files that do not count until they are committed."""
        return tuple(self._stage_one(part) for part in _by_endpoint(conform(rows)))

    def commit(
        self, tx: Transaction, staged: Sequence[StoredFile], *, advances: Sequence[Advance] = ()
    ) -> tuple[StoredFile, ...]:
        """Make staged files count, and move the positions that their rows came from.

        Raises:
            Conflict: If another reader stored these records already.
            Unavailable: If a staged file was swept away meanwhile.
        """
        for step in sorted(advances):
            manifest.advance(tx, step)
        counted = []
        for file in sorted(staged, key=lambda file: (file.project, file.endpoint)):
            if not (self._folder / file.path).exists():
                raise Unavailable(f"Prediction file {file.path} waited too long. Write its rows again.")
            number = manifest.next_number(tx, file.project, file.endpoint)
            counted.append(replace(file, first_number=number, last_number=number))
        manifest.insert(tx, counted)
        return tuple(counted)

    def positions(self) -> dict[str, Position]:
        """Return, per writer, the position up to which its records are stored."""
        with self._database.reading() as connection:
            return manifest.all_positions(connection)

    def forget_position(self, tx: Transaction, writer: str) -> None:
        """Drop the position of a writer whose folder was retired."""
        manifest.forget_position(tx, writer)

    def head(self, endpoint: str, project: str = "default") -> int:
        """Return the number of the endpoint's newest file: where a consumer that has read all stands.

        Read it first and pass it as ``through_file``; it is the ``after_file`` of the next time.
        """
        with self._database.reading() as connection:
            return manifest.last_number(connection, project, endpoint)

    def files(
        self,
        endpoint: str,
        project: str = "default",
        *,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> list[StoredFile]:
        """Return the files that may hold rows with ``start <= time < end``, by time."""
        return self._found(Selection(endpoint, project, start, end))

    def path(self, file: StoredFile) -> Path:
        """Return where a file lies, for readers of their own (DuckDB)."""
        return self._folder / file.path

    def scan(
        self,
        endpoint: str,
        project: str = "default",
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        columns: Sequence[str] | None = None,
        after_file: int | None = None,
        through_file: int | None = None,
        ids: Collection[str] | None = None,
        limit: int | None = None,
    ) -> pa.Table:
        """Read predictions into memory; ``batches`` reads more than fits there.

        Args:
            endpoint: Name of the endpoint.
            project: Its project.
            start: Earliest event time, inclusive.
            end: Latest event time, exclusive.
            columns: Columns to read, ``f.<name>`` for a feature, ``file_number`` for the file number. The
                default is the whole prediction schema and every feature of these files by name.
            after_file: Only rows of files with higher numbers: what is new since ``head`` said so.
            through_file: Only rows of files with numbers up to this one.
            ids: Only these prediction ids.
            limit: Most rows.

        Returns:
            Rows by file; files come by their earliest time, and only sealed ones are sorted inside.
            A feature that a version does not have is null in its rows.

        Raises:
            Invalid: If a column cannot exist.
            Corrupted: If a file is damaged.
            Unavailable: If a file is gone.
        """
        picked = None if ids is None else tuple(sorted(set(ids)))
        selection = Selection(endpoint, project, start, end, picked, after_file, through_file)
        schema, parts = self._read(selection, columns, _BATCH_ROWS)
        read, rows = [], 0
        for part in parts:
            read.append(part)
            rows += part.num_rows
            if limit is not None and rows >= limit:
                break
        table = pa.concat_tables(read) if read else schema.empty_table()
        return table if limit is None else table.slice(0, limit)

    def batches(
        self,
        endpoint: str,
        project: str = "default",
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        columns: Sequence[str] | None = None,
        after_file: int | None = None,
        through_file: int | None = None,
        ids: Collection[str] | None = None,
        batch_rows: int = _BATCH_ROWS,
    ) -> Iterator[pa.Table]:
        """Read predictions piece by piece, each at most ``batch_rows`` long; arguments as for ``scan``."""
        picked = None if ids is None else tuple(sorted(set(ids)))
        selection = Selection(endpoint, project, start, end, picked, after_file, through_file)
        yield from self._read(selection, columns, batch_rows)[1]

    def count(
        self,
        endpoint: str,
        project: str = "default",
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        after_file: int | None = None,
    ) -> int:
        """Count predictions; only files that lie across a boundary are opened."""
        selection = Selection(endpoint, project, start, end, None, after_file)
        total = 0
        for file in self._found(selection):
            where = selection.condition(file)
            total += file.rows if where is None else files.count(self._folder, file, where)
        return total

    def seal(
        self,
        *,
        record: Record,
        older_than: timedelta = timedelta(hours=1),
        max_rows: int = 100_000,
        endpoint: str | None = None,
        project: str | None = None,
    ) -> list[FileChange]:
        """Compact the open files that are due into sealed ones.

        Args:
            record: Called in each swapping transaction, to write its event.
            older_than: Age of an endpoint's oldest open file that makes it due.
            max_rows: Open rows that make it due at once, and after which a batch is closed.
            endpoint: Only this endpoint.
            project: Only this project.

        Returns:
            One change per sealed batch.

        Raises:
            Conflict: If another process sealed the same files meanwhile.
            Corrupted: If an open file is damaged; batches before it stay sealed.
            StorageFull: If there is no room.
        """
        with self._database.reading() as connection:
            opened = manifest.find(connection, project=project, endpoint=endpoint, states=(OPEN,))
        changes = []
        for batch in sealing.due(opened, before=self._now() - older_than, max_rows=max_rows):
            sealed = sealing.compact(self._folder, batch, new_id=self._new_id, now=self._now)
            change = change_of(added=sealed, removed=batch)
            # Should this fail, the sealed files are orphans for the sweep. They are not deleted here: a
            # commit whose answer was lost may have happened.
            with self._database.transaction() as tx:
                manifest.retire(tx, batch)
                manifest.insert(tx, sealed)
                record(tx, change)
            changes.append(change)
        return changes

    def retain(self, before: datetime, *, record: Record | None = None) -> list[FileChange]:
        """Retire the files whose rows all have an event time before ``before``.

        Args:
            before: Earliest event time to keep. A file that lies across it is kept whole.
            record: Called in the transaction, once per endpoint, to write its event.
        """
        with self._database.transaction() as tx:
            old = [file for file in manifest.find(tx.connection, end=before) if file.max_time < before]
            manifest.retire(tx, old)
            owners = sorted({(file.project, file.endpoint) for file in old})
            changes = [
                change_of(removed=tuple(file for file in old if (file.project, file.endpoint) == owner))
                for owner in owners
            ]
            if record is not None:
                for change in changes:
                    record(tx, change)
        return changes

    def sweep(
        self,
        *,
        grace: int = 2,
        orphan_age: timedelta = timedelta(hours=1),
        wall: Callable[[], float] = time.time,
    ) -> SweepReport:
        """Delete what nobody reads any more.

        Args:
            grace: Sweeps that a retired file survives, for readers that had begun.
            orphan_age: Age at which a file without a manifest row is taken for abandoned.
            wall: Seconds since 1970 by the clock of the file system.
        """
        oldest = wall() - orphan_age.total_seconds()
        return sweeping.sweep(self._database, self._folder, grace=grace, oldest=oldest)

    def verify(self, endpoint: str, project: str = "default") -> list[StoredFile]:
        """Compare every file of an endpoint with its digest, and return those that are damaged or gone."""
        bad = []
        for file in self.files(endpoint, project):
            try:
                files.verify(self._folder, file)
            except (Corrupted, Unavailable):
                bad.append(file)
        return bad

    def _stage_one(self, part: pa.Table) -> StoredFile:
        id = self._new_id()
        return files.write(
            self._folder,
            part,
            id=id,
            path=f"open/{id}.parquet",
            state=OPEN,
            numbers=(0, 0),
            created_at=self._now(),
        )

    def _found(self, selection: Selection) -> list[StoredFile]:
        with self._database.reading() as connection:
            return selection.find(connection)

    def _read(
        self, selection: Selection, columns: Sequence[str] | None, batch_rows: int
    ) -> tuple[pa.Schema, Iterator[pa.Table]]:
        found = self._found(selection)
        schema = scan.schema_of(found, columns)
        return schema, scan.read(self._folder, found, selection, schema, batch_rows=batch_rows)


def _by_endpoint(rows: pa.Table) -> Iterator[pa.Table]:
    """Split rows by project and endpoint."""
    pairs = rows.select(["project", "endpoint"]).group_by(["project", "endpoint"]).aggregate([])
    for pair in pairs.sort_by([("project", "ascending"), ("endpoint", "ascending")]).to_pylist():
        same_project = pc.equal(rows.column("project"), pair["project"])
        part = rows.filter(pc.and_(same_project, pc.equal(rows.column("endpoint"), pair["endpoint"])))
        # The features of other endpoints are empty columns here: these rows do not have them.
        empty = [
            name
            for name in part.column_names
            if name.startswith(FEATURE_PREFIX) and part.column(name).null_count == part.num_rows
        ]
        yield part.drop_columns(empty)

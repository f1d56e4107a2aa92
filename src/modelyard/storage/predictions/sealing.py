"""Compact open files into sealed ones, sorted by time, one file per hour, so that readers skip most."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from modelyard.storage.predictions import files, scan
from modelyard.storage.predictions.manifest import SEALED, StoredFile
from modelyard.storage.predictions.schema import FILE_NUMBER, PREDICTION_SCHEMA, cast, united
from modelyard.storage.ulid import NewId

_HOUR_US = 3_600_000_000
_DAY_HOURS = 24
# A file costs about a millisecond to open, as much as reading 10,000 rows of it: thinner hours share one.
_THIN_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class FileChange:
    """What one transaction did to the files of one endpoint: the content of its one event.

    Attributes:
        project: Project of the endpoint.
        endpoint: Name of the endpoint.
        rows: Predictions concerned.
        added: Files that count from now on, with their digests.
        removed: Files that no longer count.
    """

    project: str
    endpoint: str
    rows: int
    added: tuple[StoredFile, ...]
    removed: tuple[StoredFile, ...]


def due(opened: Sequence[StoredFile], *, before: datetime, max_rows: int) -> Iterator[tuple[StoredFile, ...]]:
    """Choose the open files to seal together.

    An endpoint is due when its open files hold ``max_rows``, or the oldest was written before ``before``.

    Args:
        opened: Open files of any endpoints.
        before: Wall-clock time.
        max_rows: Rows that make an endpoint due, and after which a batch is closed.

    Yields:
        Files of one endpoint in the order of their numbers, not much more than ``max_rows`` rows together.
    """
    ordered = sorted(opened, key=lambda file: (file.project, file.endpoint, file.first_number))
    for _, group in groupby(ordered, key=lambda file: (file.project, file.endpoint)):
        batch: list[StoredFile] = []
        rows = 0
        for file in group:
            batch.append(file)
            rows += file.rows
            if rows >= max_rows:
                yield tuple(batch)
                batch, rows = [], 0
        if batch and min(file.created_at for file in batch) < before:
            yield tuple(batch)


def compact(
    root: Path, opened: Sequence[StoredFile], *, new_id: NewId, now: Callable[[], datetime]
) -> tuple[StoredFile, ...]:
    """Write the rows of some open files of one endpoint as sealed files.

    Each source is compared with its digest first, so damage is never sealed in.

    Raises:
        Corrupted: If a source is damaged.
        StorageFull: If there is no room.
    """
    for file in opened:
        files.verify(root, file)
    features = united(file.features for file in opened)
    schema = pa.schema(
        [
            *PREDICTION_SCHEMA,
            *(pa.field(name, kind) for name, kind in features.items()),
            pa.field(FILE_NUMBER, pa.int64(), nullable=False),
        ]
    )
    parts = [
        cast(scan.numbered(part, file), schema, exact=False)
        for file in opened
        for part in files.read(root, file, columns=[*PREDICTION_SCHEMA.names, *file.features])
    ]
    table = pa.concat_tables(parts).sort_by([("time", "ascending"), ("prediction_id", "ascending")])
    return tuple(_write(root, part, folder, new_id=new_id, now=now()) for folder, part in _partitions(table))


def change_of(*, added: tuple[StoredFile, ...] = (), removed: tuple[StoredFile, ...]) -> FileChange:
    """Describe a change of at least one removed file, all of one endpoint."""
    return FileChange(
        project=removed[0].project,
        endpoint=removed[0].endpoint,
        rows=sum(file.rows for file in removed),
        added=added,
        removed=removed,
    )


def _partitions(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Split rows sorted by time into hours; the thin hours of a date come together as ``hour=all``."""
    hours = table.column("time").cast(pa.int64()).to_numpy() // _HOUR_US
    starts = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1))
    ends = np.append(starts[1:], len(hours))
    thin: dict[str, list[pa.Table]] = {}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        hour = int(hours[start])
        date = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=hour // _DAY_HOURS)).date().isoformat()
        part = table.slice(start, end - start)
        if part.num_rows < _THIN_ROWS:
            thin.setdefault(date, []).append(part)
        else:
            yield f"date={date}/hour={hour % _DAY_HOURS:02d}", part
    for date, parts in thin.items():
        yield f"date={date}/hour=all", pa.concat_tables(parts)


def _write(root: Path, part: pa.Table, folder: str, *, new_id: NewId, now: datetime) -> StoredFile:
    owner = "\0".join((part.column("project")[0].as_py(), part.column("endpoint")[0].as_py()))
    # Names come from people: only their digest ever becomes part of a path.
    safe = hashlib.sha256(owner.encode()).hexdigest()[:32]
    numbers = part.column(FILE_NUMBER).to_numpy()
    id = new_id()
    return files.write(
        root,
        part,
        id=id,
        path=f"sealed/endpoint={safe}/{folder}/{id}.parquet",
        state=SEALED,
        numbers=(int(numbers.min()), int(numbers.max())),
        created_at=now,
    )

"""Parquet files on disk: written whole and durably, read with their checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from modelyard.errors import Corrupted, Unavailable
from modelyard.storage.durable import write_whole
from modelyard.storage.predictions.manifest import StoredFile
from modelyard.storage.predictions.schema import feature_types

_ROW_GROUP = 65_536
_ZSTD_LEVEL = 3  # the default of zstd itself
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FILES = LocalFileSystem()
_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def write(
    root: Path,
    table: pa.Table,
    *,
    id: str,
    path: str,
    state: str,
    numbers: tuple[int, int],
    created_at: datetime,
) -> StoredFile:
    """Write a file under ``root`` and make it durable; it appears under its name only when it is whole.

    Args:
        root: The store's folder.
        table: Rows of one project and endpoint in the prediction schema, at least one.
        id: Id of the file.
        path: Where it goes, below ``root``.
        state: Its state in the manifest.
        numbers: Smallest and largest file number of its rows.
        created_at: Wall-clock time.

    Raises:
        StorageFull: If the disk is full.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        row_group_size=_ROW_GROUP,
        write_page_checksum=True,
    )
    content = sink.getvalue()
    write_whole(root / path, memoryview(content))
    times = pc.min_max(table.column("time").cast(pa.int64())).as_py()
    ids = pc.min_max(table.column("prediction_id")).as_py()
    return StoredFile(
        id=id,
        project=table.column("project")[0].as_py(),
        endpoint=table.column("endpoint")[0].as_py(),
        path=path,
        state=state,
        rows=table.num_rows,
        bytes=content.size,
        min_time=_time(times["min"]),
        max_time=_time(times["max"]),
        min_id=ids["min"],
        max_id=ids["max"],
        first_number=numbers[0],
        last_number=numbers[1],
        sha256=hashlib.sha256(content).hexdigest(),
        features=feature_types(table.schema),
        created_at=created_at,
    )


def read(
    root: Path, file: StoredFile, *, columns: list[str], where: Any = None, batch_rows: int = _ROW_GROUP
) -> Iterator[pa.Table]:
    """Read some columns of a file in pieces.

    Args:
        root: The store's folder.
        file: The file.
        columns: Columns that this file has.
        where: PyArrow dataset expression, pushed down to row groups; None for all rows.
        batch_rows: Most rows of a piece.

    Raises:
        Unavailable: If the file is gone.
        Corrupted: If its bytes are not those that were written.
    """
    try:
        fragment = _FORMAT.make_fragment(str(root / file.path), _FILES)
        for batch in fragment.to_batches(columns=columns, filter=where, batch_size=batch_rows):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])
    except FileNotFoundError as error:
        raise Unavailable(
            f"Prediction file {file.path} is gone: it was compacted while it was read, or deleted by hand. "
            "Try again; if it stays away, restore it from a backup."
        ) from error
    except (OSError, pa.ArrowInvalid) as error:
        raise damaged(file) from error


def count(root: Path, file: StoredFile, where: Any) -> int:
    """Count the rows of a file that satisfy a PyArrow dataset expression."""
    return sum(part.num_rows for part in read(root, file, columns=["time"], where=where))


def verify(root: Path, file: StoredFile) -> None:
    """Compare a whole file with its digest in the manifest.

    Raises:
        Corrupted: If it differs.
        Unavailable: If it is gone.
    """
    try:
        with (root / file.path).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise Unavailable(f"Prediction file {file.path} is gone. Restore it from a backup.") from error
    if found != file.sha256:
        raise damaged(file)


def listing(root: Path) -> dict[str, float]:
    """Return every file under ``open`` and ``sealed`` with its time of change in seconds since 1970."""
    found: dict[str, float] = {}
    for area in ("open", "sealed"):
        for folder, _, names in os.walk(root / area):
            for name in names:
                path = Path(folder, name)
                try:
                    found[path.relative_to(root).as_posix()] = path.stat().st_mtime
                except FileNotFoundError:
                    continue
    return found


def damaged(file: StoredFile) -> Corrupted:
    """Build the error for a file whose bytes have changed."""
    return Corrupted(
        f"Prediction file {file.path} is damaged: its bytes are not those that were written. Restore it from a backup.",
        path=file.path,
        sha256=file.sha256,
    )


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)

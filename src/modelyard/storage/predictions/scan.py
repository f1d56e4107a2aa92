"""Which rows to read, and reading them from the files that may hold them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from modelyard.errors import Invalid
from modelyard.storage.predictions import files, manifest
from modelyard.storage.predictions.manifest import OPEN, StoredFile
from modelyard.storage.predictions.schema import (
    FEATURE_PREFIX,
    FILE_NUMBER,
    PREDICTION_SCHEMA,
    cast,
    united,
)


@dataclass(frozen=True, slots=True)
class Selection:
    """The predictions of one endpoint that somebody wants.

    Attributes:
        endpoint: Name of the endpoint.
        project: Its project.
        start: Earliest event time, inclusive.
        end: Latest event time, exclusive.
        ids: Sorted, distinct prediction ids.
        after_file: Only rows of files numbered higher than this.
        through_file: Only rows of files numbered up to this.
    """

    endpoint: str
    project: str
    start: datetime | None = None
    end: datetime | None = None
    ids: tuple[str, ...] | None = None
    after_file: int | None = None
    through_file: int | None = None

    def find(self, connection: sa.Connection) -> list[StoredFile]:
        """Return the files that may hold such rows, by time and then by number."""
        found = manifest.find(
            connection,
            project=self.project,
            endpoint=self.endpoint,
            start=self.start,
            end=self.end,
            after_file=self.after_file,
            through_file=self.through_file,
        )
        return [file for file in found if self.ids is None or self._ids_in(file)]

    def condition(self, file: StoredFile) -> Any:
        """Return the PyArrow expression that picks the rows out of a file, or None if all its rows fit."""
        parts = []
        if self.start is not None and file.min_time < self.start:
            parts.append(pc.field("time") >= _moment(self.start))
        if self.end is not None and file.max_time >= self.end:
            parts.append(pc.field("time") < _moment(self.end))
        if self.ids is not None:
            parts.append(pc.field("prediction_id").isin(pa.array(self._ids_in(file), pa.string())))
        # An open file has one number for all its rows, and was chosen by it.
        if self.after_file is not None and file.first_number <= self.after_file:
            parts.append(pc.field(FILE_NUMBER) > self.after_file)
        if self.through_file is not None and file.last_number > self.through_file:
            parts.append(pc.field(FILE_NUMBER) <= self.through_file)
        if not parts:
            return None
        where = parts[0]
        for part in parts[1:]:
            where = where & part
        return where

    def _ids_in(self, file: StoredFile) -> tuple[str, ...]:
        ids = self.ids or ()
        first = bisect_left(ids, file.min_id)
        behind = bisect_left(ids, file.max_id)
        return ids[first : behind + (behind < len(ids) and ids[behind] == file.max_id)]


def schema_of(found: Sequence[StoredFile], columns: Sequence[str] | None) -> pa.Schema:
    """Return the schema that these files have together, or of the asked columns.

    Raises:
        Invalid: If a column is neither of the prediction schema nor named like a feature.
    """
    features = united(file.features for file in found)
    known = {field.name: field for field in PREDICTION_SCHEMA}
    known[FILE_NUMBER] = pa.field(FILE_NUMBER, pa.int64(), nullable=False)
    if columns is None:
        return pa.schema([*PREDICTION_SCHEMA, *(pa.field(name, kind) for name, kind in features.items())])
    unknown = [name for name in columns if name not in known and not name.startswith(FEATURE_PREFIX)]
    if unknown:
        raise Invalid(f"Predictions have no column {unknown[0]!r}.", columns=unknown, known=sorted(known))
    return pa.schema([known.get(name) or pa.field(name, features.get(name, pa.null())) for name in columns])


def read(
    root: Path, found: Sequence[StoredFile], selection: Selection, schema: pa.Schema, *, batch_rows: int
) -> Iterator[pa.Table]:
    """Read the selected rows of these files in pieces of at most ``batch_rows``, all in one schema."""
    for file in found:
        present = {*PREDICTION_SCHEMA.names, *file.features, *([] if file.state == OPEN else [FILE_NUMBER])}
        columns = [name for name in schema.names if name in present] or ["time"]
        where = selection.condition(file)
        for part in files.read(root, file, columns=columns, where=where, batch_rows=batch_rows):
            yield cast(numbered(part, file), schema, exact=False)


def numbered(part: pa.Table, file: StoredFile) -> pa.Table:
    """Give the rows of an open file their number; those of a sealed one carry it if it was asked for."""
    if file.state != OPEN:
        return part
    number = pa.array([file.first_number], pa.int64()).take(pa.array([0] * part.num_rows, pa.int32()))
    return part.append_column(FILE_NUMBER, number)


def _moment(time: datetime) -> pa.Scalar:
    return pa.scalar(time, pa.timestamp("us", tz="UTC"))

"""Prediction rows as the guard sees them: the arms of one rollout, in arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("prediction_id", "version", "variant", "role", "time", "score", "latency_us", "status", "file_number")

CONTROL = "control"
CANARY = "canary"
PINNED = "pinned"

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some predictions of an endpoint; every array has one entry a row.

    Attributes:
        canary: Whether the new version answered.
        pinned: Whether the client chose the version: such rows are no random sample of the traffic.
        time_us: Event time, microseconds since 1970.
        score: Score; NaN where there is none.
        latency_us: Time in the worker.
        failed: Whether the version failed on the row.
    """

    canary: BoolArray
    pinned: BoolArray
    time_us: IntArray
    score: FloatArray
    latency_us: IntArray
    failed: BoolArray

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.canary.size)

    def only(self, mask: BoolArray) -> Rows:
        """Return the rows where the mask is true."""
        return Rows(
            self.canary[mask],
            self.pinned[mask],
            self.time_us[mask],
            self.score[mask],
            self.latency_us[mask],
            self.failed[mask],
        )

    def slice(self, start: int, stop: int) -> Rows:
        """Return some consecutive rows."""
        chosen = np.zeros(self.count, dtype=np.bool_)
        chosen[start:stop] = True
        return self.only(chosen)


def read_rows(table: pa.Table, *, version: int, control: int | None) -> Rows:
    """Take the rows of the two versions out of scanned predictions, in the order of their files and times.

    Rows of shadows and of other versions (a champion before a rollback) are left out: the control arm is
    concurrent, never history.

    Args:
        table: The columns ``COLUMNS``.
        version: The new version.
        control: The control's version.
    """
    import pyarrow.compute as pc

    order = [(name, "ascending") for name in ("file_number", "time", "prediction_id")]
    ordered = table.take(pc.sort_indices(table, sort_keys=order)) if table.num_rows else table
    versions = _numbers(ordered, "version", -1)
    roles = np.asarray(ordered["role"].to_pylist(), dtype=object)
    status = np.asarray(ordered["status"].to_pylist(), dtype=object)
    wanted = np.isin(versions, [version, -2 if control is None else control])
    wanted &= np.isin(roles, [CONTROL, CANARY, PINNED])
    rows = Rows(
        canary=versions == version,
        pinned=roles == PINNED,
        time_us=_numbers(ordered, "time", 0),
        score=ordered["score"].cast("float64").fill_null(np.nan).to_numpy().astype(np.float64),
        latency_us=_numbers(ordered, "latency_us", 0),
        failed=np.array([value is not None and value != "ok" for value in status], dtype=np.bool_),
    )
    return rows.only(np.asarray(wanted, dtype=np.bool_))


def _numbers(table: pa.Table, name: str, absent: int) -> IntArray:
    import pyarrow as pa

    column = table[name]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz="UTC"))
    return np.asarray(column.cast("int64").fill_null(absent).to_numpy(), dtype=np.int64)

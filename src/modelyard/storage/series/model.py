"""A stretch of a metric's history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid


@dataclass(frozen=True, slots=True)
class Points:
    """Points of one series, each a step, a time and a value.

    Attributes:
        steps: Shape ``(n,)``.
        times: Shape ``(n,)``, microseconds since 1970.
        values: Shape ``(n,)``; NaN and infinities are values like any other.
    """

    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, which: slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Points:
        """Return some of the points."""
        return Points(self.steps[which], self.times[which], self.values[which])


def points(steps: npt.ArrayLike, times: npt.ArrayLike, values: npt.ArrayLike) -> Points:
    """Make points of any sequences of equal length.

    Raises:
        Invalid: If the lengths differ, or steps and times are not whole numbers of 64 bits.
    """
    columns = (np.asarray(steps), np.asarray(times), np.asarray(values, dtype=np.float64))
    if any(column.ndim != 1 or len(column) != len(columns[0]) for column in columns):
        raise Invalid("Steps, times and values of a series must be flat and of equal length.")
    whole = []
    for column in columns[:2]:
        if len(column) and (column.dtype.kind not in "iu" or column.dtype == np.uint64):
            raise Invalid("Steps and times of a series must be whole numbers of 64 bits with a sign.")
        whole.append(column.astype(np.int64))
    return Points(whole[0], whole[1], columns[2])


def joined(parts: list[Points]) -> Points:
    """Put stretches one behind the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return points([], [], [])
    return Points(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.values for part in parts]),
    )

"""Thin a long series out for drawing without losing a peak."""

from __future__ import annotations

import numpy as np

from modelyard.storage.series.model import Points


def sample(points: Points, limit: int) -> Points:
    """Keep at most ``limit`` points: the first, the last, and the extremes of equal stretches between.

    Each stretch keeps its smallest and its largest value; one of nothing but NaN keeps its first point.

    Args:
        points: Shape ``(n,)``, in drawing order.
        limit: At least 4.

    Returns:
        The kept points in their order; all of them if there are no more than ``limit``.

    Source:
        Jugel et al. (2014), M4: A Visualization-Oriented Time Series Data Aggregation, section 4.2 (MinMax).
        Deviation: the first and last point of the series are kept, not those of every stretch.
    """
    size = len(points)
    if size <= limit:
        return points
    buckets = (limit - 2) // 2
    bounds = np.linspace(1, size - 1, buckets + 1).astype(np.int64)
    width = int(np.diff(bounds).max())
    # One row per stretch; the short ones repeat their last point.
    index = np.minimum(bounds[:-1, None] + np.arange(width), bounds[1:, None] - 1)
    values = points.values[index]
    missing = np.isnan(values)
    rows = np.arange(buckets)
    lowest = index[rows, np.where(missing, np.inf, values).argmin(axis=1)]
    highest = index[rows, np.where(missing, -np.inf, values).argmax(axis=1)]
    ends = np.array([0, size - 1], dtype=np.int64)
    return points[np.unique(np.concatenate([ends, lowest, highest]))]

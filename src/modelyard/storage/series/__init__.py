"""Metric history: steps, times and values in compressed chunks, exact to the bit."""

from modelyard.storage.series.model import Points, points
from modelyard.storage.series.store import SeriesStore

__all__ = ["Points", "SeriesStore", "points"]

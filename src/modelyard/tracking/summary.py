"""Metric summaries: count, last, minimum and maximum of points, merged batch by batch."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from modelyard.tracking.batch import Points
from modelyard.tracking.model import MetricSummary

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_us(microseconds: int) -> datetime:
    """Return the aware UTC time of microseconds since 1970; times outside the calendar are moved to its ends."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if microseconds > 0 else datetime.min.replace(tzinfo=UTC)


def to_us(time: datetime) -> int:
    """Return microseconds since 1970 of an aware time."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def summarise(key: str, points: Points) -> MetricSummary:
    """Summarise at least one point.

    >>> summarise("loss", Points([0, 1], [0, 0], [0.5, 0.25])).last
    0.25
    """
    rows = list(zip(points.steps, points.times_us, points.values, strict=True))
    last = max(rows, key=lambda row: (row[0], row[1], _low(row[2])))
    lowest = min(rows, key=lambda row: _high(row[2]))
    highest = max(rows, key=lambda row: _low(row[2]))
    return MetricSummary(
        key=key,
        count=len(rows),
        last=last[2],
        last_step=last[0],
        last_at=from_us(last[1]),
        minimum=lowest[2],
        minimum_step=lowest[0],
        maximum=highest[2],
        maximum_step=highest[0],
    )


def merge(before: MetricSummary | None, new: MetricSummary) -> MetricSummary:
    """Return the summary of the points of both."""
    if before is None:
        return new
    latest = max(before, new, key=lambda each: (each.last_step, each.last_at, _low(each.last)))
    lowest = min(before, new, key=lambda each: _high(each.minimum))
    highest = max(before, new, key=lambda each: _low(each.maximum))
    return MetricSummary(
        key=new.key,
        count=before.count + new.count,
        last=latest.last,
        last_step=latest.last_step,
        last_at=latest.last_at,
        minimum=lowest.minimum,
        minimum_step=lowest.minimum_step,
        maximum=highest.maximum,
        maximum_step=highest.maximum_step,
    )


def _low(value: float) -> tuple[bool, float]:
    # NaN loses every maximum, and the infinities keep their place.
    return (not math.isnan(value), 0.0 if math.isnan(value) else value)


def _high(value: float) -> tuple[bool, float]:
    return (math.isnan(value), 0.0 if math.isnan(value) else value)

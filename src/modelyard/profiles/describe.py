"""What a profile says in plain numbers: quantiles, and a JSON form for pages and documents."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.errors import Invalid
from modelyard.profiles.distances import NotOrdered
from modelyard.profiles.model import ColumnProfile, TableProfile, cell_borders
from modelyard.profiles.spec import ORDERED

SHOWN_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Quantiles in the JSON form."""


def quantile(profile: ColumnProfile, probability: float) -> float | None:
    """Estimate a quantile of an ordered column from its bins.

    Args:
        profile: Profile of a numeric or datetime column.
        probability: In [0, 1].

    Returns:
        The value below which that share of values lies, in the column's unit (microseconds since 1970 for
        datetime); linear within a bin, so within one bin of the exact one, and exact at 0 and 1 when no
        value is extreme. None without a value.

    Raises:
        Invalid: If the probability is outside [0, 1].
        NotOrdered: If the column is categorical or boolean.
    """
    if profile.spec.kind not in ORDERED:
        raise NotOrdered(profile.spec.name, profile.spec.kind, "quantile")
    if not 0.0 <= probability <= 1.0:
        raise Invalid(f"A probability lies between 0 and 1, not at {probability}.", probability=probability)
    if not profile.n or profile.minimum is None or profile.maximum is None:
        return None
    counts = profile.cells()
    nodes = np.clip(cell_borders(profile), profile.minimum, profile.maximum)
    reached = np.cumsum(counts)
    target = probability * profile.n
    # The first cell that reaches the target and holds a value; rounding must not run past the last.
    cell = int(np.argmax((reached >= target) & (counts > 0))) if target < profile.n else -1
    if cell < 0:
        return profile.maximum
    part = (target - (reached[cell] - counts[cell])) / counts[cell]
    return float(nodes[cell] + part * (nodes[cell + 1] - nodes[cell]))


def describe(profile: ColumnProfile) -> dict[str, Any]:
    """Return a column's profile as JSON-compatible values, for display; it cannot be read back.

    Returns:
        Name, kind, counts and rates; mean, sd, minimum, maximum, quantiles and edges for ordered columns;
        levels with counts, most frequent first, for categorical ones. Times are in microseconds since
        1970 UTC.
    """
    shown: dict[str, Any] = {
        "name": profile.spec.name,
        "kind": profile.spec.kind,
        "rows": profile.rows,
        "n": profile.n,
        "null": profile.null,
        "other": profile.other,
        "null_rate": profile.null_rate,
        "other_rate": profile.other_rate,
        "distinct": round(profile.distinct),
    }
    if profile.spec.kind == "categorical":
        return shown | _describe_levels(profile)
    shown |= {"counts": list(profile.counts), "mean": profile.mean, "sd": profile.sd}
    return shown | _describe_order(profile) if profile.spec.kind in ORDERED else shown


def describe_table(profile: TableProfile) -> dict[str, Any]:
    """Return a table's profile as JSON-compatible values, for display."""
    return {
        "spec": profile.spec.digest,
        "rows": profile.rows,
        "extra_columns": list(profile.extra_columns),
        "columns": [describe(column) for column in profile.columns.values()],
    }


def _describe_levels(profile: ColumnProfile) -> dict[str, Any]:
    levels = zip(profile.spec.levels, profile.counts, strict=True)
    ranked = sorted(levels, key=lambda pair: (-pair[1], pair[0]))
    return {
        "levels": [{"level": level, "count": count} for level, count in ranked],
        "unseen": [{"level": level.label, "count": level.count} for level in profile.unseen],
    }


def _describe_order(profile: ColumnProfile) -> dict[str, Any]:
    return {
        "under": profile.under,
        "over": profile.over,
        "extreme": profile.extreme,
        "fractional": profile.fractional,
        "minimum": profile.minimum,
        "maximum": profile.maximum,
        "low": profile.spec.low,
        "high": profile.spec.high,
        "edges": list(profile.spec.edges),
        "quantiles": {str(p): quantile(profile, p) for p in SHOWN_QUANTILES},
    }

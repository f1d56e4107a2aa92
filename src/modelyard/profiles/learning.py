"""Learns how to count a table from reference data: kinds, quantile bins, known levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from numbers import Real

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.profiles.columns import Column, is_missing, levels_of, numbers_of, times_of
from modelyard.profiles.exact import LIMIT
from modelyard.profiles.inputs import read_columns
from modelyard.profiles.spec import ColumnSpec, Kind, TableSpec

BINS = 32
"""31 inner quantile edges; a binned KS statistic is then within 1/32 of the exact one."""

MAX_LEVELS = 100
"""Levels counted apart; also the largest domain that a learned constraint lists."""

_KIND_OF_DTYPE: dict[str, Kind] = {
    "f": "numeric",
    "i": "numeric",
    "u": "numeric",
    "b": "boolean",
    "M": "datetime",
}


def learn_specs(
    table: object,
    *,
    kinds: Mapping[str, Kind] | None = None,
    bins: int = BINS,
    max_levels: int = MAX_LEVELS,
) -> TableSpec:
    """Learn from reference data how its columns are counted from now on.

    Numeric and datetime columns get bins that hold about equal shares of the reference. A value that
    holds two shares or more gets a bin of its own, so that more or fewer zeros can be seen; a column with
    few different values gets one bin for each (and, up to half as many values as bins, one for each gap
    between them).

    Args:
        table: Reference rows, at least one column; any type that ``profile`` takes.
        kinds: Kinds that the data types do not tell, for example an integer code that is a category.
        bins: Most bins per ordered column, at least 2.
        max_levels: Most levels counted apart, the most frequent ones; at least 1.

    Returns:
        One specification per column, in table order.

    Raises:
        Invalid: If the data is no table, or ``kinds`` names a column that it does not have.
    """
    if bins < 2 or max_levels < 1:
        raise Invalid("A profile needs at least two bins and one level.", bins=bins, max_levels=max_levels)
    wanted = dict(kinds or {})
    columns = read_columns(table).columns
    unknown = sorted(set(wanted) - set(columns))
    if unknown:
        raise Invalid(f"kinds names columns that the table does not have: {', '.join(unknown)}.", columns=unknown)
    return TableSpec(
        tuple(
            learn_column(name, column, kind=wanted.get(name), bins=bins, max_levels=max_levels)
            for name, column in columns.items()
        )
    )


def learn_column(
    name: str, column: Column, *, kind: Kind | None = None, bins: int = BINS, max_levels: int = MAX_LEVELS
) -> ColumnSpec:
    """Learn how one column is counted; arguments as ``learn_specs``."""
    kind = kind or infer_kind(column)
    if kind == "categorical":
        counts, _ = levels_of(column)
        ranked = sorted(counts, key=lambda label: (-counts[label], label))
        return ColumnSpec(name, kind, levels=tuple(ranked[:max_levels]))
    if kind == "boolean":
        return ColumnSpec(name, kind)
    found = times_of(column) if kind == "datetime" else numbers_of(column)
    values = np.sort(found.values[np.abs(found.values) < LIMIT])
    if not len(values):
        return ColumnSpec(name, kind)
    edges = quantile_edges(values, bins)
    low, high = float(values[0]), float(values[-1])
    return ColumnSpec(name, kind, edges, low, high, float(values[len(values) // 2]))


def infer_kind(column: Column) -> Kind:
    """Tell a column's kind from its type; a column of several types goes by the most frequent one.

    Text is a category even where it could be read as a time, and a column without values is numeric.
    """
    if column.labels is not None:
        return "categorical"
    dtype = column.values.dtype.kind
    if dtype != "O":
        return _KIND_OF_DTYPE[dtype]
    tally = Counter(_kind_of(value) for value in column.values if not is_missing(value))
    ranked = sorted(tally, key=lambda kind: (-tally[kind], kind))
    return ranked[0] if ranked else "numeric"


def _kind_of(value: object) -> Kind:
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, Real | Decimal):
        return "numeric"
    return "datetime" if isinstance(value, date | np.datetime64) else "categorical"


def quantile_edges(values: npt.NDArray[np.float64], bins: int) -> tuple[float, ...]:
    """Choose inner bin edges for reference values.

    Args:
        values: Shape (n,), n >= 1, finite, sorted ascending.
        bins: Most bins.

    Returns:
        At most ``bins - 1`` edges, strictly increasing, above the smallest value, at most the largest.
    """
    different = values[np.flatnonzero(np.diff(values, prepend=-np.inf))]
    if len(different) <= bins // 2:
        picks, alone = different, np.ones(len(different), dtype=bool)
    elif len(different) <= bins:
        picks, alone = different, np.zeros(len(different), dtype=bool)
    else:
        # Ranks of the empirical inverse distribution function: every edge is a value of the data.
        ranks = -(-len(values) * np.arange(1, bins) // bins) - 1
        picks, repeats = np.unique(values[ranks], return_counts=True)
        alone = repeats > 1
    # A value that swallowed several quantiles is closed right above itself; the quantiles that it
    # swallowed leave room for that edge.
    edges = np.unique(np.concatenate([picks, np.nextafter(picks[alone], np.inf)]))
    return tuple(edges[(edges > values[0]) & (edges <= values[-1])].tolist())

"""Counts rows into profiles: the only code that reads raw values.

Large columns are counted by comparing cache-sized chunks with each edge, which vectorises; small batches
by binary search. Both give the same counts (``benchmarks/profiles.py`` shows where they cross).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from modelyard.profiles import distinct
from modelyard.profiles.columns import Column, Numbers, levels_of, numbers_of, times_of, truths_of
from modelyard.profiles.exact import CHUNK, LIMIT, add_parts, sum_parts
from modelyard.profiles.inputs import read_columns
from modelyard.profiles.model import ColumnProfile, TableProfile, Unseen, first_names, keep_unseen
from modelyard.profiles.spec import ColumnSpec, TableSpec

SEARCH_BELOW = 4096
"""Rows below which binary search beats comparing with every edge; measured by ``benchmarks/profiles.py``."""

LABEL_KEPT = 64
"""Characters kept of the name of an unknown level; its hash covers all."""


def profile(data: object, spec: TableSpec) -> TableProfile:
    """Summarise rows.

    Args:
        data: Arrow Table or RecordBatch, pandas or Polars DataFrame, numpy structured array, dict of
            columns, list of dicts, or ``Columns``.
        spec: How to count, from ``learn_specs``. A specified column that the data lacks counts as missing
            in every row; a column that the specification lacks is only named.

    Returns:
        The profile; profiles of parts of the rows merge to the profile of all of them, bit for bit.

    Raises:
        Invalid: If the data is no table, column names repeat, or columns differ in length.

    >>> from modelyard.profiles import learn_specs
    >>> spec = learn_specs({"age": [31, 45, 28]})
    >>> profile([{"age": 31}, {"age": None}, {"age": "old"}], spec)["age"].other
    1
    """
    names = [column.name for column in spec]
    table = read_columns(data, names)
    columns = {column.name: profile_column(table.columns.get(column.name), column, rows=table.rows) for column in spec}
    extra = set(table.columns).union(table.unread).difference(names)
    return TableProfile(spec, table.rows, columns, first_names(extra))


def profile_column(column: Column | None, spec: ColumnSpec, *, rows: int) -> ColumnProfile:
    """Summarise one column; None stands for a column that the data lacks."""
    if column is None:
        column = Column(np.full(rows, np.nan))
    if spec.kind == "categorical":
        counts, null = levels_of(column)
        return _profile_levels(counts, spec, null=null)
    if spec.kind == "boolean":
        false, true, null, other = truths_of(column)
        return ColumnProfile(spec, (false, true), null=null, other=other)
    return _profile_numbers(times_of(column) if spec.kind == "datetime" else numbers_of(column), spec)


def _profile_levels(found: Mapping[str, int], spec: ColumnSpec, *, null: int) -> ColumnProfile:
    counts = tuple(found.get(level, 0) for level in spec.levels)
    unknown = set(found).difference(spec.levels)
    hashes = {label: distinct.label_hash(label) for label in found}
    bits = np.fromiter(hashes.values(), dtype=np.uint64, count=len(hashes))
    return ColumnProfile(
        spec,
        counts,
        null=null,
        other=sum(found[label] for label in unknown),
        registers=distinct.sketch(bits),
        unseen=keep_unseen(Unseen(hashes[name], name[:LABEL_KEPT], found[name]) for name in unknown),
    )


def _profile_numbers(numbers: Numbers, spec: ColumnSpec) -> ColumnProfile:
    values = numbers.values
    under, *counts, over = count_cells(values, spec)
    registers = distinct.sketch(distinct.number_bits(values, numbers.patterns))
    usual = values
    if len(values) and max(float(values.max()), -float(values.min())) >= LIMIT:
        usual = values[np.abs(values) < LIMIT]
    total: list[float] = []
    squares: list[float] = []
    fractional = _add_moments(usual, spec.centre, total=total, squares=squares)
    return ColumnProfile(
        spec,
        tuple(counts),
        under=under,
        over=over,
        null=numbers.null,
        other=numbers.other,
        extreme=len(values) - len(usual),
        fractional=fractional if spec.kind == "numeric" else 0,
        total=sum_parts(total),
        squares=sum_parts(squares),
        minimum=float(usual.min()) if len(usual) else None,
        maximum=float(usual.max()) if len(usual) else None,
        registers=registers,
    )


def count_cells(values: npt.NDArray[np.float64], spec: ColumnSpec) -> list[int]:
    """Count values below, in each bin, and above.

    Args:
        values: Shape (n,), without NaN; may be infinite.
        spec: Specification of an ordered column with B bins.

    Returns:
        B + 2 counts that add up to n.
    """
    if spec.low is None or spec.high is None:
        return [0, len(values), 0]
    limits = np.array([spec.low, *spec.edges, np.nextafter(spec.high, np.inf)])
    if len(values) < SEARCH_BELOW:
        cells = np.searchsorted(limits, values, side="right")
        tally: list[int] = np.bincount(cells, minlength=len(limits) + 1).tolist()
        return tally
    reached = [len(values), *count_reaching(values, limits), 0]
    return [a - b for a, b in zip(reached, reached[1:], strict=False)]


def count_reaching(values: npt.NDArray[np.float64], limits: npt.NDArray[np.float64]) -> list[int]:
    """Count, for each limit, the values at or above it."""
    reached = [0] * len(limits)
    flags = np.empty(CHUNK, dtype=bool)
    bounds = limits.tolist()
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK]
        hit = flags[: len(chunk)]
        for i, bound in enumerate(bounds):
            np.greater_equal(chunk, bound, out=hit)
            reached[i] += int(np.count_nonzero(hit))
    return reached


def _add_moments(values: npt.NDArray[np.float64], centre: float, *, total: list[float], squares: list[float]) -> int:
    """Append parts of the exact sums of values and centred squares; return how many are no integers."""
    size = min(CHUNK, len(values))
    work, scratch = np.empty(size), np.empty(size)
    fractional = 0
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK]
        piece = work[: len(chunk)]
        np.trunc(chunk, out=piece)
        fractional += int(np.count_nonzero(piece != chunk))
        np.copyto(piece, chunk)
        add_parts(total, piece, scratch)
        np.subtract(chunk, centre, out=piece)
        np.multiply(piece, piece, out=piece)
        add_parts(squares, piece, scratch)
    return fractional

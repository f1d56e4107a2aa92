"""Profiles: what is kept of a set of rows, and how two sets add.

Every part is an integer, a minimum, a maximum or an exact sum, so merging any grouping of the rows in any
order gives the profile of all rows, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from modelyard.profiles import distinct
from modelyard.profiles.exact import ExactSum
from modelyard.profiles.spec import ORDERED, ColumnSpec, EdgesDiffer, TableSpec

UNSEEN_KEPT = 20
"""Unknown levels kept by name, per column; enough for an alert to name them."""

EXTRA_KEPT = 100
"""Names kept of columns that the specification does not know."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """A level that the reference did not hold, with its exact count.

    Attributes:
        hash: 64-bit hash of the whole name.
        label: The name, cut to 64 characters.
        count: Rows that hold it.
    """

    hash: int
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """Summary of one column over a set of rows.

    Attributes:
        spec: What was counted; profiles add and compare only under one specification.
        counts: One count per bin (ordered), per level (categorical), or for false and true (boolean).
        under: Values below the reference minimum, minus infinity among them.
        over: Values above the reference maximum, infinity among them.
        null: Missing values; NaN and NaT are missing.
        other: Categorical: values that are no known level. Other kinds: values of the wrong type, such as
            text in a numeric column.
        extreme: Numbers left out of the moments (infinite or at least 2**500 in size); each is also
            counted in its bin, in ``under`` or in ``over``.
        fractional: Numbers that are no integers (numeric columns).
        total: Exact sum of the values, each first rounded to float64.
        squares: Exact sum of the float64 squares of (value - ``spec.centre``).
        minimum: Smallest value that is not extreme; None without one.
        maximum: Largest value that is not extreme; None without one.
        registers: HyperLogLog of the values; empty for boolean columns.
        unseen: Up to 20 unknown levels of a categorical column: those with the smallest hashes, so a
            sample that is the same however rows were grouped, and their counts are exact.
    """

    spec: ColumnSpec
    counts: tuple[int, ...]
    under: int = 0
    over: int = 0
    null: int = 0
    other: int = 0
    extreme: int = 0
    fractional: int = 0
    total: ExactSum = field(default_factory=ExactSum)
    squares: ExactSum = field(default_factory=ExactSum)
    minimum: float | None = None
    maximum: float | None = None
    registers: bytes = b""
    unseen: tuple[Unseen, ...] = ()

    @property
    def n(self) -> int:
        """Values counted: neither missing nor of the wrong type."""
        unknown = self.other if self.spec.kind == "categorical" else 0
        return self.under + sum(self.counts) + self.over + unknown

    @property
    def rows(self) -> int:
        """Rows seen, whatever they held."""
        return self.under + sum(self.counts) + self.over + self.null + self.other

    @property
    def null_rate(self) -> float | None:
        """Share of rows without a value, in [0, 1]; None without rows."""
        return self.null / self.rows if self.rows else None

    @property
    def other_rate(self) -> float | None:
        """Share of rows with an unknown level or a value of the wrong type, in [0, 1]; None without rows."""
        return self.other / self.rows if self.rows else None

    @property
    def mean(self) -> float | None:
        """Mean of the values that are not extreme; share of true for boolean. None without one.

        The exact sum is divided and rounded once.
        """
        n = self.n - self.extreme
        if not n or self.spec.kind == "categorical":
            return None
        if self.spec.kind == "boolean":
            return self.counts[1] / n
        return float(self.total.fraction() / n)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n - 1) of the values that are not extreme; None below two values."""
        n = self.n - self.extreme
        if n < 2 or self.spec.kind == "categorical":
            return None
        if self.spec.kind == "boolean":
            return math.sqrt(self.counts[0] * self.counts[1] / (n * (n - 1)))
        shift = self.total.fraction() - n * Fraction(self.spec.centre)
        spread = self.squares.fraction() - shift * shift / n
        return math.sqrt(max(0.0, float(spread / (n - 1))))

    @property
    def distinct(self) -> float:
        """Estimated number of different values; exact while a categorical column has few unknown levels."""
        known = sum(count > 0 for count in self.counts)
        if self.spec.kind == "boolean":
            return float(known)
        if self.spec.kind == "categorical" and len(self.unseen) < UNSEEN_KEPT:
            return float(known + len(self.unseen))
        return distinct.estimate(self.registers)

    def cells(self, *, missing: bool = False) -> npt.NDArray[np.int64]:
        """Return the counts that distances compare, in order.

        Args:
            missing: Also end with the missing values and, unless categorical, those of the wrong type.

        Returns:
            Shape (cells,). Ordered columns: under, bins, over. Categorical: levels, unknown levels.
            Boolean: false, true.
        """
        kind = self.spec.kind
        cells = [self.under, *self.counts, self.over] if kind in ORDERED else list(self.counts)
        if kind == "categorical":
            cells.append(self.other)
        if missing:
            cells += [self.null] if kind == "categorical" else [self.null, self.other]
        return np.array(cells, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class TableProfile:
    """Summary of a set of rows.

    Attributes:
        spec: What was counted.
        rows: Rows seen.
        columns: One profile per specified column, in its order.
        extra_columns: Sorted names of columns that the specification does not know, at most 100.
    """

    spec: TableSpec
    rows: int
    columns: dict[str, ColumnProfile]
    extra_columns: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> ColumnProfile:
        """Return one column's profile; KeyError if there is none."""
        return self.columns[name]


def empty(spec: TableSpec) -> TableProfile:
    """Return the profile of no rows, which adds to any profile without changing it."""
    return TableProfile(spec, 0, {column.name: empty_column(column) for column in spec})


def empty_column(spec: ColumnSpec) -> ColumnProfile:
    """Return the profile of a column without rows."""
    registers = b"" if spec.kind == "boolean" else distinct.EMPTY
    return ColumnProfile(spec, (0,) * spec.bins, registers=registers)


def merge(a: TableProfile, b: TableProfile) -> TableProfile:
    """Return the profile of both sets of rows together; exact, commutative and associative.

    Raises:
        EdgesDiffer: If the profiles were made with different specifications.
    """
    if a.spec.digest != b.spec.digest:
        raise EdgesDiffer("two tables", left=a.spec.digest[:12], right=b.spec.digest[:12])
    columns = {name: merge_columns(column, b.columns[name]) for name, column in a.columns.items()}
    return TableProfile(a.spec, a.rows + b.rows, columns, first_names((*a.extra_columns, *b.extra_columns)))


def merge_columns(a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    """Return the profile of both sets of values together.

    Raises:
        EdgesDiffer: If the profiles were made with different specifications.
    """
    check_same_spec(a, b)
    return ColumnProfile(
        a.spec,
        tuple(map(int.__add__, a.counts, b.counts)),
        under=a.under + b.under,
        over=a.over + b.over,
        null=a.null + b.null,
        other=a.other + b.other,
        extreme=a.extreme + b.extreme,
        fractional=a.fractional + b.fractional,
        total=a.total + b.total,
        squares=a.squares + b.squares,
        minimum=_lowest(a.minimum, b.minimum),
        maximum=_highest(a.maximum, b.maximum),
        registers=distinct.merge_sketches(a.registers, b.registers),
        unseen=keep_unseen((*a.unseen, *b.unseen)),
    )


def check_same_spec(a: ColumnProfile, b: ColumnProfile) -> None:
    """Raise EdgesDiffer unless both profiles count in the same bins or levels."""
    if a.spec is not b.spec and a.spec != b.spec:
        left, right = (f"{p.spec.name}: {p.spec.kind}, {p.spec.bins} bins" for p in (a, b))
        raise EdgesDiffer(f"column {a.spec.name!r}", left=left, right=right)


def cell_borders(*profiles: ColumnProfile) -> npt.NDArray[np.float64]:
    """Return the borders of the cells of an ordered column that is not empty.

    Args:
        *profiles: Profiles of one specification; their extremes close the outer cells.

    Returns:
        Shape (B + 3,), ascending: smallest value, low, inner edges, high, largest value.
    """
    spec = profiles[0].spec
    seen = [x for p in profiles for x in (p.minimum, p.maximum) if x is not None]
    bounds = [x for x in (spec.low, spec.high) if x is not None] or seen or [0.0]
    low, high = bounds[0], bounds[-1]
    return np.array([min(low, *seen, low), low, *spec.edges, high, max(high, *seen, high)])


def keep_unseen(found: Iterable[Unseen]) -> tuple[Unseen, ...]:
    """Add up counts by hash and keep the smallest hashes.

    A level among the 20 smallest hashes of all rows is among the 20 smallest of every part that holds it,
    so nothing of its count is ever dropped.
    """
    kept: dict[int, Unseen] = {}
    for level in found:
        known = kept.get(level.hash)
        if known is None:
            kept[level.hash] = level
        else:
            label = min(known.label, level.label)
            kept[level.hash] = Unseen(level.hash, label, known.count + level.count)
    return tuple(kept[key] for key in sorted(kept)[:UNSEEN_KEPT])


def first_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the first distinct names in sorted order, bounded; merging keeps them exact."""
    return tuple(sorted(set(names))[:EXTRA_KEPT])


def _lowest(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def _highest(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)

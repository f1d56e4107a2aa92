"""What a profile counts in: the kind of each column, its fixed bins or its known levels.

A specification is learned once from reference data and then frozen: profiles with the same specification
add, and their distances are comparable from window to window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Literal, get_args

import msgspec

from modelyard.errors import Invalid

Kind = Literal["numeric", "categorical", "boolean", "datetime"]

ORDERED: frozenset[Kind] = frozenset(("numeric", "datetime"))


class EdgesDiffer(Invalid):
    """Two profiles count in different bins or levels, so they neither add nor compare."""

    code = "edges_differ"

    def __init__(self, subject: str, *, left: object, right: object) -> None:
        super().__init__(
            f"The profiles of {subject} count in different bins or levels ({left} and {right}). "
            "Profile both sets of rows with one specification.",
            subject=subject,
            left=str(left),
            right=str(right),
        )


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """How one column is counted.

    A value x of an ordered column falls below ``low``, above ``high``, or into the bin whose number is
    the count of edges at or below x: bins are closed on the left, the last one on both sides.

    Attributes:
        name: Column name.
        kind: ``datetime`` columns are ordered numbers too: microseconds since 1970, UTC.
        edges: Inner bin edges of an ordered column, strictly increasing, in (low, high]. ``B - 1`` edges
            give ``B`` bins.
        low: Smallest reference value; None if the reference held no value, then there is one open bin.
        high: Largest reference value; None as ``low``.
        centre: About the middle of the reference. Squares are taken about it, so that the variance of
            values far from zero keeps its digits.
        levels: Known levels of a categorical column, most frequent first.
    """

    name: str
    kind: Kind
    edges: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    centre: float = 0.0
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise Invalid(f"The specification of column {self.name!r} is not usable: {problem}.", column=self.name)

    def _problem(self) -> str:
        numbers = (*self.edges, self.centre, *(x for x in (self.low, self.high) if x is not None))
        if self.kind not in get_args(Kind):
            return f"kind {self.kind!r} is none of {', '.join(get_args(Kind))}"
        if not all(math.isfinite(x) for x in numbers):
            return "edges, bounds and centre must be finite"
        if (self.low is None) != (self.high is None):
            return "low and high come together"
        if self.low is None or self.high is None:
            bounded = not self.edges
        else:
            inside = (self.low, *self.edges)
            bounded = all(a < b for a, b in pairwise(inside)) and inside[-1] <= self.high
        if not bounded:
            return "edges must increase strictly from above low up to high"
        if len(set(self.levels)) != len(self.levels):
            return "levels repeat"
        return ""

    @property
    def bins(self) -> int:
        """Number of bins or levels that are counted."""
        if self.kind == "categorical":
            return len(self.levels)
        return 2 if self.kind == "boolean" else len(self.edges) + 1


@dataclass(frozen=True, slots=True)
class TableSpec:
    """How the columns of a table are counted.

    Attributes:
        columns: In table order, names distinct.
        digest: SHA-256 (hex) of the columns; equal digests mean that profiles add and compare.
    """

    columns: tuple[ColumnSpec, ...]
    digest: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise Invalid("A table specification names a column twice.", columns=names)
        # msgpack keeps the eight bytes of a float, so the digest does not hang on number formatting.
        object.__setattr__(self, "digest", sha256(msgspec.msgpack.encode(self.columns)).hexdigest())

    def __iter__(self) -> Iterator[ColumnSpec]:
        """Iterate over the columns."""
        return iter(self.columns)

    def __getitem__(self, name: str) -> ColumnSpec:
        """Return one column's specification; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def to_json(self) -> str:
        """Return JSON text from which ``from_json`` restores an equal specification."""
        return msgspec.json.encode({"version": 1, "columns": self.columns}).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> TableSpec:
        """Restore a specification.

        Raises:
            Invalid: If the text is not a specification of a known version.
        """
        try:
            stored = msgspec.json.decode(text, type=_Stored)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Invalid(f"This is not a profile specification: {error}.") from error
        if stored.version != 1:
            raise Invalid(f"Profile specification version {stored.version} is newer than this Modelyard (1).")
        return cls(stored.columns)


class _Stored(msgspec.Struct):
    version: int
    columns: tuple[ColumnSpec, ...]

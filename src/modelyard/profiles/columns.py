"""The one internal form of a table: named columns of a few array types.

Whatever a value came in (Arrow, pandas, Polars, lists of dicts), it counts the same here, and it counts the
same whatever its neighbours are: a batch of one row and a table of a million give the same profile parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXACT_INTEGER = 2**53
_MISSING_TYPES = frozenset(("NoneType", "NAType", "NaTType"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        values: Shape (n,), one of float64 (NaN is missing), int64, uint64, bool, datetime64[us] (UTC, NaT
            is missing), object (values of several types), or integer codes into ``labels``.
        valid: Shape (n,), False where the value is missing; None if ``values`` says it all.
        labels: Category names that the codes stand for; may repeat. None unless ``values`` are codes.
    """

    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_] | None = None
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def present(self) -> npt.NDArray[Any]:
        """Return the values that ``valid`` does not call missing."""
        return self.values if self.valid is None else self.values[self.valid]


@dataclass(frozen=True, slots=True)
class Columns:
    """A table.

    Attributes:
        rows: Number of rows.
        columns: Columns of that length, by name.
        unread: Names of further columns, which the reader was not asked for.
    """

    rows: int
    columns: Mapping[str, Column]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Numbers:
    """The countable part of an ordered column.

    Attributes:
        values: Shape (n,), float64 without NaN or negative zero; integers are rounded to the nearest.
        patterns: Shape (n,), two's complement of each value, exact where it came as an integer; None if
            ``values`` are all there is to know.
        null: Missing values beside them.
        other: Values of the wrong type beside them.
    """

    values: npt.NDArray[np.float64]
    patterns: npt.NDArray[np.uint64] | None
    null: int
    other: int


def is_missing(value: object) -> bool:
    """Say whether a single Python value is missing: None, NaN, pandas' NA and NaT, numpy's NaT."""
    if type(value).__name__ in _MISSING_TYPES:
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return isinstance(value, np.datetime64) and bool(np.isnat(value))


def level_name(value: object) -> str:
    """Name a value as a category: numbers without a trailing ``.0``, times in ISO 8601 and UTC.

    >>> level_name(3.0), level_name(True), level_name("a")
    ('3', 'true', 'a')
    """
    if isinstance(value, str):
        # Lone surrogates come from broken decoders; they have no UTF-8 form to store or hash.
        return str(value) if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, float | np.floating):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) <= _EXACT_INTEGER else repr(number)
    moment = microseconds(value)
    if moment is None:
        return str(value)
    return str(np.datetime64(moment, "us")) + "Z"


def microseconds(value: object) -> int | None:
    """Return a point in time as microseconds since 1970 UTC, or None if the value is none.

    Naive times are taken as UTC. Text counts when it is ISO 8601, since JSON has no type for time.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[us]").astype(np.int64))
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (aware - EPOCH) // _MICROSECOND
    if isinstance(value, date):
        return (value - EPOCH.date()) // _MICROSECOND
    return None


def numbers_of(column: Column) -> Numbers:
    """Read a column as numbers. Booleans are 0 and 1; text and times are of the wrong type."""
    values = column.values
    if column.labels is not None or values.dtype.kind == "M":
        null = _count_null(column)
        return Numbers(np.empty(0), None, null, len(column) - null)
    if values.dtype.kind == "O":
        return _mixed_numbers(values)
    found = column.present()
    null = len(column) - len(found)
    if found.dtype.kind in "iu":
        return Numbers(found.astype(np.float64), found.view(np.uint64), null, 0)
    # Adding zero turns negative zero into zero: equal values, equal bits.
    numbers = np.add(found, 0.0, dtype=np.float64)
    if len(numbers) and np.isnan(numbers.max()):
        numbers = numbers[~np.isnan(numbers)]
    return Numbers(numbers, None, len(column) - len(numbers), 0)


def times_of(column: Column) -> Numbers:
    """Read a column as points in time. ISO 8601 text counts; numbers are of the wrong type."""
    values = column.values
    if values.dtype.kind == "M":
        found = column.present()
        found = found[~np.isnat(found)].view(np.int64)
        return Numbers(found.astype(np.float64), found.view(np.uint64), len(column) - len(found), 0)
    if column.labels is not None:
        parsed = [microseconds(label) for label in column.labels]
        codes = column.present()
        known = np.array([moment is not None for moment in parsed], dtype=bool)
        moments = np.array([moment or 0 for moment in parsed], dtype=np.int64)
        found = moments[codes[known[codes]]] if parsed else moments
        other = len(codes) - len(found)
        return Numbers(found.astype(np.float64), found.view(np.uint64), len(column) - len(codes), other)
    if values.dtype.kind == "O":
        present = [value for value in values if not is_missing(value)]
        read = [moment for moment in map(microseconds, present) if moment is not None]
        found = np.array(read, dtype=np.int64)
        null, other = len(values) - len(present), len(present) - len(read)
        return Numbers(found.astype(np.float64), found.view(np.uint64), null, other)
    null = _count_null(column)
    return Numbers(np.empty(0), None, null, len(column) - null)


def truths_of(column: Column) -> tuple[int, int, int, int]:
    """Count false, true, missing, and values of the wrong type. The numbers 0 and 1 count as truths."""
    if column.values.dtype.kind == "b" and column.labels is None:
        found = column.present()
        true = int(np.count_nonzero(found))
        return len(found) - true, true, len(column) - len(found), 0
    numbers = numbers_of(column)
    false, true = (int(np.count_nonzero(numbers.values == truth)) for truth in (0.0, 1.0))
    return false, true, numbers.null, numbers.other + len(numbers.values) - false - true


def levels_of(column: Column) -> tuple[dict[str, int], int]:
    """Count each category name, and the missing values."""
    counts: dict[str, int] = {}
    null = _count_null(column)
    if column.labels is not None:
        tally = np.bincount(column.present(), minlength=len(column.labels)).tolist()
        _add_levels(counts, zip(column.labels, tally, strict=True))
    elif column.values.dtype.kind == "O":
        present = [value for value in column.values if not is_missing(value)]
        _add_levels(counts, ((level_name(value), 1) for value in present))
    else:
        found = column.present()
        if found.dtype.kind in "fM":
            found = found[~np.isnan(found)]  # NaT too
        different, tally_ = np.unique(found, return_counts=True)
        _add_levels(counts, zip(map(level_name, different), tally_.tolist(), strict=True))
    return counts, null


def _add_levels(counts: dict[str, int], found: Iterable[tuple[str, int]]) -> None:
    for label, count in found:
        if count:
            counts[label] = counts.get(label, 0) + count


def _count_null(column: Column) -> int:
    if column.values.dtype.kind == "O":
        return sum(map(is_missing, column.values))
    found = column.present()
    if found.dtype.kind in "fM" and column.labels is None:
        return len(column) - int(np.count_nonzero(~np.isnan(found)))
    return len(column) - len(found)


def _mixed_numbers(values: npt.NDArray[Any]) -> Numbers:
    """Read values of several types one by one."""
    read: list[float] = []
    patterns: list[int] = []
    null = other = 0
    for value in values:
        if is_missing(value):
            null += 1
            continue
        number = _number(value)
        if number is None:
            other += 1
        elif math.isnan(number):
            null += 1
        else:
            read.append(number + 0.0)
            patterns.append(_pattern(value, number))
    bits = np.array(patterns, dtype=np.uint64)
    return Numbers(np.array(read, dtype=np.float64), bits, null, other)


def _number(value: object) -> float | None:
    if not isinstance(value, Real | Decimal | np.bool_):
        return None
    try:
        return float(value)
    except (OverflowError, ValueError):  # an integer beyond float64, a signalling Decimal NaN
        return None


def _pattern(value: object, number: float) -> int:
    """Two's complement of an integer; the float is asked only for integers that float64 holds."""
    if isinstance(value, Integral):
        return int(value) & (2**64 - 1)
    return int(number) & (2**64 - 1) if number.is_integer() else 0

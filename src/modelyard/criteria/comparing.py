"""Comparing an observation with a limit, in one unit, or saying why that cannot be done."""

from __future__ import annotations

import operator as operators
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard.criteria.facts import Observation, Scalar
from modelyard.criteria.model import Instant, Literal, Number, Operator
from modelyard.criteria.text import to_text
from modelyard.criteria.units import Dimension, convert, dimension_of, from_base, to_base

_FUNCTIONS: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQ: operators.eq,
    Operator.NE: operators.ne,
    Operator.GT: operators.gt,
    Operator.GE: operators.ge,
    Operator.LT: operators.lt,
    Operator.LE: operators.le,
}
# Units that say "this is a fraction of one"; a percentage compares with them as with no unit at all.
_FRACTIONS = frozenset({None, "", "1", "fraction", "ratio"})


@dataclass(frozen=True, slots=True)
class Incomparable:
    """Why two values cannot be compared."""

    reason: str


def limit_for(observed: Observation, limit: Literal, *, name_unit: str | None) -> Scalar | Incomparable:
    """Express a written limit in the unit of an observation.

    Args:
        observed: What was observed.
        limit: The limit.
        name_unit: The unit that the name of the observation ends with. Only then may a plain number be meant
            in that unit (``latency_ms <= 20``): the unit that an observation merely carries is unseen by
            whoever wrote the limit, and a guess could pass a latency of 20 s.
    """
    if not isinstance(limit, Number):
        return limit.at if isinstance(limit, Instant) else limit.value
    unit, text = observed.unit, to_text(limit)
    if limit.dimension is Dimension.NUMBER:
        if dimension_of(unit) is Dimension.NUMBER or unit == name_unit:
            return limit.magnitude
        return Incomparable(f"The observed value is in {unit}; write the limit with its unit, not as {text}.")
    if limit.dimension is Dimension.FRACTION and unit in {*_FRACTIONS, "%"}:
        return limit.value if unit == "%" else limit.magnitude
    if limit.unit is not None and unit is not None and _both_durations(limit.unit, unit):
        return convert(limit.value, limit.unit, unit)
    carries = "has no unit" if unit is None else f"is in {unit}"
    return Incomparable(f"The observed value {carries}, so it cannot be compared with {text}.")


def value_for(observed: Observation, other: Observation) -> Scalar | Incomparable:
    """Express a second observation in the unit of the first."""
    value, source, target = other.value, other.unit, observed.unit
    if source == target or isinstance(value, bool | str | datetime):
        return value
    if source is not None and target is not None and _both_durations(source, target):
        return convert(value, source, target)
    if source == "%" and target in _FRACTIONS:
        return to_base(value, "%")
    if source in _FRACTIONS and target == "%":
        return from_base(value, "%")
    return Incomparable(f"One value is in {target or 'no unit'} and the other in {source or 'no unit'}.")


def compare(left: Scalar, operator: Operator, right: Scalar) -> bool | Incomparable:
    """Compare two values of one kind; truths have no order."""
    kinds = _kind(left), _kind(right)
    if kinds[0] != kinds[1]:
        return Incomparable(f"The observed value is {kinds[0]}, and it is compared with {kinds[1]}.")
    if kinds[0] == "a truth" and operator not in {Operator.EQ, Operator.NE}:
        return Incomparable("Truths have no order.")
    if isinstance(left, datetime) and isinstance(right, datetime) and (left.tzinfo is None or right.tzinfo is None):
        return Incomparable("A time without its offset from UTC was observed.")
    return _FUNCTIONS[operator](left, right)


def _both_durations(first: str, second: str) -> bool:
    return dimension_of(first) is Dimension.DURATION and dimension_of(second) is Dimension.DURATION


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return "a truth"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "a time"

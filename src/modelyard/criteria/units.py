"""Units of numbers in a condition: what they measure and how they convert, without rounding.

Conversions go through :class:`decimal.Decimal` on the shortest decimal form of the number, so ``1.1%`` is
the float ``0.011`` and not ``1.1 / 100``, and ``20ms`` against an observation in milliseconds is exactly 20.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

INTEGER_LIMIT = 2**63
"""Integers are below this in magnitude: what a BIGINT column of either database holds."""


class Dimension(StrEnum):
    """What a number measures."""

    NUMBER = "number"
    FRACTION = "fraction"
    DURATION = "duration"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: its dimension, and how many base units (1, fraction, second) it is."""

    dimension: Dimension
    factor: Decimal


UNITS: Mapping[str, Unit] = MappingProxyType(
    {
        "%": Unit(Dimension.FRACTION, Decimal("0.01")),
        "ms": Unit(Dimension.DURATION, Decimal("0.001")),
        "s": Unit(Dimension.DURATION, Decimal(1)),
        "m": Unit(Dimension.DURATION, Decimal(60)),
        "min": Unit(Dimension.DURATION, Decimal(60)),
        "h": Unit(Dimension.DURATION, Decimal(3_600)),
        "d": Unit(Dimension.DURATION, Decimal(86_400)),
        "k": Unit(Dimension.NUMBER, Decimal(1_000)),
        "M": Unit(Dimension.NUMBER, Decimal(1_000_000)),
    }
)
"""Every unit that may follow a number. Case matters: ``m`` is a minute, ``M`` a million."""

# `_min`, `_m`, `_h` and `_d` are left out: they end names that have nothing to do with time (`value_min`).
_SUFFIXES = {
    "_ms": "ms",
    "_s": "s",
    "_seconds": "s",
    "_minutes": "min",
    "_hours": "h",
    "_days": "d",
    "_pct": "%",
    "_percent": "%",
}


def dimension_of(unit: str | None) -> Dimension:
    """Say what a unit measures; a unit that the language does not know (``USD``) counts as a number."""
    known = UNITS.get(unit) if unit is not None else None
    return known.dimension if known is not None else Dimension.NUMBER


def implied_unit(path: str) -> str | None:
    """Read the unit from the end of a name.

    >>> implied_unit("latency_p99_ms")
    'ms'
    >>> implied_unit("roc_auc") is None
    True
    """
    return next((unit for suffix, unit in _SUFFIXES.items() if path.endswith(suffix)), None)


def to_base(value: int | float, unit: str | None) -> int | float:
    """Convert to the base unit: fraction for percent, seconds for durations, 1 for ``k`` and ``M``.

    >>> to_base(85, "%"), to_base(20, "ms"), to_base(3, "k")
    (0.85, 0.02, 3000)

    Returns:
        The nearest number; infinite when it is beyond the range of floats.
    """
    return value if unit is None else _shortest(_exact(value) * UNITS[unit].factor)


def from_base(value: int | float, unit: str) -> int | float:
    """Convert a number in base units to ``unit``: the inverse of :func:`to_base`.

    >>> from_base(0.02, "ms")
    20
    """
    return _shortest(_exact(value) / UNITS[unit].factor)


def convert(value: int | float, source: str, target: str) -> int | float:
    """Convert between two units of one dimension.

    >>> convert(2, "s", "ms")
    2000
    """
    return _shortest(_exact(value) * UNITS[source].factor / UNITS[target].factor)


def _exact(value: int | float) -> Decimal:
    return Decimal(value) if isinstance(value, int) else Decimal(repr(float(value)))


def _shortest(value: Decimal) -> int | float:
    if value.is_finite() and abs(value) < INTEGER_LIMIT and value == value.to_integral_value():
        return int(value)
    return float(value)

"""Sums of floats without any rounding, so that the order and grouping of rows cannot be seen in them.

A float64 sum depends on the order of its terms; a profile that is folded by many workers must not. Each
chunk is split into slices whose bits line up, so that a plain float64 sum of one slice is exact; the
slice sums are then added as Python integers.

Source: Rump, Ogita, Oishi (2008), Accurate Floating-Point Summation I, algorithm ExtractVector. Deviation:
the slices are accumulated as integers instead of being rounded once at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

CHUNK = 8192
"""Rows handled at once: 64 KiB of float64, so that all passes over a chunk stay in the first two caches."""

LIMIT = 2.0**500
"""Values at or beyond this magnitude have squares that could overflow; profiles keep them out of moments."""

_MANTISSA_BITS = 53


@dataclass(frozen=True, slots=True)
class ExactSum:
    """An exact sum of floats, ``mantissa * 2**exponent``, in one normal form per value.

    Attributes:
        mantissa: Odd, or zero together with a zero exponent; so equal sums compare equal.
        exponent: Power of two.
    """

    mantissa: int = 0
    exponent: int = 0

    def __add__(self, other: ExactSum) -> ExactSum:
        """Add without rounding."""
        if not other.mantissa:
            return self
        if not self.mantissa:
            return other
        return _total(((self.mantissa, self.exponent), (other.mantissa, other.exponent)))

    def fraction(self) -> Fraction:
        """Return the sum as a rational number."""
        if self.exponent >= 0:
            return Fraction(self.mantissa << self.exponent)
        return Fraction(self.mantissa, 1 << -self.exponent)


def exact_sum(values: npt.NDArray[np.float64]) -> ExactSum:
    """Add all values exactly.

    Args:
        values: Shape (n,), finite, each below 2**1002 in magnitude (the square of twice ``LIMIT``).

    Returns:
        The sum; the same for any order and any grouping of the values.

    >>> exact_sum(np.array([1e16, 1.0, -1e16])).fraction()
    Fraction(1, 1)
    """
    parts: list[float] = []
    scratch = np.empty(min(CHUNK, len(values)))
    for start in range(0, len(values), CHUNK):
        add_parts(parts, values[start : start + CHUNK].copy(), scratch)
    return sum_parts(parts)


def add_parts(parts: list[float], chunk: npt.NDArray[np.float64], scratch: npt.NDArray[np.float64]) -> None:
    """Split the sum of one chunk into floats that add up to it exactly, and append them to ``parts``.

    Args:
        parts: Receives one float per slice of bits, usually two or three.
        chunk: Shape (n,), at most ``CHUNK`` finite values. Overwritten.
        scratch: Shape (at least n,). Overwritten.
    """
    largest = max(float(chunk.max()), -float(chunk.min())) if len(chunk) else 0.0
    if largest == 0.0:
        return
    slice_ = scratch[: len(chunk)]
    headroom = len(chunk).bit_length() + 1
    exponent = math.frexp(largest)[1] + headroom
    while True:
        # Adding sigma rounds each value to a multiple of ulp(sigma); n such multiples sum exactly,
        # because the sum stays below 2**53 of them.
        sigma = math.ldexp(1.5, exponent)
        np.add(chunk, sigma, out=slice_)
        np.subtract(slice_, sigma, out=slice_)
        parts.append(float(slice_.sum()))
        np.subtract(chunk, slice_, out=chunk)
        if not chunk.any():
            return
        exponent += headroom - (_MANTISSA_BITS - 1)


def sum_parts(parts: Iterable[float]) -> ExactSum:
    """Add floats exactly, as integers."""
    split = (math.frexp(part) for part in parts if part)
    return _total([(int(math.ldexp(m, _MANTISSA_BITS)), e - _MANTISSA_BITS) for m, e in split])


def _total(terms: Iterable[tuple[int, int]]) -> ExactSum:
    terms = list(terms)
    if not terms:
        return ExactSum()
    lowest = min(exponent for _, exponent in terms)
    mantissa = sum(value << (exponent - lowest) for value, exponent in terms)
    if mantissa == 0:
        return ExactSum()
    zeros = (mantissa & -mantissa).bit_length() - 1
    return ExactSum(mantissa >> zeros, lowest + zeros)

"""Estimates with intervals, and the honest answer when the data cannot give one."""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, isinf, sqrt
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its confidence interval.

    Attributes:
        value: The point estimate.
        low: Lower end of the two-sided interval.
        high: Upper end of the two-sided interval.
        n: Number of observations that the estimate rests on.
        method: How the interval was made, such as ``"delong"`` or ``"bootstrap-bca"``.
        reason: Always empty; lets a caller read ``reason`` of any measured value.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Insufficient:
    """The data cannot answer; ``reason`` says why. Never a pass, never an exception.

    Attributes:
        reason: One clause for a person, with numbers.
        n: Number of observations that were there.
        value: Always None.
        low: Always None.
        high: Always None.
        method: Always ``"none"``.
    """

    reason: str
    n: int
    value: None = None
    low: None = None
    high: None = None
    method: str = "none"


Measured: TypeAlias = Estimate | Insufficient


def normal_quantile(probability: float) -> float:
    """Return the standard normal quantile of a probability in (0, 1)."""
    return NormalDist().inv_cdf(probability)


def normal_tail(z: float) -> float:
    """Return P(Z >= z) for a standard normal Z."""
    return erfc(z / sqrt(2)) / 2


def student_tail(t: float, df: float) -> float:
    """Return P(T >= t) for Student's T with ``df`` degrees of freedom; infinite ones mean normal."""
    if isinf(df):
        return normal_tail(t)
    from scipy.special import stdtr  # noqa: PLC0415 (SciPy is slow to import)

    return float(stdtr(df, -t))


def student_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's T with ``df`` degrees of freedom; infinite ones mean normal."""
    if isinf(df):
        return normal_quantile(probability)
    from scipy.special import stdtrit  # noqa: PLC0415 (SciPy is slow to import)

    return float(stdtrit(df, probability))


def wilson(hits: float, trials: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Args:
        hits: Number of successes, 0 <= hits <= trials.
        trials: Number of trials, > 0.
        confidence: Two-sided level in (0, 1).

    Returns:
        Lower and upper bound in [0, 1].

    Source:
        Wilson (1927), JASA 22. Without continuity correction.

    >>> low, high = wilson(0, 10)
    >>> round(low, 3), round(high, 3)
    (0.0, 0.278)
    """
    z2 = normal_quantile(0.5 + confidence / 2) ** 2
    share = hits / trials
    centre = share + z2 / (2 * trials)
    half = sqrt(z2 * share * (1 - share) / trials + (z2 / (2 * trials)) ** 2)
    scale = 1 + z2 / trials
    low = 0.0 if hits == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if hits == trials else min(1.0, (centre + half) / scale)
    return low, high

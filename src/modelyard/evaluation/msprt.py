"""The mixture SPRT: two arms compared at every look, with one error rate for all looks.

The difference of means d has variance V = s1^2/n1 + s2^2/n2 and, as the arms grow in any fixed or
outcome-independent proportion, independent increments in 1/V. The likelihood ratio of a true
difference theta against 0 is exp(theta d / V - theta^2 / (2 V)); averaging it over theta ~ N(0, tau^2)
gives an e-process, so that P(e ever >= 1/alpha) <= alpha under no difference (Ville). The one-sided form
averages over the half-normal theta > 0, which bounds it for every true difference <= 0 as well.

Variances are estimated, so the guarantee is asymptotic; hence ``FEWEST``. Two proportions take the variance
that the null hypothesis implies, not each arm's own: a small canary without any hit would claim to know its
rate exactly, and at 1 % against a control 19 times its size that gave 11 % false alarms at 5 %. They also
wait for ``FEWEST_EVENTS``.

Source: Johari, Pekelis & Walsh (2015), Always Valid Inference; Howard et al. (2021), Annals of
Statistics 49; variance under the null as in the score test of Farrington & Manning (1990), with the weighted
estimate of the rates in place of their cubic. Deviation: the confidence sequence of proportions inverts that
test and so is not symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, sqrt
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.evaluation.estimate import FloatArray

Alternative: TypeAlias = Literal["two-sided", "greater", "less"]

FEWEST = 100
"""Observations per arm before the first look, for the estimated variance."""

FEWEST_EVENTS = 5.0
"""n p (1 - p) of the smaller arm of a proportion before a look counts: the bar of the normal limit."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What is known of one arm; arms merge exactly.

    Attributes:
        n: Number of observations.
        total: Their sum.
        total_sq: The sum of their squares, after subtracting ``shift``.
        shift: Subtracted from each value before summing, against cancellation.
        binary: Whether the observations are 0 or 1.
    """

    n: int
    total: float
    total_sq: float
    shift: float = 0.0
    binary: bool = False

    @classmethod
    def of_values(cls, values: npt.ArrayLike, *, shift: float = 0.0) -> Arm:
        """Summarise observations of shape (n,); use one ``shift`` near the mean in all batches."""
        moved = np.asarray(values, dtype=np.float64).ravel() - shift
        return cls(moved.size, float(moved.sum()), float((moved**2).sum()), shift)

    @classmethod
    def of_counts(cls, hits: int, n: int) -> Arm:
        """Summarise a proportion: ``hits`` of ``n``."""
        if not 0 <= hits <= n:
            raise Invalid(f"{hits} of {n} is not a proportion.")
        return cls(n, float(hits), float(hits), 0.0, binary=True)

    def merge(self, other: Arm) -> Arm:
        """Return both batches as one arm."""
        if (self.binary, self.shift) != (other.binary, other.shift):
            raise Invalid("Only arms of the same kind and shift merge.")
        return Arm(
            self.n + other.n,
            self.total + other.total,
            self.total_sq + other.total_sq,
            self.shift,
            self.binary,
        )

    @property
    def mean(self) -> float:
        """Mean of the observations; NaN without any."""
        return self.shift + self.total / self.n if self.n else float("nan")

    @property
    def variance(self) -> float:
        """Variance of one observation.

        A proportion is smoothed with Jeffreys' half count on each side, so that an arm without any
        hit does not claim to know its rate exactly.
        """
        if self.binary:
            rate = (self.total + 0.5) / (self.n + 1)
            return rate * (1 - rate)
        if self.n < 2:
            return float("nan")
        return max(0.0, (self.total_sq - self.total**2 / self.n) / (self.n - 1))


@dataclass(frozen=True, slots=True)
class SequentialTest:
    """One look at a running comparison.

    Attributes:
        difference: Treatment minus control; NaN before both arms have data.
        low: Lower end of the confidence sequence.
        high: Upper end of the confidence sequence.
        p_value: Always-valid p-value: the smallest so far.
        significant: Whether ``p_value`` <= alpha; may be acted on at any look.
        n_control: Observations of the control arm.
        n_treatment: Observations of the treatment arm.
        reason: Why there is no answer yet; empty otherwise.
    """

    difference: float
    low: float
    high: float
    p_value: float
    significant: bool
    n_control: int
    n_treatment: int
    reason: str = ""


def msprt(
    control: Arm,
    treatment: Arm,
    *,
    tau: float,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    null: float = 0.0,
    p_before: float = 1.0,
    fewest: int = FEWEST,
) -> SequentialTest:
    """Look at a running comparison of two means or proportions, with arms of any sizes.

    Args:
        control: All data of the control arm so far.
        treatment: All data of the treatment arm so far.
        tau: Smallest difference of interest, > 0, fixed before the data: the mixture's scale.
        alpha: Level over all looks together.
        alternative: ``"greater"`` tests treatment - control > null, ``"less"`` the reverse.
        null: Difference under the null hypothesis.
        p_before: Always-valid p-value of the look before, to carry the minimum.
        fewest: Observations per arm below which there is no answer.

    Returns:
        The look. One-sided sequences are open on the other side.

    Raises:
        Invalid: If tau is not positive or alpha not in (0, 1).
    """
    if not tau > 0 or not 0 < alpha < 1:
        raise Invalid(f"tau must be positive and alpha in (0, 1); they are {tau} and {alpha}.")
    n1, n2 = control.n, treatment.n
    difference = treatment.mean - control.mean
    if min(n1, n2) < max(fewest, 2):
        reason = f"{min(n1, n2):,} observations in the smaller arm; {max(fewest, 2):,} are needed"
        return SequentialTest(difference, -inf, inf, p_before, p_before <= alpha, n1, n2, reason)
    look = _Look(control, treatment, tau, alternative, alpha)
    v, events = look.variance(null)
    if not v > 0 or events < FEWEST_EVENTS:
        reason = (
            f"about {events:.1f} events are expected in the smaller arm; {FEWEST_EVENTS:.0f} are needed"
            if look.binary
            else "neither arm varies"
        )
        return SequentialTest(difference, -inf, inf, p_before, p_before <= alpha, n1, n2, reason)
    p_value = min(p_before, exp(min(0.0, -look.log_e(null))))
    low, high = look.bounds()
    return SequentialTest(difference, low, high, p_value, p_value <= alpha, n1, n2)


@dataclass(frozen=True, slots=True)
class _Look:
    """The evidence of one look as a function of the difference under the null."""

    control: Arm
    treatment: Arm
    tau: float
    alternative: Alternative
    alpha: float

    @property
    def binary(self) -> bool:
        return self.control.binary and self.treatment.binary

    @property
    def difference(self) -> float:
        return self.treatment.mean - self.control.mean

    def variance(self, null: float) -> tuple[float, float]:
        one, two = self.control, self.treatment
        if not self.binary:
            return one.variance / one.n + two.variance / two.n, inf
        v, events = null_variance(
            np.array([one.total]), np.array([one.n]), np.array([two.total]), np.array([two.n]), null=null
        )
        return float(v[0]), float(events[0])

    def log_e(self, null: float) -> float:
        sign = -1.0 if self.alternative == "less" else 1.0
        away = np.array([sign * (self.difference - null)])
        v = np.array([self.variance(null)[0]])
        return float(log_e_value(away, v, tau=self.tau, one_sided=self.alternative != "two-sided")[0])

    def bounds(self) -> tuple[float, float]:
        low = -inf if self.alternative == "less" else self._bound(-1.0)
        high = inf if self.alternative == "greater" else self._bound(1.0)
        return low, high

    def _bound(self, side: float) -> float:
        """Return the farthest difference on one side that the evidence does not refute."""
        one_sided = self.alternative != "two-sided"
        if not self.binary:
            v = np.array([self.variance(0.0)[0]])
            half = half_width(v, tau=self.tau, alpha=self.alpha, one_sided=one_sided)[0]
            return self.difference + side * float(half)
        inside, outside, limit = self.difference, side, log(1 / self.alpha)
        if self.log_e(outside) < limit:
            return outside
        for _ in range(40):  # 2 / 2^40 is far below any rate of interest
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if self.log_e(middle) >= limit else (middle, outside)
        return outside


def null_variance(
    hits_1: FloatArray, n_1: FloatArray, hits_2: FloatArray, n_2: FloatArray, *, null: float
) -> tuple[FloatArray, FloatArray]:
    """Return the variance of a difference of proportions if it is ``null``, and the events to expect.

    Args:
        hits_1: Any shape: hits of the control arm.
        n_1: Its observations, > 0.
        hits_2: Hits of the treatment arm.
        n_2: Its observations, > 0.
        null: Treatment rate minus control rate under the null hypothesis.

    Returns:
        Variance, and n p (1 - p) of the arm where it is smaller.
    """
    total = n_1 + n_2
    rate = (hits_1 + hits_2 - n_2 * null) / total
    least = 0.5 / (total + 1)
    p_1, p_2 = np.clip(rate, least, 1 - least), np.clip(rate + null, least, 1 - least)
    spread_1, spread_2 = p_1 * (1 - p_1), p_2 * (1 - p_2)
    return spread_1 / n_1 + spread_2 / n_2, np.minimum(n_1 * spread_1, n_2 * spread_2)


def log_e_value(difference: FloatArray, v: FloatArray, *, tau: float, one_sided: bool) -> FloatArray:
    """Return log e-values of observed differences.

    Args:
        difference: Any shape: observed difference, minus the null's.
        v: Same shape: variance of the difference, > 0.
        tau: Mixture scale.
        one_sided: Mix over positive differences only.
    """
    from scipy.special import log_ndtr  # noqa: PLC0415 (SciPy is slow to import)

    wide = v + tau**2
    log_e = 0.5 * np.log(v / wide) + tau**2 * difference**2 / (2 * v * wide)
    if one_sided:
        log_e = log_e + np.log(2.0) + log_ndtr(tau * difference / np.sqrt(v * wide))
    return np.asarray(log_e, dtype=np.float64)


def half_width(v: FloatArray, *, tau: float, alpha: float, one_sided: bool) -> FloatArray:
    """Return how far the confidence sequence reaches from the observed difference.

    Two-sided: sqrt(V (V + tau^2) / tau^2 (2 ln(1/alpha) + ln((V + tau^2) / V))). One-sided: the root
    of the one-sided e-value at 1/alpha, which that width (at alpha) bounds from above.
    """
    wide = v + tau**2
    upper = np.sqrt(v * wide) / tau * np.sqrt(2 * np.log(1 / alpha) + np.log(wide / v))
    if not one_sided:
        return np.asarray(upper, dtype=np.float64)
    low, high = np.zeros_like(upper), upper
    for _ in range(60):  # halving 60 times exhausts a float's digits
        middle = (low + high) / 2
        reached = log_e_value(middle, v, tau=tau, one_sided=True) >= np.log(1 / alpha)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.asarray(high, dtype=np.float64)


def default_tau(control: Arm) -> float:
    """Return a mixture scale where nobody named the smallest gain of interest.

    A tenth of the control's standard deviation: 0.03 at 10 % conversion. Take it from data before
    the comparison or from its first look, and keep it.
    """
    return max(0.1 * sqrt(control.variance), 1e-9) if control.n > 1 else 0.1

"""Distances between two profiles of one column: arithmetic on their counts, no raw rows.

All compare values only. Missing values and values of the wrong type have rates of their own; ``cells``
says which counts are compared. ``count_distances`` holds the same measures on plain arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.profiles import count_distances
from modelyard.profiles.model import ColumnProfile, cell_borders, check_same_spec
from modelyard.profiles.spec import ORDERED

SMALLEST_SD = 0.001
"""Floor of the reference's standard deviation in ``wasserstein_distance``, the floor that Evidently uses."""


class EmptyProfile(Invalid):
    """A distance needs at least one value on each side."""

    code = "empty_profile"

    def __init__(self, column: str, side: str) -> None:
        super().__init__(
            f"The {side} profile of column {column!r} holds no value, so it has no distance to another.",
            column=column,
            side=side,
        )


class NotOrdered(Invalid):
    """The distance needs values that have an order."""

    code = "not_ordered"

    def __init__(self, column: str, kind: str, distance: str) -> None:
        super().__init__(
            f"{distance} needs a numeric or datetime column; {column!r} is {kind}. "
            "Use jensen_shannon_distance or l_infinity_distance.",
            column=column,
            kind=kind,
        )


@dataclass(frozen=True, slots=True)
class TwoSampleTest:
    """A two-sample test.

    Attributes:
        statistic: Value of the test statistic.
        p_value: Asymptotic probability, without a change, of a statistic at least as large; in [0, 1].
        degrees_of_freedom: Of the chi-square distribution; 0 where it does not apply.
    """

    statistic: float
    p_value: float
    degrees_of_freedom: int = 0


def population_stability_index(reference: ColumnProfile, current: ColumnProfile) -> float:
    """Measure how far a column has moved from its reference.

    Both profiles count in the same cells, whose edges are quantiles of the reference, so the index is
    comparable from window to window. Counts are smoothed with Jeffreys' 0.5.

    Args:
        reference: Profile of one column, at least one value.
        current: Profile with the identical specification, at least one value.

    Returns:
        Index in nats, >= 0. Without any change its mean is about ``expected_psi(B, n, m)``: judge it
        against that or a simulated null, not against a constant.

    Raises:
        EdgesDiffer: If the two profiles do not share their specification.
        EmptyProfile: If either holds no value.

    Source:
        Yurdakul (2018), Statistical Properties of Population Stability Index, eq. 1. Deviations: Jeffreys
        smoothing in place of dropped empty bins; cells empty in both profiles are left out; values beyond
        the reference range are cells of their own.
    """
    return float(count_distances.population_stability_index(*_cells(reference, current)))


def expected_psi(bins: int, n: int, m: int) -> float:
    """Return the mean of the population stability index when nothing has changed.

    Args:
        bins: Cells in use, B.
        n: Values in the current profile, >= 1.
        m: Values in the reference profile, >= 1.

    Returns:
        (B - 1) (1/n + 1/m), in nats. With Jeffreys' smoothing, B = 32 and m = 20,000, the simulated mean
        is 7 % below it at n = 200, 3 % below at n = 500 and equal at n = 5,000
        (``tests/statistical/test_psi_bias.py``).

    Raises:
        Invalid: If an argument is below 1.

    Source:
        Yurdakul (2018): PSI / (1/n + 1/m) is asymptotically chi-square with B - 1 degrees of freedom.

    >>> round(expected_psi(10, 500, 20_000), 5)
    0.01845
    """
    if min(bins, n, m) < 1:
        raise Invalid("expected_psi needs at least one bin and one value on each side.", bins=bins, n=n, m=m)
    return (bins - 1) * (1.0 / n + 1.0 / m)


def jensen_shannon_distance(reference: ColumnProfile, current: ColumnProfile) -> float:
    """Return the Jensen-Shannon distance with logarithms to base 2.

    Args:
        reference: Profile of one column, at least one value.
        current: Profile with the identical specification, at least one value.

    Returns:
        sqrt(KL(p, M)/2 + KL(q, M)/2) with M = (p + q)/2, in [0, 1]. Without any change its mean is about
        sqrt((B - 1)/(8 ln 2) (1/n + 1/m)): subtract bias on squared distances.

    Raises:
        EdgesDiffer: If the two profiles do not share their specification.
        EmptyProfile: If either holds no value.

    Source:
        Endres and Schindelin (2003), A New Metric for Probability Distributions. No smoothing.
    """
    return float(count_distances.jensen_shannon_distance(*_cells(reference, current)))


def hellinger_distance(reference: ColumnProfile, current: ColumnProfile) -> float:
    """Return the Hellinger distance sqrt(1 - sum sqrt(p q)), in [0, 1]; arguments and errors as above.

    Source:
        Hellinger (1909), in the form scaled to [0, 1]. No smoothing.
    """
    return float(count_distances.hellinger_distance(*_cells(reference, current)))


def l_infinity_distance(reference: ColumnProfile, current: ColumnProfile) -> float:
    """Return the largest difference between the shares of one cell, in [0, 1]; arguments and errors as above.

    Source:
        SageMaker Model Monitor, ``categorical_drift_method`` LInfinity.
    """
    return float(count_distances.l_infinity_distance(*_cells(reference, current)))


def kolmogorov_smirnov_distance(reference: ColumnProfile, current: ColumnProfile) -> float:
    """Return D, the largest difference between the distribution functions at bin edges, in [0, 1].

    Raises:
        EdgesDiffer: If the two profiles do not share their specification.
        EmptyProfile: If either holds no value.
        NotOrdered: If the column is categorical or boolean.

    Source:
        Smirnov (1939). Deviation: D is taken at bin edges only, a lower bound of the exact one within the
        largest share of one bin (1/32 without ties).
    """
    _require_order(reference, "kolmogorov_smirnov_distance")
    return float(count_distances.kolmogorov_smirnov_distance(*_cells(reference, current)))


def kolmogorov_smirnov_test(reference: ColumnProfile, current: ColumnProfile) -> TwoSampleTest:
    """Test whether two samples have one distribution; errors as ``kolmogorov_smirnov_distance``.

    Returns:
        D and the asymptotic p-value, Kolmogorov's distribution at D sqrt(n m / (n + m)). As D is binned,
        the p-value is on the high side: the test is conservative.

    Source:
        Smirnov (1939); Kolmogorov (1933).
    """
    from scipy.special import kolmogorov  # noqa: PLC0415

    statistic = kolmogorov_smirnov_distance(reference, current)
    m, n = reference.n, current.n
    return TwoSampleTest(statistic, float(kolmogorov(statistic * np.sqrt(m / (m + n) * n))))


def chi_square_test(reference: ColumnProfile, current: ColumnProfile) -> TwoSampleTest:
    """Test whether two samples share their cell probabilities (homogeneity, 2 x B).

    Returns:
        Pearson's statistic over the cells in use, its p-value and degrees of freedom; p is 1 when only
        one cell is in use. Asymptotic: expected counts below 5 make it unreliable.

    Raises:
        EdgesDiffer: If the two profiles do not share their specification.
        EmptyProfile: If either holds no value.

    Source:
        Pearson (1900), without continuity correction.
    """
    from scipy.special import chdtrc  # noqa: PLC0415

    left, right = _cells(reference, current)
    degrees = int(np.count_nonzero(left + right)) - 1
    statistic = float(count_distances.chi_square_statistic(left, right))
    return TwoSampleTest(statistic, float(chdtrc(degrees, statistic)) if degrees else 1.0, degrees)


def chi_square_statistic(reference: ColumnProfile, current: ColumnProfile) -> float:
    """Return the statistic of ``chi_square_test``, >= 0."""
    return float(count_distances.chi_square_statistic(*_cells(reference, current)))


def wasserstein_distance(reference: ColumnProfile, current: ColumnProfile) -> float:
    """Return the earth mover's distance in units of the reference's standard deviation.

    Args:
        reference: Profile of a numeric or datetime column, at least one value.
        current: Profile with the identical specification, at least one value.

    Returns:
        Integral of |F - G| / max(sd of the reference, 0.001), >= 0.

    Raises:
        EdgesDiffer: If the two profiles do not share their specification.
        EmptyProfile: If either holds no value.
        NotOrdered: If the column is categorical or boolean.

    Source:
        Vallender (1974), Calculation of the Wasserstein Distance Between Probability Distributions on the
        Line. Deviations: divided by the reference's standard deviation; values spread evenly
        within a bin, and between the reference range and the smallest or largest value of both profiles;
        infinite values count as those extremes.
    """
    _require_order(reference, "wasserstein_distance")
    left, right = _cells(reference, current)
    nodes = cell_borders(reference, current)
    gap = np.concatenate([[0.0], np.cumsum(count_distances.shares(left) - count_distances.shares(right))])
    gap[-1] = 0.0
    start, end = gap[:-1], gap[1:]
    size = np.abs(start) + np.abs(end)
    # |F - G| is linear between nodes; where it changes sign, two triangles remain of the trapezium.
    crossing = np.divide(start**2 + end**2, size, out=np.zeros_like(size), where=size > 0)
    area = np.diff(nodes) * np.where(start * end < 0, crossing, size) / 2.0
    return float(area.sum()) / max(reference.sd or 0.0, SMALLEST_SD)


def _cells(reference: ColumnProfile, current: ColumnProfile) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    check_same_spec(reference, current)
    for side, profile in (("reference", reference), ("current", current)):
        if not profile.n:
            raise EmptyProfile(profile.spec.name, side)
    return reference.cells(), current.cells()


def _require_order(profile: ColumnProfile, distance: str) -> None:
    if profile.spec.kind not in ORDERED:
        raise NotOrdered(profile.spec.name, profile.spec.kind, distance)


Distance = Callable[[ColumnProfile, ColumnProfile], float]

DISTANCES: Mapping[str, Distance] = MappingProxyType(
    {
        "psi": population_stability_index,
        "js_distance_base2": jensen_shannon_distance,
        "w1_per_sd": wasserstein_distance,
        "ks": kolmogorov_smirnov_distance,
        "chi_square": chi_square_statistic,
        "hellinger": hellinger_distance,
        "linf": l_infinity_distance,
    }
)
"""Distances by the short name that metrics carry; ``ks`` and ``w1_per_sd`` need an ordered column."""

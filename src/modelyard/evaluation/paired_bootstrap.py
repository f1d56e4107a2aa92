"""The paired bootstrap: the difference of any metric between two models on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.evaluation import bootstrap
from modelyard.evaluation.bootstrap import Units
from modelyard.evaluation.estimate import (
    FloatArray,
    normal_quantile,
    normal_tail,
    student_quantile,
    student_tail,
)

FEWEST_ROWS = 200
FEWEST_CLUSTERS = 50
"""Below these the bootstrap's intervals are too short (Efron & Tibshirani 1993, ch. 14)."""


@dataclass(frozen=True, slots=True)
class BootstrapDifference:
    """Bootstrap distribution of a difference, challenger minus champion.

    Attributes:
        difference: The observed difference.
        draws: Shape (B,): the difference in each replicate; finite.
        units: Number of rows, clusters or blocks drawn per replicate.

    P-values and bounds are those of the expanded percentile interval: resampling u units understates the
    spread by sqrt((u - 1) / u) and knows nothing of Student's heavier tails, so the level a is read at
    Phi(-sqrt(u / (u - 1)) t_a) with u - 1 degrees of freedom (Hesterberg 2015, The American Statistician 69).
    """

    difference: float
    draws: FloatArray
    units: int

    @property
    def p_greater(self) -> float:
        """One-sided p-value of "the difference is not above 0", counting the sample itself."""
        return self._share(self.draws <= 0.0)

    @property
    def p_less(self) -> float:
        """One-sided p-value of "the difference is not below 0"."""
        return self._share(self.draws >= 0.0)

    def bounds(self, *, confidence: float) -> tuple[float, float]:
        """Return the two-sided expanded percentile interval."""
        tail = normal_tail(student_quantile(0.5 + confidence / 2, self._df) * self._stretch)
        return bootstrap.percentile_interval(self.draws, confidence=1 - 2 * tail)

    @property
    def _df(self) -> int:
        return max(1, self.units - 1)

    @property
    def _stretch(self) -> float:
        return sqrt((self._df + 1) / self._df)

    def _share(self, against: npt.NDArray[np.bool_]) -> float:
        share = (int(against.sum()) + 1) / (len(self.draws) + 1)
        if share == 1.0:
            return 1.0
        return student_tail(-normal_quantile(share) / self._stretch, self._df)


def bootstrap_means(
    champion: FloatArray,
    challenger: FloatArray,
    value: Callable[[FloatArray], FloatArray],
    *,
    rng: np.random.Generator,
    units: Units | None = None,
    draws: int = bootstrap.DRAWS,
) -> BootstrapDifference:
    """Bootstrap the difference of a metric that is a function of means.

    Args:
        champion: Shape (n, k), per-row quantities of the first model.
        challenger: Shape (n, k), the same rows of the second model.
        value: Means (..., k) -> metric (...).
        rng: Source of randomness.
        units: What is drawn: rows (default), clusters, blocks, or cells of a table.
        draws: Replicates B.

    Returns:
        The observed difference and its replicates.

    Raises:
        Invalid: If the shapes differ, or no replicate has a finite difference.

    Source:
        Efron & Tibshirani (1993), ch. 13; clusters: Davison & Hinkley (1997), 3.8; circular blocks:
        Politis & Romano (1992).
    """
    if champion.shape != challenger.shape or champion.ndim != 2:
        raise Invalid(f"Shapes {champion.shape} and {challenger.shape} are not one (n, k).")
    n, k = champion.shape
    units = units or Units.of_rows(n)
    both = np.concatenate([champion, challenger], axis=1)
    centre = both.mean(axis=0) if units.shares is None else units.shares @ both
    means = bootstrap.mean_draws(both, units, rng=rng, draws=draws)
    observed = float(value(centre[k:]) - value(centre[:k]))
    return _finite(observed, value(means[:, k:]) - value(means[:, :k]), units)


def bootstrap_weighted(
    statistic: Callable[[FloatArray], FloatArray],
    *,
    rows: int,
    rng: np.random.Generator,
    units: Units | None = None,
    draws: int = bootstrap.DRAWS,
) -> BootstrapDifference:
    """Bootstrap a difference that is a function of row weights, such as one of two rank metrics.

    Args:
        statistic: Weights (b, rows) -> differences (b,).
        rows: Number of rows.
        rng: Source of randomness.
        units: What is drawn: rows (default), clusters or blocks.
        draws: Replicates B.

    Raises:
        Invalid: If no replicate has a finite difference.
    """
    units = units or Units.of_rows(rows)
    observed = float(statistic(np.ones((1, rows)))[0])
    return _finite(observed, bootstrap.weighted_draws(statistic, units, rng=rng, draws=draws), units)


def bootstrap_linear(
    observed: float,
    influence: FloatArray,
    *,
    rng: np.random.Generator,
    units: Units | None = None,
    draws: int = bootstrap.DRAWS,
) -> BootstrapDifference:
    """Bootstrap a difference through each row's influence on it: the cheap limit for many rows.

    Args:
        observed: The observed difference.
        influence: Shape (n,): influence of each row, mean 0.
        rng: Source of randomness.
        units: What is drawn: rows (default), clusters or blocks.
        draws: Replicates B.
    """
    units = units or Units.of_rows(len(influence))
    moved = bootstrap.mean_draws(influence[:, None], units, rng=rng, draws=draws)[:, 0]
    return _finite(observed, observed + moved, units)


def _finite(observed: float, draws: FloatArray, units: Units) -> BootstrapDifference:
    usable = draws[np.isfinite(draws)]
    if not usable.size or not np.isfinite(observed):
        raise Invalid("The metric is not finite on these rows or on any resample of them.")
    return BootstrapDifference(observed, usable, units.picks)

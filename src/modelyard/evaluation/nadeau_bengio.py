"""The corrected resampled t-test: two learners over cross-validation folds."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
import numpy.typing as npt

from modelyard.evaluation.estimate import Insufficient


@dataclass(frozen=True, slots=True)
class ResampledT:
    """Mean difference over folds.

    Attributes:
        difference: Mean of the fold differences.
        se: Corrected standard error.
        t: Test statistic; 0 if all differences are 0, infinite if they are equal and not 0.
        df: Degrees of freedom, k - 1.
        p_greater: One-sided p-value of "the mean difference is not above 0".
        p_value: Two-sided p-value.
    """

    difference: float
    se: float
    t: float
    df: int
    p_greater: float
    p_value: float

    def bounds(self, *, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval of the mean difference."""
        from scipy.special import stdtrit  # noqa: PLC0415 (SciPy is slow to import)

        half = float(stdtrit(self.df, 0.5 + confidence / 2)) * self.se
        return self.difference - half, self.difference + half


def nadeau_bengio(differences: npt.ArrayLike, *, test_share: float) -> ResampledT | Insufficient:
    """Test whether one learner beats another, training variance counted.

    Folds share training rows, so their differences are correlated and the plain t-test promotes far
    too often. The variance is scaled by 1/k + n_test / n_train in place of 1/k.

    Args:
        differences: Shape (k,): challenger minus champion per fold or repetition.
        test_share: Share of the rows that each fold tests on, in (0, 1): 0.1 for 10-fold.

    Returns:
        The test, or why there is none (fewer than two finite differences).

    Source:
        Nadeau & Bengio (2003), Machine Learning 52; df k - 1 as Bouckaert & Frank (2004).
    """
    from scipy.special import stdtr  # noqa: PLC0415 (SciPy is slow to import)

    values = np.asarray(differences, dtype=np.float64).ravel()
    if values.size < 2 or not np.isfinite(values).all():
        return Insufficient("at least two finite differences are needed", values.size)
    k, mean = values.size, float(values.mean())
    se = sqrt((1 / k + test_share / (1 - test_share)) * float(values.var(ddof=1)))
    t = mean / se if se > 0 else float(np.sign(mean)) * inf if mean else 0.0
    greater = float(stdtr(k - 1, -t))
    return ResampledT(mean, se, t, k - 1, greater, min(1.0, 2 * min(greater, 1 - greater)))

"""The Bayesian correlated t-test: probabilities of worse, equivalent and better."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from modelyard.evaluation.estimate import Insufficient


@dataclass(frozen=True, slots=True)
class Posterior:
    """Posterior of the mean difference, challenger minus champion.

    Attributes:
        worse: Probability that the difference is below -rope.
        equivalent: Probability that it is within [-rope, rope].
        better: Probability that it is above rope.
        difference: Posterior mean.
        scale: Posterior scale of the Student distribution; 0 if all differences are equal.
        df: Its degrees of freedom.
    """

    worse: float
    equivalent: float
    better: float
    difference: float
    scale: float
    df: int


def bayesian_correlated_t(differences: npt.ArrayLike, *, test_share: float, rope: float) -> Posterior | Insufficient:
    """Return how probable it is that one learner is practically better than another.

    Args:
        differences: Shape (k,): challenger minus champion per fold or repetition.
        test_share: Share of the rows that each fold tests on, in (0, 1); the correlation of folds.
        rope: Half width, >= 0, of the region of practical equivalence, in the metric's unit.

    Returns:
        The posterior, or why there is none (fewer than two finite differences).

    Source:
        Benavoli et al. (2017), JMLR 18, eq. 7: Student with k - 1 degrees of freedom, location
        mean(d), scale^2 = (1/k + rho / (1 - rho)) s^2, rho = test share (Corani & Benavoli 2015).
    """
    from scipy.special import stdtr  # noqa: PLC0415 (SciPy is slow to import)

    values = np.asarray(differences, dtype=np.float64).ravel()
    if values.size < 2 or not np.isfinite(values).all():
        return Insufficient("at least two finite differences are needed", values.size)
    k, mean = values.size, float(values.mean())
    scale = sqrt((1 / k + test_share / (1 - test_share)) * float(values.var(ddof=1)))
    if scale == 0.0:
        worse, better = float(mean < -rope), float(mean > rope)
    else:
        worse = float(stdtr(k - 1, (-rope - mean) / scale))
        better = float(stdtr(k - 1, (mean - rope) / scale))
    return Posterior(worse, max(0.0, 1.0 - worse - better), better, mean, scale, k - 1)

"""DeLong's test: the variance of ROC AUC, and of the difference between two on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np
import numpy.typing as npt

from modelyard.evaluation.estimate import FloatArray, normal_quantile, student_quantile, student_tail, wilson
from modelyard.evaluation.ranking import placements

FEWEST_PER_CLASS = 50
"""Rows of the rarer class below which the normal limit of a comparison is not trusted."""


@dataclass(frozen=True, slots=True)
class PairedAuc:
    """Two AUCs on the same rows.

    Attributes:
        champion: AUC of the first model.
        challenger: AUC of the second model.
        difference: Challenger minus champion.
        se: Standard error of the difference; 0 if both rank alike.
        df: Degrees of freedom of the reference distribution; infinite (normal) without clusters.
        p_greater: One-sided p-value of "the challenger is not better".
        p_less: One-sided p-value of "the challenger is not worse".
    """

    champion: float
    challenger: float
    difference: float
    se: float
    df: float
    p_greater: float
    p_less: float

    def bounds(self, *, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval of the difference."""
        half = student_quantile(0.5 + confidence / 2, self.df) * self.se
        return max(-1.0, self.difference - half), min(1.0, self.difference + half)


def delong(truth: npt.ArrayLike, score: npt.ArrayLike) -> tuple[float, float]:
    """Return an AUC and its standard error.

    Args:
        truth: Shape (n,), 0 or 1, at least two of each.
        score: Shape (n,); ties count one half.

    Returns:
        AUC in [0, 1] and its standard error (0 for perfect separation).

    Source:
        DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44: var = S10 / m + S01 / n.
    """
    v10, v01 = placements(np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64))
    return float(v10.mean()), sqrt(_variance(v10) + _variance(v01))


def auc_interval(truth: FloatArray, score: FloatArray, *, confidence: float) -> tuple[float, float]:
    """Return a two-sided interval of an AUC that stays inside [0, 1].

    The interval is symmetric in the logit of the AUC. Deviation from DeLong (1988), whose interval
    passes 1 for good models. Without any variance (perfect separation, or one row in a class) it is
    Wilson's with as many trials as the rarer class has rows: wide rather than of no width.
    """
    positives = int(truth.sum())
    rarer = min(positives, len(truth) - positives)
    area, se = (float(placements(truth, score)[0].mean()), 0.0) if rarer < 2 else delong(truth, score)
    if se == 0.0 or not 0.0 < area < 1.0:
        return wilson(area * rarer, rarer, confidence=confidence)
    half = normal_quantile(0.5 + confidence / 2) * se / (area * (1 - area))
    centre = log(area / (1 - area))
    return _expit(centre - half), _expit(centre + half)


def delong_paired(
    truth: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    *,
    cluster: npt.ArrayLike | None = None,
) -> PairedAuc:
    """Compare two AUCs measured on the same rows.

    Args:
        truth: Shape (n,), 0 or 1, at least two of each.
        champion: Shape (n,), scores of the first model.
        challenger: Shape (n,), scores of the second model.
        cluster: Shape (n,), the entity of each row where entities repeat. The variance is then
            summed over clusters, and Student's distribution with one less than the clusters of the
            rarer class replaces the normal.

    Returns:
        Both AUCs, their difference and one-sided p-values.

    Source:
        DeLong et al. (1988) by midranks (Sun & Xu 2014); clusters as Obuchowski (1997), Biometrics 53.
        Deviation: Student's distribution for clusters; the normal promotes 5.6 % at 5 % with 100.
    """
    y = np.asarray(truth, dtype=np.float64)
    v10_old, v01_old = placements(y, np.asarray(champion, dtype=np.float64))
    v10_new, v01_new = placements(y, np.asarray(challenger, dtype=np.float64))
    old, new = float(v10_old.mean()), float(v10_new.mean())
    v10, v01 = v10_new - v10_old, v01_new - v01_old
    difference = new - old
    df = inf
    if cluster is None:
        se = sqrt(_variance(v10) + _variance(v01))
    else:
        parts = np.empty(len(y))
        parts[y == 1] = (v10 - difference) / len(v10)
        parts[y != 1] = (v01 - difference) / len(v01)
        _, codes = np.unique(np.asarray(cluster).astype(str), return_inverse=True)
        totals = np.bincount(codes, weights=parts)
        se = sqrt(len(totals) / max(1, len(totals) - 1) * float((totals**2).sum()))
        df = max(1, min(len(np.unique(codes[y == side])) for side in (0, 1)) - 1)
    if se == 0.0 and difference != 0.0:
        # Both orders are extreme and constant: one half row of the rarer class stands in.
        se = 0.5 / min(len(v10), len(v01))
    z = difference / se if se > 0 else 0.0
    return PairedAuc(old, new, difference, se, df, student_tail(z, df), student_tail(-z, df))


def _variance(values: FloatArray) -> float:
    return float(values.var(ddof=1)) / len(values)


def _expit(x: float) -> float:
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))

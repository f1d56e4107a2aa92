"""Rank statistics: midranks, ROC AUC, average precision, and what each row contributes to them."""

from __future__ import annotations

import numpy as np

from modelyard.evaluation.estimate import FloatArray, IntArray


def midranks(values: FloatArray) -> FloatArray:
    """Return 1-based ranks of shape (n,), tied values sharing the mean of their ranks.

    >>> midranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    order = np.argsort(values)
    ordered = values[order]
    starts = _run_starts(ordered)
    sizes = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


def placements(truth: FloatArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the share of the other class that each row is ranked correctly against.

    Args:
        truth: Shape (n,), 0 or 1, both present.
        score: Shape (n,).

    Returns:
        V10 of shape (m,) for the positives and V01 of shape (n - m,) for the negatives, in row
        order; each has the AUC as its mean.

    Source:
        DeLong et al. (1988); by midranks as Sun & Xu (2014), IEEE Signal Processing Letters 21.
    """
    positive = truth == 1
    x, y = score[positive], score[~positive]
    pooled = midranks(score)
    v10 = (pooled[positive] - midranks(x)) / len(y)
    v01 = 1.0 - (pooled[~positive] - midranks(y)) / len(x)
    return v10, v01


def roc_auc(truth: FloatArray, score: FloatArray) -> float:
    """Return the area under the ROC curve; ties count one half. Both classes must be present."""
    positive = truth == 1
    m, n = int(positive.sum()), int((~positive).sum())
    return float((midranks(score)[positive].sum() - m * (m + 1) / 2) / (m * n))


def average_precision(truth: FloatArray, score: FloatArray) -> float:
    """Return the step-wise area under the precision-recall curve (scikit-learn's definition)."""
    ones = np.ones((1, len(truth)))
    return float(weighted_average_precision(truth, score, ones)[0])


def weighted_roc_auc(truth: FloatArray, score: FloatArray, weights: FloatArray) -> FloatArray:
    """Return one ROC AUC per row of ``weights``.

    Args:
        truth: Shape (n,), 0 or 1.
        score: Shape (n,).
        weights: Shape (b, n), >= 0.

    Returns:
        Shape (b,); NaN where a class has no weight.
    """
    positives, negatives = _tied_weights(truth, score, weights)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return np.asarray((positives * below).sum(axis=1) / pairs, dtype=np.float64)


def weighted_average_precision(truth: FloatArray, score: FloatArray, weights: FloatArray) -> FloatArray:
    """Return one average precision per row of ``weights`` (b, n); NaN where no positive has weight."""
    positives, negatives = _tied_weights(truth, -score, weights)
    hits = np.cumsum(positives, axis=1)
    found = hits + np.cumsum(negatives, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(found > 0, hits / found, 0.0)
        return np.asarray((positives * precision).sum(axis=1) / hits[:, -1], dtype=np.float64)


def roc_auc_influence(truth: FloatArray, score: FloatArray) -> FloatArray:
    """Return each row's influence on the AUC, shape (n,), mean 0: AUC* - AUC is about its mean."""
    v10, v01 = placements(truth, score)
    positive = truth == 1
    area, n = float(v10.mean()), len(truth)
    influence = np.empty(n)
    influence[positive] = (v10 - area) * (n / len(v10))
    influence[~positive] = (v01 - area) * (n / len(v01))
    return influence


def average_precision_influence(truth: FloatArray, score: FloatArray) -> FloatArray:
    """Return each row's influence on the average precision, shape (n,), mean about 0.

    With pi the share of positives, F(t) the share of rows scored >= t and p(t) the precision there,
    a row (s, y) contributes ``(y (p(s) - AP) + sum over positives j with s_j <= s of
    (y - p(s_j)) / (n F(s_j))) / pi``: its own precision, and how it moves everybody's below it.
    """
    order = np.argsort(-score)
    starts = _run_starts(score[order])
    sizes = np.diff(np.append(starts, len(score)))
    y, n = truth[order], len(truth)
    positives = np.add.reduceat(y, starts)
    found = np.cumsum(sizes)
    precision = np.cumsum(positives) / found
    share = positives.sum() / n
    area = float((positives * precision).sum() / positives.sum())
    # Sums over the positives ranked at or below each run of tied scores.
    moved = np.cumsum((positives / found)[::-1])[::-1]
    moved_precision = np.cumsum((positives * precision / found)[::-1])[::-1]
    run = np.repeat(np.arange(len(starts)), sizes)
    influence = np.empty(n)
    influence[order] = (y * (precision[run] - area) + y * moved[run] - moved_precision[run]) / share
    return influence


def _tied_weights(truth: FloatArray, score: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return weights of positives and negatives per distinct score, ascending, shapes (b, g)."""
    order = np.argsort(score)
    starts = _run_starts(score[order])
    y, ordered = truth[order], weights[:, order]
    positives = np.add.reduceat(ordered * y, starts, axis=1)
    return positives, np.add.reduceat(ordered, starts, axis=1) - positives


def _run_starts(ordered: FloatArray) -> IntArray:
    """Return where each run of equal values begins in a sorted array."""
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]).astype(np.int64)

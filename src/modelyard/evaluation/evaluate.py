"""Measure one model on labelled rows: every metric with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.evaluation import bootstrap
from modelyard.evaluation.delong import auc_interval
from modelyard.evaluation.estimate import (
    Estimate,
    FloatArray,
    Insufficient,
    IntArray,
    Measured,
    normal_quantile,
    wilson,
)
from modelyard.evaluation.inputs import Sample, Task, read_sample
from modelyard.evaluation.metrics import Metric, Rank, metric_names, metric_of

_FEWEST = 2


def evaluate(
    y_true: npt.ArrayLike,
    prediction: npt.ArrayLike,
    *,
    task: Task,
    metrics: Sequence[str] | None = None,
    rng: np.random.Generator,
    confidence: float = 0.95,
    threshold: float = 0.5,
    classes: Sequence[object] | None = None,
    draws: int = bootstrap.DRAWS,
) -> dict[str, Measured]:
    """Compute metrics with two-sided confidence intervals.

    ROC AUC has DeLong's interval, proportions (accuracy, precision, recall) Wilson's, the others a
    BCa bootstrap. From 20,000 rows on, the bootstrap draws means from their normal limit and average
    precision is linearised, so that the cost stays near one pass over the data.

    Args:
        y_true: Shape (n,); see :func:`read_sample` for the forms accepted.
        prediction: Scores, labels or probabilities of the same n rows.
        task: ``"binary"``, ``"multiclass"`` or ``"regression"``.
        metrics: Names; all of the task's by default.
        rng: Source of randomness of the bootstrap.
        confidence: Level of the intervals in (0, 1).
        threshold: Binary score from which on a row counts as class 1.
        classes: Class labels in the order of the probability columns.
        draws: Bootstrap replicates.

    Returns:
        One :class:`Estimate` per metric, or :class:`Insufficient` where the data cannot give it.

    Raises:
        Invalid: If shapes do not fit or the level is not in (0, 1).
        NotFound: If the task has no such metric.

    >>> truth, score = [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9]
    >>> found = evaluate(truth, score, task="binary", metrics=["roc_auc"], rng=np.random.default_rng(0))
    >>> found["roc_auc"].value
    0.75
    """
    if not 0 < confidence < 1:
        raise Invalid(f"A confidence level lies between 0 and 1; {confidence} does not.")
    chosen = [metric_of(name, task=task) for name in (metrics or metric_names(task))]
    sample = read_sample(y_true, prediction, task=task, threshold=threshold, classes=classes)
    if isinstance(sample, Insufficient):
        return dict.fromkeys((metric.name for metric in chosen), sample)
    return {m.name: measure(m, sample, rng=rng, confidence=confidence, draws=draws) for m in chosen}


def measure(
    metric: Metric,
    sample: Sample,
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    draws: int = bootstrap.DRAWS,
) -> Measured:
    """Compute one metric with its interval on a checked sample."""
    problem = metric.why_not(sample)
    if problem is not None:
        return problem
    if metric.proportion is not None:
        hits, trials = metric.proportion(sample)
        low, high = wilson(hits, trials, confidence=confidence)
        return Estimate(hits / trials, low, high, trials, "wilson")
    if sample.n < _FEWEST:
        return Insufficient(f"{metric.label} has no interval on a single row", sample.n)
    value = metric.value(sample)
    if not np.isfinite(value):
        return Insufficient(f"{metric.label} is not finite on these rows", sample.n)
    if metric.name == "roc_auc":
        low, high = auc_interval(sample.truth, sample.score, confidence=confidence)
        return Estimate(value, low, high, sample.n, "delong")
    if metric.rank is not None:
        low, high, method = _rank_interval(metric.rank, sample, value, rng=rng, confidence=confidence, draws=draws)
    else:
        low, high, method = _mean_interval(metric, sample, value, rng=rng, confidence=confidence, draws=draws)
    smallest, largest = metric.bounds
    return Estimate(value, max(low, smallest), min(high, largest), sample.n, method)


def _rank_interval(
    rank: Rank, sample: Sample, value: float, *, rng: np.random.Generator, confidence: float, draws: int
) -> tuple[float, float, str]:
    influence = rank.influence(sample.truth, sample.score)
    if sample.n >= bootstrap.NORMAL_FROM:
        half = normal_quantile(0.5 + confidence / 2) * float(influence.std()) / sqrt(sample.n)
        return value - half, value + half, "linearised"
    replicates = bootstrap.weighted_draws(
        lambda weights: rank.weighted(sample.truth, sample.score, weights),
        bootstrap.Units.of_rows(sample.n),
        rng=rng,
        draws=draws,
    )
    replicates = replicates[np.isfinite(replicates)]
    # The influence is the derivative that the jackknife approximates.
    return _bca_or_percentile(replicates, value, value - influence / sample.n, confidence)


def _mean_interval(
    metric: Metric, sample: Sample, value: float, *, rng: np.random.Generator, confidence: float, draws: int
) -> tuple[float, float, str]:
    if metric.rows is None or metric.of_means is None:
        raise AssertionError(f"metric {metric.name} is neither a mean nor a rank metric")
    counts: IntArray | None = None
    units = bootstrap.Units.of_rows(sample.n)
    if metric.cells:
        index, counts = distinct_rows(sample.truth, sample.label)
        sample = sample.take(index)
        units = bootstrap.Units.of_cells(counts)
    rows = metric.rows(sample)
    replicates = metric.of_means(bootstrap.mean_draws(rows, units, rng=rng, draws=draws))
    replicates = replicates[np.isfinite(replicates)]
    if metric.biased:
        low, high = bootstrap.basic_interval(replicates, value, confidence=confidence)
        return low, high, "bootstrap-basic"
    left_out = metric.of_means(_means_without_one(rows, counts))
    return _bca_or_percentile(replicates, value, left_out, confidence)


def _bca_or_percentile(
    replicates: FloatArray, value: float, leave_one_out: FloatArray, confidence: float
) -> tuple[float, float, str]:
    usable = leave_one_out[np.isfinite(leave_one_out)]
    interval = None
    if usable.size:
        interval = bootstrap.bca_interval(replicates, value, usable, confidence=confidence)
    if interval is not None:
        return *interval, "bootstrap-bca"
    return *bootstrap.percentile_interval(replicates, confidence=confidence), "bootstrap-percentile"


def _means_without_one(rows: FloatArray, counts: IntArray | None) -> FloatArray:
    """Return the means with each row left out; equal rows of a table are repeated."""
    if counts is None:
        return np.asarray((rows.sum(axis=0) - rows) / (len(rows) - 1), dtype=np.float64)
    left = (counts @ rows - rows) / (counts.sum() - 1)
    return np.asarray(np.repeat(left, np.minimum(counts, bootstrap.NORMAL_FROM), axis=0), dtype=np.float64)


def distinct_rows(*columns: FloatArray | IntArray) -> tuple[IntArray, IntArray]:
    """Return the first index and the count of each distinct combination of columns of shape (n,)."""
    table = np.column_stack([column.astype(np.float64) for column in columns])
    _, index, counts = np.unique(table, axis=0, return_index=True, return_counts=True)
    return index.astype(np.int64), counts.astype(np.int64)

"""The registry of metrics: what each needs, which way is better, and how it is computed.

A metric is of one of two kinds. A *mean* metric is a function of means of per-row quantities
(``rows`` then ``of_means``), so that one bootstrap serves all of them. A *rank* metric (ROC AUC,
average precision) is a function of row weights, with a known influence per row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from modelyard.errors import NotFound
from modelyard.evaluation import ranking
from modelyard.evaluation.estimate import FloatArray, Insufficient
from modelyard.evaluation.inputs import Sample, Task

Direction: TypeAlias = Literal["higher", "lower", "zero"]

ECE_BINS = 15
"""Equal-width bins of the calibration error: Guo et al. (2017), On Calibration of Modern Neural Networks."""

_TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Rank:
    """How a rank metric is computed.

    Attributes:
        value: (truth, score) -> value.
        weighted: (truth, score, weights (b, n)) -> values (b,).
        influence: (truth, score) -> influence per row (n,).
    """

    value: Callable[[FloatArray, FloatArray], float]
    weighted: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
    influence: Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of one task.

    Attributes:
        name: Lower-snake name, as conditions write it.
        label: Name for a sentence.
        task: Task that it belongs to.
        direction: Whether higher, lower or nearer to zero is better.
        rows: Sample -> per-row quantities (n, k); None for rank metrics.
        of_means: Means (..., k) -> values (...).
        proportion: Sample -> (hits, trials) where the metric is a plain proportion.
        rank: How it is computed, for rank metrics.
        check: Sample -> why the metric is undefined on it, or None.
        bounds: Smallest and largest value that is possible.
        biased: Whether resampling moves it in one direction (calibration error).
        cells: Whether it depends on classes alone, so that equal rows can be counted first.
    """

    name: str
    label: str
    task: Task
    direction: Direction
    rows: Callable[[Sample], FloatArray] | None = None
    of_means: Callable[[FloatArray], FloatArray] | None = None
    proportion: Callable[[Sample], tuple[int, int]] | None = None
    rank: Rank | None = None
    check: Callable[[Sample], str | None] | None = None
    bounds: tuple[float, float] = (0.0, np.inf)
    biased: bool = False
    cells: bool = False

    def value(self, sample: Sample) -> float:
        """Compute the metric on a sample that passed :meth:`why_not`."""
        if self.rank is not None:
            return self.rank.value(sample.truth, sample.score)
        if self.rows is None or self.of_means is None:
            raise AssertionError(f"metric {self.name} is neither a mean nor a rank metric")
        return float(self.of_means(self.rows(sample).mean(axis=0)))

    def why_not(self, sample: Sample) -> Insufficient | None:
        """Say why the metric cannot be computed on this sample, or return None."""
        reason = self.check(sample) if self.check is not None else None
        return None if reason is None else Insufficient(f"{self.label} is undefined: {reason}", sample.n)

    def goodness(self, value: FloatArray) -> FloatArray:
        """Turn values so that more is better."""
        if self.direction == "zero":
            return np.asarray(-np.abs(value), dtype=np.float64)
        return value if self.direction == "higher" else np.negative(value)


def metric_of(name: str, *, task: Task) -> Metric:
    """Return the metric of a task by name.

    Raises:
        NotFound: If the task has no such metric.
    """
    found = METRICS.get((task, name))
    if found is None:
        known = metric_names(task)
        raise NotFound(f"{task} metric", name, known=known, hint=f"Known: {', '.join(known)}.")
    return found


def metric_names(task: Task) -> list[str]:
    """Return the names of a task's metrics, in the order they are shown."""
    return [name for of_task, name in METRICS if of_task == task]


def _counts(sample: Sample) -> FloatArray:
    """True positives, predicted positives, positives."""
    hit = sample.label * sample.truth
    return np.column_stack([hit, sample.label, sample.truth])


def _right(sample: Sample) -> FloatArray:
    return np.asarray((sample.label == sample.truth)[:, None], dtype=np.float64)


def _first(means: FloatArray) -> FloatArray:
    return np.asarray(means[..., 0], dtype=np.float64)


def _root_first(means: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(means[..., 0]), dtype=np.float64)


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 0, top / bottom, 0.0)


def _precision(means: FloatArray) -> FloatArray:
    return _ratio(means[..., 0], means[..., 1])


def _recall(means: FloatArray) -> FloatArray:
    return _ratio(means[..., 0], means[..., 2])


def _f1(means: FloatArray) -> FloatArray:
    return _ratio(2 * means[..., 0], means[..., 1] + means[..., 2])


def _accuracy_of(sample: Sample) -> tuple[int, int]:
    return int((sample.label == sample.truth).sum()), sample.n


def _precision_of(sample: Sample) -> tuple[int, int]:
    return int((sample.label * sample.truth).sum()), int(sample.label.sum())


def _recall_of(sample: Sample) -> tuple[int, int]:
    return int((sample.label * sample.truth).sum()), int(sample.truth.sum())


def _binary_log_loss(sample: Sample) -> FloatArray:
    p = np.clip(sample.score, _TINY, 1 - _TINY)
    loss = np.where(sample.truth == 1, -np.log(p), -np.log1p(-p))
    return np.asarray(loss[:, None], dtype=np.float64)


def _squared_error(sample: Sample) -> FloatArray:
    return ((sample.score - sample.truth) ** 2)[:, None]


def _calibration_gaps(sample: Sample) -> FloatArray:
    bin_of = np.minimum((sample.score * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.zeros((sample.n, ECE_BINS))
    gaps[np.arange(sample.n), bin_of] = sample.score - sample.truth
    return gaps


def _sum_of_gaps(means: FloatArray) -> FloatArray:
    return np.asarray(np.abs(means).sum(axis=-1), dtype=np.float64)


def _class_counts(sample: Sample) -> FloatArray:
    """Per class: hit, predicted, true; shape (n, 3 K)."""
    each = np.arange(sample.classes)
    predicted = sample.label[:, None] == each
    true = sample.truth[:, None] == each
    return np.concatenate([predicted & true, predicted, true], axis=1).astype(np.float64)


def _macro_f1(means: FloatArray) -> FloatArray:
    hit, predicted, true = np.split(means, 3, axis=-1)
    present = predicted + true > 0
    scores = _ratio(2 * hit, predicted + true)
    return np.asarray(scores.sum(axis=-1) / np.maximum(present.sum(axis=-1), 1), dtype=np.float64)


def _multiclass_log_loss(sample: Sample) -> FloatArray:
    if sample.proba is None:
        raise AssertionError("checked by _needs_probabilities")
    total = sample.proba.sum(axis=1)
    own = sample.proba[np.arange(sample.n), sample.truth.astype(np.int64)] / total
    return np.asarray(-np.log(np.clip(own, _TINY, 1.0))[:, None], dtype=np.float64)


def _absolute_error(sample: Sample) -> FloatArray:
    return np.abs(sample.score - sample.truth)[:, None]


def _relative_error(sample: Sample) -> FloatArray:
    return np.abs((sample.score - sample.truth) / sample.truth)[:, None]


def _error(sample: Sample) -> FloatArray:
    return (sample.score - sample.truth)[:, None]


def _variance_parts(sample: Sample) -> FloatArray:
    # Centred on the sample's mean: large targets would cancel otherwise.
    centred = sample.truth - sample.truth.mean()
    return np.column_stack([(sample.score - sample.truth) ** 2, centred**2, centred])


def _r2(means: FloatArray) -> FloatArray:
    # A resample of equal targets has no spread; its value is not finite and is left out.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1.0 - means[..., 0] / (means[..., 1] - means[..., 2] ** 2), dtype=np.float64)


def _needs_both_classes(sample: Sample) -> str | None:
    positives = int(sample.truth.sum())
    if 0 < positives < sample.n:
        return None
    return f"all {sample.n:,} rows are of class {1 if positives else 0}"


def _needs_positives(sample: Sample) -> str | None:
    return None if sample.truth.any() else f"none of {sample.n:,} rows is of class 1"


def _needs_predicted_positives(sample: Sample) -> str | None:
    return None if sample.label.any() else f"none of {sample.n:,} rows was predicted as class 1"


def _needs_probabilities(sample: Sample) -> str | None:
    if sample.probabilities:
        return None
    return "the model gives no probabilities (values between 0 and 1, one per class, that sum to 1)"


def _needs_positives_and_probabilities(sample: Sample) -> str | None:
    return _needs_probabilities(sample) or _needs_positives(sample)


def _needs_predictions_and_probabilities(sample: Sample) -> str | None:
    return _needs_probabilities(sample) or _needs_predicted_positives(sample)


def _needs_no_zero(sample: Sample) -> str | None:
    zeros = int((sample.truth == 0).sum())
    return f"{zeros:,} of {sample.n:,} targets are zero" if zeros else None


def _needs_spread(sample: Sample) -> str | None:
    return None if np.ptp(sample.truth) > 0 else f"all {sample.n:,} targets are equal"


_ROC = Rank(ranking.roc_auc, ranking.weighted_roc_auc, ranking.roc_auc_influence)
_PR = Rank(ranking.average_precision, ranking.weighted_average_precision, ranking.average_precision_influence)
_UNIT = (0.0, 1.0)
_LINE = (-np.inf, np.inf)

_ALL = [
    Metric("roc_auc", "ROC AUC", "binary", "higher", rank=_ROC, check=_needs_both_classes, bounds=_UNIT),
    Metric("pr_auc", "PR AUC", "binary", "higher", rank=_PR, check=_needs_positives, bounds=_UNIT),
    Metric("accuracy", "accuracy", "binary", "higher", _right, _first, _accuracy_of,
           check=_needs_probabilities, bounds=_UNIT, cells=True),
    Metric("precision", "precision", "binary", "higher", _counts, _precision, _precision_of,
           check=_needs_predictions_and_probabilities, bounds=_UNIT, cells=True),
    Metric("recall", "recall", "binary", "higher", _counts, _recall, _recall_of,
           check=_needs_positives_and_probabilities, bounds=_UNIT, cells=True),
    Metric("f1", "F1", "binary", "higher", _counts, _f1,
           check=_needs_positives_and_probabilities, bounds=_UNIT, cells=True),
    Metric("log_loss", "log loss", "binary", "lower", _binary_log_loss, _first, check=_needs_probabilities),
    Metric("brier", "Brier score", "binary", "lower", _squared_error, _first,
           check=_needs_probabilities, bounds=_UNIT),
    Metric("ece", "calibration error", "binary", "lower", _calibration_gaps, _sum_of_gaps,
           check=_needs_probabilities, bounds=_UNIT, biased=True),
    Metric("accuracy", "accuracy", "multiclass", "higher", _right, _first, _accuracy_of,
           bounds=_UNIT, cells=True),
    Metric("macro_f1", "macro F1", "multiclass", "higher", _class_counts, _macro_f1,
           bounds=_UNIT, cells=True),
    Metric("log_loss", "log loss", "multiclass", "lower", _multiclass_log_loss, _first,
           check=_needs_probabilities),
    Metric("rmse", "RMSE", "regression", "lower", _squared_error, _root_first),
    Metric("mae", "MAE", "regression", "lower", _absolute_error, _first),
    Metric("mape", "MAPE", "regression", "lower", _relative_error, _first, check=_needs_no_zero),
    Metric("r2", "R2", "regression", "higher", _variance_parts, _r2, check=_needs_spread,
           bounds=(-np.inf, 1.0)),
    Metric("bias", "bias", "regression", "zero", _error, _first, bounds=_LINE),
]  # fmt: skip

METRICS: dict[tuple[Task, str], Metric] = {(metric.task, metric.name): metric for metric in _ALL}
"""Every metric by task and name."""

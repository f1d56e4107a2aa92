"""Turn labels and predictions of any accepted shape into one checked sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.evaluation.estimate import FloatArray, Insufficient, IntArray

MISSING = "(missing)"
"""Name of the rows whose group or slice is not known."""

Task: TypeAlias = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Labelled predictions of one model, finite and of equal length.

    Attributes:
        task: What is predicted.
        truth: Shape (n,). 0/1, class index, or target value.
        score: Shape (n,). Score of class 1 (binary), class index (multiclass) or predicted value.
        label: Shape (n,). Predicted class index; empty for regression.
        proba: Shape (n, K), or None where the model gave labels alone.
        probabilities: Whether the scores are probabilities (in [0, 1]; rows sum to 1).
        classes: Number of classes; 0 for regression.
    """

    task: Task
    truth: FloatArray
    score: FloatArray
    label: IntArray
    proba: FloatArray | None
    probabilities: bool
    classes: int

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.truth.size)

    def take(self, index: npt.NDArray[np.bool_] | IntArray) -> Sample:
        """Return the rows that ``index`` selects."""
        return replace(
            self,
            truth=self.truth[index],
            score=self.score[index],
            label=self.label[index] if self.label.size else self.label,
            proba=None if self.proba is None else self.proba[index],
        )


def read_sample(
    y_true: npt.ArrayLike,
    prediction: npt.ArrayLike,
    *,
    task: Task,
    threshold: float = 0.5,
    classes: Sequence[object] | None = None,
) -> Sample | Insufficient:
    """Check labels and predictions and bring them into one form.

    Args:
        y_true: Shape (n,). Binary: 0/1 or booleans, or two values named by ``classes``.
        prediction: Binary: (n,) scores or (n, 2) probabilities. Multiclass: (n,) labels or (n, K)
            probabilities. Regression: (n,).
        task: What is predicted.
        threshold: Binary score from which on a row counts as class 1.
        classes: Class labels in the order of the probability columns; by default 0..K-1, or, for
            labels that are not such numbers, the sorted distinct values.

    Returns:
        The sample, or why there is none (no rows, missing labels, non-finite predictions).

    Raises:
        Invalid: If shapes do not fit, or the task or a class is unknown.
    """
    if task not in get_args(Task):
        raise Invalid(f"Unknown task {task!r}; expected one of {', '.join(get_args(Task))}.", task=task)
    truth_raw, predicted = np.asarray(y_true), np.asarray(prediction)
    if truth_raw.ndim != 1:
        raise Invalid(f"Labels must be one column; they have shape {truth_raw.shape}.")
    if predicted.ndim not in (1, 2) or len(predicted) != len(truth_raw):
        raise Invalid(f"Predictions of shape {predicted.shape} do not fit {len(truth_raw)} labels.")
    n = len(truth_raw)
    if n == 0:
        return Insufficient("there are no labelled rows", 0)
    missing = int(_missing(truth_raw).sum())
    if missing:
        return Insufficient(f"{missing:,} of {n:,} labels are missing", n)
    lost = _missing(predicted)
    lost_rows = int((lost.any(axis=1) if lost.ndim == 2 else lost).sum())
    if lost_rows:
        return Insufficient(f"{lost_rows:,} of {n:,} predictions are missing or not finite", n)
    if task == "regression":
        return _regression(truth_raw, predicted)
    if task == "binary":
        return _binary(truth_raw, predicted, threshold, classes)
    return _multiclass(truth_raw, predicted, classes)


def group_names(values: npt.NDArray[np.generic]) -> npt.NDArray[np.str_]:
    """Return group or slice values of shape (n,) as text, those that are missing as ``(missing)``.

    Only None and NaN are missing here: an infinite value is a value.
    """
    names = values.astype(np.str_)
    if values.dtype.kind in "Of":
        gaps = [value is None or value != value for value in values.tolist()]  # noqa: PLR0124 (NaN)
        names = np.where(np.array(gaps, dtype=np.bool_), MISSING, names)
    return names


def _missing(values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    if values.dtype.kind == "f":
        return ~np.isfinite(values.astype(np.float64))
    if values.dtype.kind == "O":
        gaps = [value is None or bool(value != value) for value in values.ravel()]  # noqa: PLR0124 (NaN)
        return np.array(gaps, dtype=np.bool_).reshape(values.shape)
    return np.zeros(values.shape, dtype=np.bool_)


def _floats(values: npt.NDArray[np.generic], what: str) -> FloatArray:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise Invalid(f"{what} must be numbers; they are {values.dtype}.") from error


def _regression(truth: npt.NDArray[np.generic], predicted: npt.NDArray[np.generic]) -> Sample:
    score = _floats(predicted, "Predictions")
    if score.ndim == 2:
        if score.shape[1] != 1:
            raise Invalid(f"A regression predicts one column; these predictions have {score.shape[1]}.")
        score = score[:, 0]
    no_label = np.empty(0, dtype=np.int64)
    return Sample("regression", _floats(truth, "Targets"), score, no_label, None, False, 0)


def _binary(
    truth: npt.NDArray[np.generic],
    predicted: npt.NDArray[np.generic],
    threshold: float,
    classes: Sequence[object] | None,
) -> Sample:
    names: Sequence[object] = (0, 1) if classes is None else classes
    if len(names) != 2:
        raise Invalid(f"A binary task has two classes; {len(names)} were named.")
    code = _codes(truth, names).astype(np.float64)
    if predicted.ndim == 2:
        if predicted.shape[1] not in (1, 2):
            raise Invalid(f"Binary predictions have one or two columns; these have {predicted.shape[1]}.")
        predicted = predicted[:, -1]
    if predicted.dtype.kind in "OUS" and classes is not None:
        score = _codes(predicted, names).astype(np.float64)
    else:
        score = _floats(predicted, "Scores")
    inside = bool(score.min() >= 0.0 and score.max() <= 1.0)
    return Sample("binary", code, score, (score >= threshold).astype(np.int64), None, inside, 2)


def _multiclass(
    truth: npt.NDArray[np.generic],
    predicted: npt.NDArray[np.generic],
    classes: Sequence[object] | None,
) -> Sample:
    names = classes if classes is not None else _class_names(truth, predicted)
    code = _codes(truth, names).astype(np.float64)
    if predicted.ndim == 1:
        label = _codes(predicted, names)
        return Sample("multiclass", code, label.astype(np.float64), label, None, False, len(names))
    proba = _floats(predicted, "Probabilities")
    if proba.shape[1] != len(names):
        raise Invalid(f"There are {proba.shape[1]} probability columns for {len(names)} classes; name the classes.")
    label = proba.argmax(axis=1).astype(np.int64)
    # 1e-3 lets float32 and rounded answers through and still catches logits.
    sums = bool(np.abs(proba.sum(axis=1) - 1.0).max() <= 1e-3 and proba.min() >= 0.0)
    return Sample("multiclass", code, label.astype(np.float64), label, proba, sums, len(names))


def _class_names(truth: npt.NDArray[np.generic], predicted: npt.NDArray[np.generic]) -> Sequence[object]:
    if predicted.ndim == 1:
        return sorted({*truth.tolist(), *predicted.tolist()}, key=str)
    columns = range(predicted.shape[1])
    seen = set(truth.tolist())
    return columns if seen <= set(columns) else sorted(seen, key=str)


def _codes(values: npt.NDArray[np.generic], names: Sequence[object]) -> IntArray:
    position = {name: code for code, name in enumerate(names)}
    if values.dtype.kind == "O":  # mixed types do not sort
        distinct, inverse = values.ravel().tolist(), np.arange(values.size)
    else:
        sorted_values, inverse = np.unique(values, return_inverse=True)
        distinct = sorted_values.tolist()
    unknown = [value for value in distinct if value not in position]
    if unknown:
        raise Invalid(f"Class {unknown[0]!r} is not among the classes {list(names)[:10]!r}.")
    table = np.array([position[value] for value in distinct], dtype=np.int64)
    return table[inverse.reshape(values.shape)]

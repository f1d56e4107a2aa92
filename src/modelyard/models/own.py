"""A model's own prediction code behind one face: scores, labels and traits.

This is the reference that native engines are compared with, and the engine of every model without one.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.models.frame import Array, as_array
from modelyard.models.info import Flavor, Traits, task_of
from modelyard.models.lightgbm_native import header
from modelyard.models.signature import Level

Predict = Callable[[Any], Array]


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A loaded model.

    Attributes:
        traits: What it predicts.
        raw: Frame to its richest numeric output: ``(rows,)`` or ``(rows, k)``.
        labels: Frame to what its ``predict`` says, ``(rows,)``; None if labels follow from the scores.
        native_object: The library's object.
    """

    traits: Traits
    raw: Predict
    labels: Predict | None
    native_object: Any

    def scores(self, frame: Any) -> npt.NDArray[np.float64]:
        """Score a pandas frame.

        Returns:
            Binary: ``(rows,)``, the score of ``traits.positive``; multiclass ``(rows, k)``; else ``(rows,)``.

        Raises:
            Invalid: If the model returns text and was saved without data, so that its classes are unknown.
        """
        try:
            values = np.asarray(self.raw(frame), dtype=np.float64)
        except ValueError as error:
            if self.traits.classes or not str(error).startswith("could not convert string"):
                raise
            raise Invalid("This model returns text, and its classes are not known; save it with 'data'.") from error
        return one_column(values, self.traits)


def one_column(values: npt.NDArray[np.float64], traits: Traits) -> npt.NDArray[np.float64]:
    """Reduce a library's output to the shape that ``traits`` promise.

    Args:
        values: ``(rows,)`` (binary: score of the second class) or ``(rows, k)``.
        traits: Of the model.
    """
    if values.ndim == 1 and traits.positive == 1:
        return values
    if traits.task == "binary":
        if values.ndim == 2 and values.shape[1] == 2:
            return np.ascontiguousarray(values[:, traits.positive])
        flat = values.reshape(-1)
        if traits.positive == 1:
            return flat
        return 1.0 - flat if traits.score_kind == "probability" else -flat
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    return values


def labels_of(scores: npt.NDArray[np.float64], traits: Traits) -> Array | None:
    """Derive labels from scores: the likelier class.

    Returns:
        Shape ``(rows,)``, or None if the model is no classifier.
    """
    if not traits.classes:
        return None
    classes = as_array(list(traits.classes))
    if traits.task == "binary":
        limit = 0.0 if traits.score_kind == "decision" else 0.5
        second = scores > limit if traits.positive == 1 else ~(scores >= limit)
        return np.asarray(classes[second.astype(np.intp)])
    return np.asarray(classes[np.argmax(scores, axis=1)])


def own_model(model: Any, flavor: Flavor, *, sample: Any = None, positive_label: Level | None = None) -> OwnModel:
    """Put a loaded library object behind the common face.

    Args:
        model: Estimator, booster, callable or object with ``predict``.
        flavor: What it is.
        sample: A pandas frame to try a callable on, since nothing else tells what it returns; or None.
        positive_label: Class whose score a binary model reports; None takes the second.

    Raises:
        Invalid: If ``positive_label`` is not one of a binary model's classes.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if kind == "lightgbm.basic.Booster":
        own = _lightgbm(model)
    elif kind == "xgboost.core.Booster":
        own = _xgboost(model)
    elif hasattr(model, "classes_") and not isinstance(model.classes_, list) and not callable(model.classes_):
        own = _classifier(model)
    else:
        own = _predictor(model, sample if flavor == "python" else None)
    return own if positive_label is None else replace(own, traits=with_positive(own.traits, positive_label))


def with_positive(traits: Traits, label: Level) -> Traits:
    """Return the traits with another class as the positive one.

    Raises:
        Invalid: If the model is not binary, or has no such class.
    """
    if traits.task != "binary" or label not in traits.classes:
        raise Invalid(
            f"The positive label {label!r} is not one of this model's two classes {list(traits.classes)}.",
            label=label,
            classes=list(traits.classes),
        )
    return replace(traits, positive=traits.classes.index(label))


def _classifier(model: Any) -> OwnModel:
    classes = tuple(c.item() if isinstance(c, np.generic) else c for c in model.classes_)
    task = task_of(classes)
    if callable(getattr(type(model), "_objective", None)) or callable(getattr(model, "objective", None)):
        return _predictor(model, None)  # a custom objective leaves raw sums, not probabilities
    if hasattr(model, "predict_proba"):
        return OwnModel(Traits(task, classes, 1, "probability", "labels"), model.predict_proba, model.predict, model)
    if hasattr(model, "decision_function"):
        traits = Traits(task, classes, 1, "decision", "labels")
        return OwnModel(traits, model.decision_function, model.predict, model)
    return labeller(model.predict, classes, model)


def labeller(predict: Predict, classes: tuple[Level, ...], model: Any) -> OwnModel:
    """Make a score of 1 for the label given, for models that give labels only."""
    known = np.array(classes, dtype=object)
    task = task_of(classes)

    def raw(frame: Any) -> Array:
        found = np.asarray(predict(frame)).astype(object).reshape(-1, 1)
        return np.asarray(found == known[None, :], dtype=np.float64)

    return OwnModel(Traits(task, classes, 1, "indicator", "labels"), raw, predict, model)


def _predictor(model: Any, sample: Any) -> OwnModel:
    predict = _caller(model)
    if sample is not None:
        output = np.asarray(predict(sample))
        if output.ndim == 2 and output.shape[1] > 1:
            classes: tuple[Level, ...] = tuple(range(output.shape[1]))
            return OwnModel(Traits(task_of(classes), classes, 1, "probability", "scores"), predict, None, model)
        if output.dtype.kind in "OUSb":
            labels = sorted(
                {item if isinstance(item, str | bool) else str(item) for item in output.reshape(-1).tolist()}
            )
            return labeller(predict, tuple(labels) if len(labels) > 1 else (*labels, f"not {labels[0]}"), model)
    return OwnModel(Traits("regression"), predict, None, model)


def _caller(model: Any) -> Predict:
    """Find how to call an object: ``predict(frame)``, MLflow's ``predict(context, frame)``, or itself."""
    method = getattr(model, "predict", None)
    if method is None:
        return lambda frame: np.asarray(model(frame))
    try:
        parameters = [p for p in inspect.signature(method).parameters if p not in {"self", "params"}]
    except (TypeError, ValueError):
        parameters = []
    if parameters[:1] in (["context"], ["ctx"]):
        return lambda frame: np.asarray(method(None, frame))
    return lambda frame: np.asarray(method(frame))


def _lightgbm(model: Any) -> OwnModel:
    traits = booster_traits(model.model_to_string(num_iteration=1))
    return OwnModel(traits, model.predict, None, model)


def booster_traits(text: str) -> Traits:
    """Tell from a LightGBM model text what its booster predicts."""
    head = header(text)
    objective = head.get("objective", "").split(" ")[0]
    if objective == "binary":
        return Traits("binary", (0, 1), 1, "probability")
    if objective in {"multiclass", "multiclassova"}:
        return Traits("multiclass", tuple(range(int(head["num_class"]))), 1, "probability")
    return Traits("regression")


def _xgboost(model: Any) -> OwnModel:
    import xgboost  # noqa: PLC0415 - the model is one of its objects, so it is loaded

    def raw(frame: Any) -> Array:
        return np.asarray(model.predict(xgboost.DMatrix(frame, enable_categorical=True)))

    learner = json.loads(model.save_config())["learner"]
    objective = learner["objective"]["name"]
    if objective == "binary:logistic":
        traits = Traits("binary", (0, 1), 1, "probability")
    elif objective == "multi:softprob":
        traits = Traits("multiclass", tuple(range(int(learner["learner_model_param"]["num_class"]))), 1, "probability")
    else:
        traits = Traits("regression")
    return OwnModel(traits, raw, None, model)

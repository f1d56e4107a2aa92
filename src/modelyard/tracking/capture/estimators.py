"""The hook for scikit-learn and everything that follows its conventions: the outermost ``fit``."""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from modelyard.tracking.capture.hooks import MARK, Patches, Session, fitting, guarded, outermost, session

Fit = Callable[..., Any]
# Above so many values a table is not digested, and above so many rows the score is taken on a selection.
MAX_CELLS = 100_000_000
MAX_SCORED_ROWS = 100_000
_PLAIN = (str, int, float, bool, type(None))


def install(base: ModuleType, patches: Patches) -> None:
    """Wrap the ``fit`` of every estimator class that exists, and of each that will be defined."""
    estimator = base.BaseEstimator
    for known in _subclasses(estimator):
        wrap_fit(known, patches)
    defined = vars(estimator).get("__init_subclass__")

    def __init_subclass__(cls: Any, /, **options: Any) -> None:  # noqa: N807
        if defined is None:
            super(estimator, cls).__init_subclass__(**options)
        else:
            defined.__get__(None, cls)(**options)
        wrap_fit(cls, patches)

    patches.replace(estimator, "__init_subclass__", classmethod(__init_subclass__))


def wrap_fit(cls: type, patches: Patches) -> None:
    """Wrap the ``fit`` that a class defines itself, once."""
    fit = vars(cls).get("fit")
    if isinstance(fit, FunctionType) and not hasattr(fit, MARK):
        patches.replace(cls, "fit", _wrapped(fit))


def _wrapped(original: Fit) -> Fit:
    # A class of the user's script is pickled by value with its methods. This one names no global of ours, so that
    # it can be, and imports us only when it is called.
    @functools.wraps(original)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        from modelyard.tracking.capture.estimators import around_fit

        return around_fit(original, self, args, kwargs)

    setattr(fit, MARK, original)
    return fit


def around_fit(original: Fit, estimator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Fit, and record it if it is the outermost fit of a model inside a run."""
    active = session.get()
    if active is None or outermost() is not None or not hasattr(estimator, "predict"):
        return original(estimator, *args, **kwargs)
    with fitting(estimator):
        prefix = active.prefix()
        guarded(active, "parameters", record_params, active, estimator, prefix)
        result = original(estimator, *args, **kwargs)
        given = guarded(active, "training data", _given, original, estimator, args, kwargs)
        data, target = given or (None, None)
        guarded(active, "training data", record_training_data, active, data, target, prefix)
        guarded(active, "the training score", _record_score, active, estimator, data, target, prefix)
        guarded(active, "feature importance", _record_importance, active, estimator, prefix)
        guarded(active, "the search", _record_search, active, estimator, prefix)
    return result


def record_params(active: Session, estimator: Any, prefix: str) -> None:
    """Log the class and the parameters that are plain values; nested estimators by their class."""
    values = {
        key: value if isinstance(value, _PLAIN) else _shown(value)
        for key, value in estimator.get_params(deep=True).items()
    }
    kind = type(estimator)
    active.run.log_params({f"{prefix}{key}": value for key, value in values.items()})
    active.run.set_tags({f"{prefix}estimator": f"{kind.__module__}.{kind.__qualname__}"})


def record_training_data(active: Session, data: Any, target: Any, prefix: str) -> None:
    """Log digest, schema and profile of the training data, and the signature that they give a model."""
    from modelyard.models import infer_signature
    from modelyard.tracking.capture.data import record_data, to_table

    if data is None or _cells(data) > MAX_CELLS:
        return
    record_data(active.run, data, name=f"{prefix}training", target=target)
    # An array keeps its positional signature; lists and sparse matrices are no tables to a model.
    known = hasattr(data, "columns") or isinstance(data, np.ndarray | Mapping)
    signature = json.dumps(infer_signature(data if known else to_table(data)).to_json())
    active.run.log_artifact(f"{_folder(prefix)}signature.json", signature.encode())


def record_importance(active: Session, names: list[str], values: Any, prefix: str) -> None:
    """Log one importance a feature as an artifact, the largest first."""
    pairs = sorted(zip(names, map(float, values), strict=True), key=lambda pair: -abs(pair[1]))
    active.run.log_artifact(f"{_folder(prefix)}feature_importance.json", json.dumps(dict(pairs)).encode())


def _record_score(active: Session, estimator: Any, data: Any, target: Any, prefix: str) -> None:
    if data is None or target is None or not hasattr(estimator, "score"):
        return
    step = -(-_rows(data) // MAX_SCORED_ROWS) or 1
    score = float(estimator.score(_every(data, step), _every(target, step)))
    kind = getattr(estimator, "_estimator_type", None) or _tagged(estimator)
    name = {"classifier": "training_accuracy", "regressor": "training_r2"}.get(kind or "", "training_score")
    active.run.log_at(0, {f"{prefix}{name}": score})


def _record_importance(active: Session, estimator: Any, prefix: str) -> None:
    values = getattr(estimator, "feature_importances_", None)
    if values is None:
        return
    names = getattr(estimator, "feature_names_in_", None)
    shown = [f"x{i}" for i in range(len(values))] if names is None else [str(name) for name in names]
    record_importance(active, shown, values, prefix)


def _record_search(active: Session, estimator: Any, prefix: str) -> None:
    best = getattr(estimator, "best_params_", None)
    if not isinstance(best, Mapping):
        return
    active.run.log_params({f"{prefix}best_{key}": _shown(value) for key, value in best.items()})
    score = getattr(estimator, "best_score_", None)
    if score is not None:
        active.run.log_at(0, {f"{prefix}best_cv_score": float(score)})


def _given(original: Fit, estimator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return data and labels of a call: ``X`` and ``y``, or the first two arguments where they are named otherwise."""
    signature = inspect.signature(original)
    bound = signature.bind(estimator, *args, **kwargs).arguments
    names = list(signature.parameters)[1:3]
    data, target = [wanted if wanted in bound else name for wanted, name in zip("Xy", [*names, "", ""], strict=False)]
    return bound.get(data), bound.get(target)


def _tagged(estimator: Any) -> str | None:
    tags = getattr(estimator, "__sklearn_tags__", None)
    return None if tags is None else tags().estimator_type


def _shown(value: Any) -> str:
    if hasattr(value, "get_params"):
        return type(value).__name__
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 500 else text[:499] + "…"


def _folder(prefix: str) -> str:
    return prefix.replace(".", "/")


def _rows(data: Any) -> int:
    shape = getattr(data, "shape", None)
    return int(shape[0]) if shape else len(data)


def _cells(data: Any) -> int:
    shape: tuple[int, ...] = getattr(data, "shape", None) or (len(data),)
    return math.prod(shape)


def _every(data: Any, step: int) -> Any:
    """Return every ``step``-th row: a head would be one class of sorted data."""
    if step == 1:
        return data
    if hasattr(data, "gather_every"):
        return data.gather_every(step)
    return (data.iloc if hasattr(data, "iloc") else data)[::step]


def _subclasses(cls: type) -> Iterator[type]:
    each: type
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)

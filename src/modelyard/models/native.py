"""Native engines: a model lifted out of its library into numbers and text, free of code.

An engine is plan (preprocessing) and head (linear or trees); its files are ``native.json`` and, for trees,
``model.lgb``. XGBoost needs no file of its own: the model file is already free of code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from modelyard.models import linear, plan
from modelyard.models.encoder import Coding, Encoder
from modelyard.models.faults import BadModelFolder
from modelyard.models.info import NATIVE_FILE, TREES_FILE, inside
from modelyard.models.lightgbm_native import SERIAL_ROWS, NativeBooster, pandas_categories
from modelyard.models.plan_lifting import lift_plan
from modelyard.models.signature import Signature

Matrix = npt.NDArray[np.float64]
_LGBM_WRAPPERS = frozenset({"LGBMClassifier", "LGBMRegressor", "LGBMRanker", "LGBMModel"})
_XGB_NUMPY_BOOSTERS = frozenset({"gbtree", "dart"})


class Head(Protocol):
    """What turns a feature matrix into scores; two kinds exist, linear and trees."""

    def score(self, x: Matrix) -> Matrix:
        """Score ``(rows, features)``."""


@dataclass(frozen=True, slots=True)
class NativeEngine:
    """Encoder, plan and head.

    Attributes:
        name: ``lightgbm-c``, ``linear``, ``pipeline+lightgbm-c``, ``pipeline+linear`` or ``xgboost-inplace``.
        encoder: Decoded rows to matrix.
        plan: Matrix to features; None if they are the same.
        head: Features to scores.
        exact: Whether it must equal the model's own code bit for bit.
    """

    name: str
    encoder: Encoder
    plan: plan.Plan | None
    head: Head
    exact: bool

    def score(self, matrix: Matrix) -> Matrix:
        """Score an encoded matrix of shape ``(rows, inputs used)``."""
        return self.head.score(matrix if self.plan is None else self.plan.apply(matrix))


@dataclass(frozen=True, slots=True)
class NativeFiles:
    """What to write beside a model so that it loads natively.

    Attributes:
        name: Name of the engine.
        document: Content of ``native.json``.
        trees: Content of ``model.lgb``, or None.
    """

    name: str
    document: dict[str, Any]
    trees: str | None = None

    def write(self, folder: Path) -> None:
        """Write them."""
        text = json.dumps({"engine": self.name, **self.document}, allow_nan=False)
        (folder / NATIVE_FILE).write_text(text + "\n", encoding="utf-8")
        if self.trees is not None:
            (folder / TREES_FILE).write_text(self.trees, encoding="utf-8")


def lift(model: Any, names: tuple[str, ...]) -> NativeFiles | None:
    """Lift a fitted model out of its library.

    Args:
        model: Booster, wrapper, estimator or pipeline.
        names: Its input columns, in the order of training.

    Returns:
        The native files, or None if the model's own code must predict.
    """
    text = trees_text(model)
    if text is not None:
        return NativeFiles("lightgbm-c", {"columns": list(names)}, text)
    steps, final = _split(model)
    steps_plan = lift_plan(steps, names)
    if steps_plan is None:
        return None
    prefix = "pipeline+" if steps else ""
    text = trees_text(final)
    document: dict[str, Any] = {"columns": list(names), "plan": steps_plan.to_json()}
    if text is not None:
        categorical = bool(pandas_categories(text))
        return None if categorical else NativeFiles(f"{prefix}lightgbm-c", document, text)
    head = linear.extract(final)
    if head is None or not np.isfinite(head.weights).all():
        return None
    return NativeFiles(f"{prefix}linear", {**document, "linear": head.to_json()})


def _split(model: Any) -> tuple[list[Any], Any]:
    if type(model).__module__ == "sklearn.pipeline" and type(model).__name__ == "Pipeline":
        return [step for _, step in model.steps[:-1]], model.steps[-1][1]
    return [], model


def trees_text(model: Any) -> str | None:
    """Return the text of a LightGBM model up to the iteration that its own ``predict`` uses.

    Returns:
        The text, or None if it is no LightGBM model, or one whose own ``predict`` does more than its trees
        (a custom objective, or prediction parameters set on the wrapper).
    """
    kind = type(model)
    if kind.__module__ == "lightgbm.basic" and kind.__name__ == "Booster":
        return str(model.model_to_string(num_iteration=None))
    if kind.__module__ != "lightgbm.sklearn" or kind.__name__ not in _LGBM_WRAPPERS:
        return None
    extra = [name for name in model.get_params() if name.startswith(("pred", "start_iter", "num_iteration", "raw_"))]
    if extra or callable(model.objective):
        return None
    return str(model.booster_.model_to_string(num_iteration=None))


def load(folder: Path, name: str, signature: Signature) -> NativeEngine | None:
    """Load the native engine whose files lie in a folder. Runs no code from it.

    Args:
        folder: The model.
        name: Engine named in ``modelyard.json``.
        signature: The model's own inputs.

    Returns:
        The engine; None if the signature cannot feed it.

    Raises:
        BadModelFolder: If a file is absent or damaged.
        MissingExtra: If LightGBM is needed and not installed.
    """
    try:
        document = json.loads(inside(folder, NATIVE_FILE).read_text(encoding="utf-8"))
        if name == "lightgbm-c":
            return load_trees(inside(folder, TREES_FILE).read_text(encoding="utf-8"), signature)
        steps = plan.Plan.from_json(document["plan"])
        encoder = steps.encoder(signature.names)
        if encoder is None:
            return None
        if "linear" in document:
            head = linear.Linear.from_json(document["linear"])
            return NativeEngine(name, encoder, None if steps.identity else steps, head, exact=False)
        booster = NativeBooster(inside(folder, TREES_FILE).read_text(encoding="utf-8"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadModelFolder(f"{NATIVE_FILE} is damaged ({error})", file=NATIVE_FILE) from error
    return NativeEngine(name, encoder, steps, booster, exact=True)


def load_trees(text: str, signature: Signature) -> NativeEngine | None:
    """Load a LightGBM text as an engine on its signature's columns.

    Returns:
        The engine; None if the categorical columns of the text cannot be told from the signature.
    """
    booster = NativeBooster(text)
    lists = pandas_categories(text)
    columns = [c.name for c in signature.inputs if not c.numeric and c.type != "datetime"]
    unreadable = any(c.type == "datetime" for c in signature.inputs)
    if unreadable or len(columns) != len(lists) or booster.features != len(signature.inputs):
        return None
    codings = {name: Coding(tuple(levels)) for name, levels in zip(columns, lists, strict=True)}
    encoder = Encoder(signature.names, signature.names, codings)
    return NativeEngine("lightgbm-c", encoder, None, booster, exact=True)


class XgboostHead:
    """XGBoost's ``inplace_predict``: no DMatrix, safe for concurrent use.

    Args:
        booster: ``xgboost.Booster``. Small batches run on one thread: waking the others costs more than a
            few rows, and serving has a process per core. Large ones run on a copy that uses them all.
        iterations: Range of trees; ``(0, 0)`` is all.
        missing: The number that stands for missing.
    """

    def __init__(self, booster: Any, *, iterations: tuple[int, int], missing: float) -> None:
        self._serial = booster.copy()
        self._serial.set_param({"nthread": 1})
        self._parallel = booster
        self._iterations = iterations
        self._missing = missing

    def score(self, x: Matrix) -> Matrix:
        """Score ``(rows, features)``; the library computes in float32."""
        booster = self._serial if len(x) <= SERIAL_ROWS else self._parallel
        values = booster.inplace_predict(
            x, iteration_range=self._iterations, missing=self._missing, validate_features=False
        )
        return np.asarray(values, dtype=np.float64)


def xgboost_engine(model: Any, signature: Signature) -> NativeEngine | None:
    """Make the in-place engine of a loaded XGBoost model.

    Returns:
        The engine; None if a column is not numeric, or the booster is linear.
    """
    if not signature.numeric:
        return None
    wrapper = hasattr(model, "get_booster")
    booster = model.get_booster() if wrapper else model
    name = json.loads(booster.save_config())["learner"]["gradient_booster"]["name"]
    if name not in _XGB_NUMPY_BOOSTERS or booster.num_features() != len(signature.inputs):
        return None
    best = getattr(model, "best_iteration", None) if wrapper and _stopped(booster) else None
    head = XgboostHead(
        booster,
        iterations=(0, 0) if best is None else (0, int(best) + 1),
        missing=float(model.missing) if wrapper else float("nan"),
    )
    encoder = Encoder(signature.names, signature.names, {})
    return NativeEngine("xgboost-inplace", encoder, None, head, exact=True)


def _stopped(booster: Any) -> bool:
    return booster.attr("best_iteration") is not None

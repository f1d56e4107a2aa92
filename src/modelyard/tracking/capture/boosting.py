"""The hooks for LightGBM and XGBoost: parameters, evaluation curves, feature importance.

``train`` is wrapped where users call it and where the libraries' own scikit-learn classes do, so that these get
their curves too. One callback is added that reads and never writes.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from modelyard.tracking.capture.estimators import record_importance, record_training_data
from modelyard.tracking.capture.hooks import MARK, Patches, Session, fitting, guarded, outermost, session

Train = Callable[..., Any]
Record = Callable[[Session, Any, str], None]


def install_lightgbm(lightgbm: ModuleType, patches: Patches) -> None:
    """Wrap ``lightgbm.train``."""
    _install(lightgbm, patches, _LightGbm())


def install_xgboost(xgboost: ModuleType, patches: Patches) -> None:
    """Wrap ``xgboost.train``."""
    _install(xgboost, patches, _Xgboost())


def _install(library: ModuleType, patches: Patches, kind: _LightGbm | _Xgboost) -> None:
    original = library.train
    if hasattr(original, MARK):
        return

    @functools.wraps(original)
    def train(*args: Any, **kwargs: Any) -> Any:
        return _around_train(original, kind, args, kwargs)

    setattr(train, MARK, original)
    for name in (kind.name, *kind.places):
        module = sys.modules.get(name)
        if module is not None and getattr(module, "train", None) is original:
            patches.replace(module, "train", train)


def _around_train(original: Train, kind: _LightGbm | _Xgboost, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    active, outer = session.get(), outermost()
    # Inside a fit of the library's own scikit-learn class that fit is recorded; here only its curves are. Inside
    # anything else (a search, a stack) it is one of many.
    own = outer is None or type(outer).__module__.startswith(f"{kind.name}.")
    if active is None or not own:
        return original(*args, **kwargs)
    prefix = active.prefix() if outer is None else ""
    bound = guarded(active, "the call", _bound, original, args, kwargs)
    if bound is None:
        return original(*args, **kwargs)
    if outer is None:
        guarded(active, "parameters", _record_params, active, bound.arguments, prefix)
        guarded(active, "training data", kind.record_data, active, bound.arguments, prefix)
    callback = guarded(active, "curves", kind.callback, active, prefix)
    if callback is not None:
        bound.arguments["callbacks"] = [*(bound.arguments.get("callbacks") or ()), callback]
    with fitting(outer or kind):
        booster = original(*bound.args, **bound.kwargs)
        if outer is None:
            guarded(active, "feature importance", kind.record_importance, active, booster, prefix)
    return booster


def _bound(original: Train, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    return inspect.signature(original).bind(*args, **kwargs)


def _record_params(active: Session, arguments: Mapping[str, Any], prefix: str) -> None:
    params = dict(arguments["params"])
    if "num_boost_round" in arguments:
        params["num_boost_round"] = arguments["num_boost_round"]
    active.run.log_params({f"{prefix}{key}": value for key, value in params.items()})


class _LightGbm:
    """What is particular to LightGBM."""

    name = "lightgbm"
    places = ("lightgbm.engine", "lightgbm.sklearn")

    def callback(self, active: Session, prefix: str) -> Callable[[Any], None]:
        """Return a callback that logs each round's evaluations."""

        def curves(env: Any) -> None:
            found = {f"{prefix}{each[0]}-{each[1]}": each[2] for each in env.evaluation_result_list or ()}
            if found:
                guarded(active, "curves", active.run.log_at, env.iteration, found)

        # After the evaluation is there and before early stopping (order 30) may leave the loop.
        curves.order = 25  # type: ignore[attr-defined]  # LightGBM reads it off the function
        return curves

    def record_data(self, active: Session, arguments: Mapping[str, Any], prefix: str) -> None:
        """Log the training data, which the dataset may free when training starts."""
        dataset = arguments["train_set"]
        if dataset.data is not None and not isinstance(dataset.data, str):
            record_training_data(active, dataset.data, dataset.label, prefix)

    def record_importance(self, active: Session, booster: Any, prefix: str) -> None:
        """Log gains and the best round."""
        record_importance(active, booster.feature_name(), booster.feature_importance("gain"), prefix)
        if booster.best_iteration > 0:
            active.run.log_at(0, {f"{prefix}best_iteration": booster.best_iteration})


class _Xgboost:
    """What is particular to XGBoost."""

    name = "xgboost"
    places = ("xgboost.training", "xgboost.sklearn")

    def callback(self, active: Session, prefix: str) -> Any:
        """Return a callback that logs each round's evaluations."""
        from xgboost.callback import TrainingCallback

        class Curves(TrainingCallback):
            def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
                found = {
                    f"{prefix}{data}-{metric}": _mean(values[-1])
                    for data, metrics in evals_log.items()
                    for metric, values in metrics.items()
                }
                if found:
                    guarded(active, "curves", active.run.log_at, epoch, found)
                return False

        return Curves()

    def record_data(self, active: Session, arguments: Mapping[str, Any], prefix: str) -> None:
        """Log the training data as the matrix holds them: no names of text levels, zeros explicit."""
        matrix = arguments["dtrain"]
        if matrix.num_row() * matrix.num_col() > _MAX_MATRIX_CELLS:
            return
        dense = matrix.get_data().toarray()
        names = matrix.feature_names or [f"x{i}" for i in range(dense.shape[1])]
        columns = {name: dense[:, i] for i, name in enumerate(names)}
        record_training_data(active, _Columns(columns, dense.shape), matrix.get_label(), prefix)

    def record_importance(self, active: Session, booster: Any, prefix: str) -> None:
        """Log gains and the best round."""
        gains = booster.get_score(importance_type="gain")
        record_importance(active, list(gains), list(gains.values()), prefix)
        best = booster.attr("best_iteration")
        if best is not None:
            active.run.log_at(0, {f"{prefix}best_iteration": float(best)})


# A matrix is made dense to be digested.
_MAX_MATRIX_CELLS = 20_000_000


class _Columns(dict[str, Any]):
    """Named columns with the shape of a table."""

    def __init__(self, columns: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        super().__init__(columns)
        self.shape = shape


def _mean(value: Any) -> float:
    # Cross-validation gives (mean, deviation).
    return float(value[0] if isinstance(value, tuple) else value)

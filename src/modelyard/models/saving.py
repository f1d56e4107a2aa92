"""Save a model as a folder that Modelyard and MLflow both open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from modelyard.errors import Conflict, Invalid
from modelyard.models import native
from modelyard.models.frame import Columns, model_input, to_columns, to_pandas
from modelyard.models.inference import infer_signature
from modelyard.models.info import PREPROCESS_FILE, TREES_FILE, Flavor, ModelInfo, write_info
from modelyard.models.lightgbm_native import pandas_categories
from modelyard.models.mlmodel import (
    flavor_entries,
    packages_in,
    versions_of,
    write_environment,
    write_example,
    write_mlmodel,
)
from modelyard.models.own import OwnModel, own_model, with_positive
from modelyard.models.pyfunc import dumps, wrap
from modelyard.models.signature import ColumnSpec, Level, Signature

_WRAPPERS = {
    "lightgbm": frozenset({"Booster", "LGBMClassifier", "LGBMRegressor", "LGBMRanker", "LGBMModel"}),
    "xgboost": frozenset(
        {"Booster", "XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"}
    ),
}
_EXAMPLE_ROWS = 5
_TRY_ROWS = 100
Preprocess = Callable[[Columns], Columns]


@dataclass(frozen=True, slots=True)
class _Saved:
    """What was written for a model: file name, whether it is a pickle, and the packages that it needs."""

    data_file: str
    pickled: bool
    packages: tuple[str, ...]


def flavor_of(model: object) -> Flavor:
    """Tell what a model is, without importing any library.

    Raises:
        Invalid: If it neither predicts nor can be called.
    """
    kind = type(model)
    root = kind.__module__.split(".", 1)[0]
    if root in {"lightgbm", "xgboost"} and kind.__name__ in _WRAPPERS[root]:
        return "lightgbm" if root == "lightgbm" else "xgboost"
    if isinstance(model, bytes | Path) or (root == "onnx" and kind.__name__ == "ModelProto"):
        return "onnx"
    if any(cls.__module__.startswith("sklearn.") and cls.__name__ == "BaseEstimator" for cls in kind.__mro__):
        return "sklearn"
    if hasattr(model, "predict") or callable(model):
        return "python"
    raise Invalid(
        f"A model has a 'predict' method or is callable, or is an ONNX file; got {kind.__name__}.",
        got=kind.__name__,
    )


def save_model(
    model: Any,
    folder: Path,
    *,
    data: object = None,
    input_example: object = None,
    signature: Signature | None = None,
    metadata: Mapping[str, Any] | None = None,
    preprocess: Preprocess | None = None,
    positive_label: Level | None = None,
    created: datetime | None = None,
) -> ModelInfo:
    """Save a model into a new folder.

    Args:
        model: scikit-learn estimator or pipeline, LightGBM or XGBoost booster or wrapper, ONNX
            (``ModelProto``, bytes or path), or any callable or object with ``predict`` that takes a frame.
        folder: Absent or empty.
        data: Inputs of training (a sample will do), from which the signature is read; columns that the model
            does not use (the label, a key) are left out if the model knows its columns. With ``preprocess``,
            what the hook takes. Not stored.
        input_example: Like ``data``, and its first rows are stored in the folder for people to see.
        signature: Given instead of read off ``data``.
        metadata: JSON-compatible; stored in ``MLmodel`` and ``modelyard.json``.
        preprocess: Columns to columns, applied before the model wherever it is served. Stored as a pickle.
        positive_label: Class whose score a binary model reports; default the second.
        created: Time of saving, aware; left out if None.

    Returns:
        Its description. ``verify_engine`` then tells whether the native engine may be used.

    Raises:
        Conflict: If the folder is not empty.
        Invalid: If it is no model, or ``data`` does not fit it.
        MissingExtra: If a library is absent.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"The folder {folder.name!r} is not empty; a model is saved into a new one.", folder=folder.name)
    flavor = flavor_of(model)
    rows = data if data is not None else input_example
    folder.mkdir(parents=True, exist_ok=True)
    saved = _write_model(model, folder, flavor)
    outer, inner = _signatures(model, rows, signature, preprocess)
    own = _own(model, folder, flavor, sample=_sample(rows, inner, preprocess), positive=positive_label)
    inner = _with_outputs(own, inner, _sample(rows, inner, preprocess))
    outer = inner if preprocess is None else outer
    lifted = _lift(model, folder, flavor, inner)
    if preprocess is not None:
        (folder / PREPROCESS_FILE).write_bytes(dumps(preprocess, owner=preprocess))
    info = ModelInfo(
        folder=folder,
        flavor=flavor,
        model_class=_class_name(model),
        traits=own.traits,
        signature=outer,
        model_signature=inner,
        data_file=saved.data_file,
        needs_trust=saved.pickled,
        has_preprocess=preprocess is not None,
        native=lifted,
        versions=versions_of(saved.packages),
        metadata=dict(metadata or {}),
    )
    _write_rest(info, example=None if input_example is None else to_columns(input_example), created=created)
    return info


def _write_rest(info: ModelInfo, *, example: Columns | None, created: datetime | None) -> None:
    entry = None
    if example is not None:
        names = info.signature.names if info.signature else tuple(example)
        head = {name: example[name][:_EXAMPLE_ROWS] for name in names}
        entry = write_example(info.folder, to_pandas(head, info.signature))
    write_info(info)
    write_environment(info.folder, info.versions)
    write_mlmodel(
        info.folder,
        flavor_entries(info.flavor, info.data_file, model_class=info.model_class, versions=info.versions),
        signature=info.model_signature,
        example=entry,
        metadata=info.metadata,
        created=created,
    )


def _class_name(model: object) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _write_model(model: Any, folder: Path, flavor: Flavor) -> _Saved:
    if flavor == "onnx":
        content = model if isinstance(model, bytes) else model.read_bytes() if isinstance(model, Path) else None
        (folder / "model.onnx").write_bytes(model.SerializeToString() if content is None else content)
        return _Saved("model.onnx", False, ("numpy", "onnx", "onnxruntime", "pandas"))
    if flavor == "xgboost":
        model.save_model(str(folder / "model.ubj"))
        packages = ("numpy", "xgboost") if type(model).__name__ == "Booster" else ("numpy", "scikit-learn", "xgboost")
        return _Saved("model.ubj", False, (*packages, "pandas"))
    if flavor == "lightgbm" and type(model).__name__ == "Booster":
        (folder / TREES_FILE).write_text(native.trees_text(model) or "", encoding="utf-8")
        return _Saved(TREES_FILE, False, ("lightgbm", "numpy", "pandas"))
    content = dumps(wrap(model) if flavor == "python" else model, owner=model)
    name = "python_model.pkl" if flavor == "python" else "model.pkl"
    (folder / name).write_bytes(content)
    needed = {"sklearn": ("scikit-learn",), "lightgbm": ("lightgbm", "scikit-learn")}.get(flavor, ())
    return _Saved(name, True, tuple(dict.fromkeys((*needed, "cloudpickle", "numpy", "pandas", *packages_in(content)))))


def _signatures(
    model: Any, rows: object, given: Signature | None, preprocess: Preprocess | None
) -> tuple[Signature | None, Signature | None]:
    """Return what callers send, and what the model itself reads."""
    names = _model_names(model)
    if rows is None:
        inner = given if given is not None else _numbers_only(model, names)
        return (given, None) if preprocess is not None else (inner, inner)
    if preprocess is None:
        inner = given if given is not None else _arranged(model, infer_signature(rows), names)
        return inner, inner
    outer = given if given is not None else infer_signature(rows)
    return outer, _arranged(model, infer_signature(preprocess(dict(to_columns(rows)))), names)


def _model_names(model: Any) -> tuple[str, ...]:
    """Return the columns that a model was trained on, if it knows them."""
    names = getattr(model, "feature_names_in_", None)
    if names is None and type(model).__name__ == "Booster":
        attribute = getattr(model, "feature_names", None)
        names = model.feature_name() if callable(getattr(model, "feature_name", None)) else attribute
    return tuple(str(name) for name in names) if names is not None else ()


def _arranged(model: Any, signature: Signature, names: tuple[str, ...]) -> Signature:
    """Keep the columns that the model uses, in its order; a positional signature or unknown names stay."""
    if signature.positional:
        return signature
    if not names:
        # scikit-learn notes the width of whatever it is fitted on, but names only of frames
        return replace(signature, positional=signature.numeric and hasattr(model, "n_features_in_"))
    by_name = {column.name: column for column in signature.inputs}
    if set(names) <= set(by_name):
        return Signature(tuple(by_name[name] for name in names), signature.outputs)
    if len(names) == len(signature.inputs):
        return signature  # LightGBM and XGBoost rewrite some names; the order then decides
    missing = [name for name in names if name not in by_name]
    raise Invalid(
        f"The data lacks columns that the model was trained on: {', '.join(missing[:10])}.",
        missing=missing,
        given=list(by_name),
    )


def _numbers_only(model: Any, names: tuple[str, ...]) -> Signature | None:
    """Make a signature of nullable numbers for models that take nothing else."""
    final = native.lift(model, names) if names else None
    plain = final is not None and final.name in {"lightgbm-c", "linear"}
    if not plain or (final is not None and final.trees is not None and pandas_categories(final.trees)):
        return None
    nullable = final is not None and final.trees is not None
    return Signature(
        tuple(ColumnSpec(name, "double", required=not nullable, nullable=nullable, dtype="float64") for name in names)
    )


def _sample(rows: object, signature: Signature | None, preprocess: Preprocess | None) -> Any:
    """Return a few rows of training as the frame that the model itself reads, or None."""
    if rows is None or signature is None:
        return None
    columns = to_columns(rows)
    head: Columns = {name: values[:_TRY_ROWS] for name, values in columns.items()}
    if preprocess is not None:
        head = preprocess(head)
    return model_input(head, signature)


def _own(model: Any, folder: Path, flavor: Flavor, *, sample: Any, positive: Level | None) -> OwnModel:
    if flavor == "onnx":
        from modelyard.models.onnx_model import onnx_model, session  # noqa: PLC0415 - optional library

        own = onnx_model(session(folder / "model.onnx"))
        return own if positive is None else replace(own, traits=with_positive(own.traits, positive))
    return own_model(model, flavor, sample=sample, positive_label=positive)


def _with_outputs(own: OwnModel, signature: Signature | None, sample: Any) -> Signature | None:
    if signature is None or sample is None:
        return signature
    predict = own.labels if own.labels is not None and own.traits.predict_returns == "labels" else own.raw
    read = infer_signature({"x": [0.0]}, predict(sample))
    return Signature(signature.inputs, read.outputs, signature.positional)


def _lift(model: Any, folder: Path, flavor: Flavor, signature: Signature | None) -> str | None:
    """Write the native engine's files; return its name, or None if the model's own code must predict."""
    if signature is None:
        return None
    if flavor == "xgboost":
        engine = native.xgboost_engine(model, signature)
        return None if engine is None else engine.name
    if flavor not in {"sklearn", "lightgbm"}:
        return None
    lifted = native.lift(model, signature.names)
    if lifted is None:
        return None
    lifted.write(folder)
    return lifted.name if native.load(folder, lifted.name, signature) is not None else None

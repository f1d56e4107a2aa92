"""Load the objects of a model folder, refusing whatever would run code unless it is trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from modelyard.errors import MissingExtra
from modelyard.models import native
from modelyard.models.faults import BadModelFolder, Untrusted
from modelyard.models.info import PREPROCESS_FILE, ModelInfo, Traits, inside
from modelyard.models.own import OwnModel, booster_traits, labeller, own_model
from modelyard.models.pyfunc import loads


def load_own(info: ModelInfo, *, trust: bool) -> OwnModel:
    """Load the model's own code.

    Args:
        info: From ``read_info``.
        trust: Whether somebody with the right to do so has vouched for the folder.

    Raises:
        Untrusted: If that needs unpickling and is not trusted.
        BadModelFolder: If the file cannot be loaded.
        MissingExtra: If its library is absent.
    """
    path = inside(info.folder, info.data_file)
    if info.flavor == "onnx":
        from modelyard.models.onnx_model import onnx_model, session  # noqa: PLC0415 - optional library

        own = onnx_model(session(path))
    elif info.needs_trust:
        if not trust:
            raise Untrusted(info.data_file, flavor=info.flavor)
        own = own_model(_unpickled(path), info.flavor)
    else:
        own = own_model(_booster(info, path), info.flavor)
    # What was found out at saving (a callable's labels, the positive label) counts over the object.
    return own if info.traits.task == "unknown" else _with_traits(own, info)


def _with_traits(own: OwnModel, info: ModelInfo) -> OwnModel:
    if info.traits.score_kind == "indicator" and own.traits.score_kind != "indicator":
        return replace(labeller(own.raw, info.traits.classes, own.native_object), traits=info.traits)
    return replace(own, traits=info.traits)


def load_native(info: ModelInfo, own: OwnModel | None) -> native.NativeEngine | None:
    """Load the native engine of a folder, or None if it has none. Runs no code from it.

    Args:
        info: From ``read_info``.
        own: The loaded model, which XGBoost's engine shares.
    """
    signature = info.model_signature
    if signature is None:
        return None
    if info.flavor == "xgboost" and own is not None:
        return native.xgboost_engine(own.native_object, signature)
    if info.native is not None and info.flavor != "xgboost":
        return native.load(info.folder, info.native, signature)
    if info.flavor == "lightgbm" and not info.needs_trust:
        return native.load_trees(inside(info.folder, info.data_file).read_text(encoding="utf-8"), signature)
    return None


def known_traits(info: ModelInfo) -> Traits:
    """Tell what a model predicts without loading its own code: from the sidecar, else LightGBM's text."""
    if info.traits.task == "unknown" and info.flavor == "lightgbm" and not info.needs_trust:
        return booster_traits(inside(info.folder, info.data_file).read_text(encoding="utf-8"))
    return info.traits


def load_preprocess(info: ModelInfo, *, trust: bool) -> Any:
    """Load the hook of a folder, or None if it has none.

    Raises:
        Untrusted: If it is not trusted; without its hook a model would silently answer wrongly.
    """
    if not info.has_preprocess:
        return None
    if not trust:
        raise Untrusted(PREPROCESS_FILE, flavor=info.flavor)
    return _load_pickle(inside(info.folder, PREPROCESS_FILE))


def _unpickled(path: Path) -> Any:
    model = _load_pickle(path)
    wrapped = type(model).__qualname__ == "wrap.<locals>.PythonModel"
    return model.model if wrapped else model


def _load_pickle(path: Path) -> Any:
    try:
        return loads(path.read_bytes())
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="sklearn", purpose=f"Loading {path.name!r}") from error
    except Exception as error:  # noqa: BLE001 - a pickle may raise anything; this is the edge to its code
        raise BadModelFolder(f"{path.name!r} cannot be unpickled ({type(error).__name__}: {error})"[:300]) from error


def _booster(info: ModelInfo, path: Path) -> Any:
    if info.flavor == "lightgbm":
        try:
            import lightgbm  # noqa: PLC0415 - optional and heavy
        except ImportError as error:
            raise MissingExtra("lightgbm", extra="lightgbm", purpose="Predicting with a LightGBM model") from error
        return lightgbm.Booster(model_file=str(path))
    try:
        import xgboost  # noqa: PLC0415 - optional and heavy
    except ImportError as error:
        raise MissingExtra("xgboost", extra="xgboost", purpose="Predicting with an XGBoost model") from error
    name = info.model_class.rsplit(".", 1)[-1] or "Booster"
    if name not in _XGBOOST_CLASSES:
        raise BadModelFolder(f"{info.model_class!r} is not a class of XGBoost", file="MLmodel")
    model = getattr(xgboost, name)()
    try:
        model.load_model(str(path))
    except xgboost.core.XGBoostError as error:
        raise BadModelFolder(f"XGBoost says: {str(error)[:200]}", file=path.name) from error
    return model


_XGBOOST_CLASSES = frozenset(
    {"Booster", "XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"}
)

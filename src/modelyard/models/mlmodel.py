"""Write the files that make a folder an MLflow model: ``MLmodel`` and the environment beside it.

Nothing of MLflow is imported. Source: MLflow 3.18, ``save_model`` of ``mlflow/{sklearn,lightgbm,xgboost,onnx,
pyfunc}``, ``mlflow/models/model.py`` and ``mlflow/utils/environment.py``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from modelyard.models.digest import files
from modelyard.models.info import MLMODEL_FILE, Flavor
from modelyard.models.signature import Signature

_IMPORT_NAMES = {
    "sklearn": "scikit-learn",
    "lightgbm": "lightgbm",
    "xgboost": "xgboost",
    "pandas": "pandas",
    "scipy": "scipy",
    "polars": "polars",
}
_ALTERNATIVES = {"xgboost": ("xgboost", "xgboost-cpu")}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution; absent ones are left out."""
    found: dict[str, str] = {}
    for package in packages:
        for name in _ALTERNATIVES.get(package, (package,)):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
            break
    return found


def packages_in(pickle: bytes) -> list[str]:
    """Name the known distributions whose modules a pickle mentions."""
    return [name for module, name in _IMPORT_NAMES.items() if module.encode() in pickle]


def flavor_entries(flavor: Flavor, data_file: str, *, model_class: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return the ``flavors`` section as MLflow's loaders read it."""
    environment = {
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "python_version": platform.python_version(),
    }
    if flavor == "python":
        entry = {
            "loader_module": "mlflow.pyfunc.model",
            "python_model": data_file,
            "cloudpickle_version": versions.get("cloudpickle"),
            "code": None,
            "streamable": False,
        }
        return {"python_function": {**entry, **environment}}
    if flavor == "sklearn":
        function = {"loader_module": "mlflow.sklearn", "model_path": data_file, "predict_fn": "predict"}
        own: dict[str, Any] = {
            "pickled_model": data_file,
            "serialization_format": "cloudpickle",
            "sklearn_version": versions.get("scikit-learn"),
        }
    else:
        function = {"loader_module": f"mlflow.{flavor}", "data": data_file}
        own = {"data": data_file, **_own_entry(flavor, data_file, model_class, versions)}
    return {"python_function": {**function, **environment}, flavor: {**own, "code": None}}


def _own_entry(flavor: Flavor, data_file: str, model_class: str, versions: Mapping[str, str]) -> dict[str, Any]:
    if flavor == "lightgbm":
        return {
            "lgb_version": versions.get("lightgbm"),
            "model_class": model_class,
            "serialization_format": "cloudpickle",
            "skops_trusted_types": None,
        }
    if flavor == "xgboost":
        return {
            "xgb_version": versions.get("xgboost") or versions.get("xgboost-cpu"),
            "model_class": model_class,
            "model_format": data_file.rsplit(".", 1)[-1],
        }
    return {
        "onnx_version": versions.get("onnx"),
        "providers": ["CPUExecutionProvider"],
        "onnx_session_options": None,
    }


def write_environment(folder: Path, versions: Mapping[str, str]) -> None:
    """Write ``requirements.txt``, ``python_env.yaml`` and ``conda.yaml``."""
    pins = ["mlflow", *(f"{name}=={number}" for name, number in sorted(versions.items()))]
    python = platform.python_version()
    (folder / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    _dump(
        folder / "python_env.yaml",
        {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]},
    )
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": pins}],
    }
    _dump(folder / "conda.yaml", conda)


def write_example(folder: Path, example: Any) -> dict[str, Any]:
    """Write a pandas frame as MLflow's input example and return its entry in ``MLmodel``."""
    text = example.to_json(orient="split", index=False, date_format="iso")
    document = {key: value for key, value in json.loads(text).items() if key in {"columns", "data"}}
    (folder / "input_example.json").write_text(json.dumps(document), encoding="utf-8")
    return {
        "artifact_path": "input_example.json",
        "pandas_orient": "split",
        "type": "dataframe",
        "serving_input_path": None,
    }


def write_mlmodel(
    folder: Path,
    flavors: Mapping[str, Any],
    *,
    signature: Signature | None,
    example: Mapping[str, Any] | None,
    metadata: Mapping[str, Any],
    created: datetime | None,
) -> None:
    """Write ``MLmodel``, last of all: its ``model_uuid`` is drawn from the other files' content.

    Args:
        folder: The model's folder, all other MLflow files in place.
        flavors: From ``flavor_entries``.
        signature: The model's own inputs and outputs, or None.
        example: From ``write_example``, or None.
        metadata: JSON-compatible.
        created: Time of saving; left out if None, so that equal models give equal folders.
    """
    listing = files(folder)
    uuid = hashlib.sha256("".join(f.path + f.sha256 for f in listing).encode()).hexdigest()[:32]
    document: dict[str, Any] = {
        "flavors": dict(flavors),
        "model_size_bytes": sum(f.size_bytes for f in listing),
        "model_uuid": uuid,
    }
    if created is not None:
        document["utc_time_created"] = created.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    if signature is not None:
        document["signature"] = signature.to_mlflow()
    if example is not None:
        document["saved_input_example_info"] = dict(example)
    if metadata:
        document["metadata"] = dict(metadata)
    _dump(folder / MLMODEL_FILE, document)


def _dump(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(document), sort_keys=True, allow_unicode=True), encoding="utf-8")

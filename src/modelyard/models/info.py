"""What is known of a saved model without loading it: the sidecar ``modelyard.json`` beside ``MLmodel``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from modelyard.models.faults import BadModelFolder
from modelyard.models.signature import Level, Signature

Flavor = Literal["sklearn", "lightgbm", "xgboost", "onnx", "python"]
Task = Literal["binary", "multiclass", "regression", "unknown"]
ScoreKind = Literal["probability", "decision", "indicator", "value"]

INFO_FILE = "modelyard.json"
MLMODEL_FILE = "MLmodel"
NATIVE_FILE = "native.json"
TREES_FILE = "model.lgb"
PREPROCESS_FILE = "preprocess.pkl"
VERIFICATION_FILE = "verification.json"
_FLAVORS: tuple[Flavor, ...] = ("lightgbm", "xgboost", "onnx", "sklearn")


@dataclass(frozen=True, slots=True)
class Traits:
    """What a model predicts.

    Attributes:
        task: ``binary``, ``multiclass``, ``regression``, or ``unknown`` until it is loaded.
        classes: Class labels in the order of the score columns; empty if it is no classifier.
        positive: Index of the class whose score a binary model reports.
        score_kind: ``probability``, ``decision`` (monotone, unbounded), ``indicator`` (1 for the label given,
            where the model gives nothing else) or ``value``.
        predict_returns: Whether the model's own ``predict`` returns labels or scores.
    """

    task: Task
    classes: tuple[Level, ...] = ()
    positive: int = 1
    score_kind: ScoreKind = "value"
    predict_returns: Literal["labels", "scores"] = "scores"

    @property
    def positive_label(self) -> Level | None:
        """Label whose probability is the score of a binary model, else None."""
        return self.classes[self.positive] if self.task == "binary" else None


def task_of(classes: Sequence[object]) -> Task:
    """Tell the task of a classifier from its classes."""
    return "binary" if len(classes) == 2 else "multiclass"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Description of a saved model.

    Attributes:
        folder: Where it lies.
        flavor: What it is, in MLflow's words; ``python`` for callables and any object with ``predict``.
        model_class: Full name of its class.
        traits: What it predicts.
        signature: What callers send (before ``preprocess``); None if no data was given and none could be
            read off the model.
        model_signature: What the model itself reads; differs from ``signature`` only with a hook.
        data_file: The model file, relative.
        needs_trust: Whether some prediction path other than the native one unpickles.
        has_preprocess: Whether a hook is stored beside it.
        native: Name of the native engine whose files lie in the folder, or None.
        versions: Distribution name to version at saving.
        metadata: What the caller added.
    """

    folder: Path
    flavor: Flavor
    model_class: str
    traits: Traits
    signature: Signature | None
    model_signature: Signature | None
    data_file: str
    needs_trust: bool
    has_preprocess: bool = False
    native: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``modelyard.json``."""
        same = self.signature == self.model_signature
        return {
            "format": 1,
            "flavor": self.flavor,
            "model_class": self.model_class,
            "task": self.traits.task,
            "classes": list(self.traits.classes),
            "positive": self.traits.positive,
            "score_kind": self.traits.score_kind,
            "predict_returns": self.traits.predict_returns,
            "signature": self.signature.to_json() if self.signature else None,
            "model_signature": None if same or not self.model_signature else self.model_signature.to_json(),
            "data_file": self.data_file,
            "needs_trust": self.needs_trust,
            "has_preprocess": self.has_preprocess,
            "native": self.native,
            "versions": dict(self.versions),
            "metadata": dict(self.metadata),
        }


def write_info(info: ModelInfo) -> None:
    """Write ``modelyard.json`` into the model's folder."""
    text = json.dumps(info.to_json(), indent=1, sort_keys=True, allow_nan=False)
    (info.folder / INFO_FILE).write_text(text + "\n", encoding="utf-8")


def read_info(folder: Path) -> ModelInfo:
    """Describe a model folder, ours or one that MLflow wrote, without loading any code from it.

    Raises:
        BadModelFolder: If it has no ``MLmodel``, or a file of it cannot be read.
    """
    if (folder / INFO_FILE).is_file():
        return _ours(folder)
    return _foreign(folder)


def inside(folder: Path, name: str) -> Path:
    """Resolve a relative name under a folder.

    Raises:
        BadModelFolder: If it leads outside, or there is no such file.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BadModelFolder(f"{name!r} leads outside the folder", file=name)
    if not path.exists():
        raise BadModelFolder(f"{name!r} is missing", file=name)
    return path


def read_mlmodel(folder: Path) -> dict[str, Any]:
    """Read ``MLmodel`` with the safe YAML schema.

    Raises:
        BadModelFolder: If it is absent or not a mapping with ``flavors``.
    """
    path = inside(folder, MLMODEL_FILE)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadModelFolder(f"MLmodel is not YAML ({type(error).__name__})", file=MLMODEL_FILE) from error
    if not isinstance(document, dict) or not isinstance(document.get("flavors"), dict):
        raise BadModelFolder("MLmodel names no flavors", file=MLMODEL_FILE)
    return document


def _ours(folder: Path) -> ModelInfo:
    try:
        document = json.loads(inside(folder, INFO_FILE).read_text(encoding="utf-8"))
        signature = Signature.from_json(document["signature"]) if document["signature"] else None
        own = document["model_signature"]
        return ModelInfo(
            folder=folder,
            flavor=document["flavor"],
            model_class=document["model_class"],
            traits=Traits(
                document["task"],
                tuple(document["classes"]),
                document["positive"],
                document["score_kind"],
                document["predict_returns"],
            ),
            signature=signature,
            model_signature=Signature.from_json(own) if own else signature,
            data_file=document["data_file"],
            needs_trust=document["needs_trust"],
            has_preprocess=document["has_preprocess"],
            native=document["native"],
            versions=document["versions"],
            metadata=document["metadata"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadModelFolder(f"{INFO_FILE} is damaged ({error})", file=INFO_FILE) from error


def _foreign(folder: Path) -> ModelInfo:
    document = read_mlmodel(folder)
    flavors: dict[str, dict[str, Any]] = document["flavors"]
    flavor: Flavor = next((name for name in _FLAVORS if name in flavors), "python")
    entry = flavors.get(flavor) or flavors.get("python_function") or {}
    keys = {"sklearn": "pickled_model", "python": "python_model"}
    data_file = entry.get(keys.get(flavor, "data"))
    if not isinstance(data_file, str):
        raise BadModelFolder(f"its {flavor} flavor names no model file", file=MLMODEL_FILE)
    signature = Signature.from_mlflow(document.get("signature") or {})
    model_class = str(entry.get("model_class", ""))
    booster = flavor == "lightgbm" and model_class in {"", "lightgbm.basic.Booster"}
    return ModelInfo(
        folder=folder,
        flavor=flavor,
        model_class=model_class,
        traits=Traits("unknown"),
        signature=signature,
        model_signature=signature,
        data_file=data_file,
        needs_trust=not (booster or flavor in {"xgboost", "onnx"}),
        metadata=document.get("metadata") or {},
    )

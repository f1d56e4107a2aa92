"""What goes into a model and what comes out: named, typed columns.

The types are those of MLflow's column specs, so that a signature travels both ways without loss of type;
our own JSON adds what validation and exact reconstruction need (nulls seen, levels, original dtype, range).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from modelyard.models.faults import BadModelFolder

ColumnType = Literal["boolean", "integer", "long", "float", "double", "string", "datetime"]
Level = str | int | float | bool

TYPES: tuple[str, ...] = get_args(ColumnType)
NUMERIC = frozenset({"boolean", "integer", "long", "float", "double"})
DEFAULT_DTYPE: dict[str, str] = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "object",
    "datetime": "datetime64[ns]",
}
_TENSOR_TYPE = {
    "float32": "float",
    "float64": "double",
    "int64": "long",
    "int32": "integer",
    "bool": "boolean",
}


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column.

    Attributes:
        name: Its name.
        type: MLflow's word for its type.
        required: Whether a row must hold the key. Absent optional columns count as null.
        nullable: Whether training saw nulls (None or NaN) in it; where not, a null is refused.
        levels: The values seen in training if they are few (or the column is categorical), in the order of
            the categorical; else None.
        categorical: Whether the training frame held it as a categorical.
        ordered: Whether that categorical was ordered.
        dtype: NumPy or pandas dtype in training, used to rebuild the frame exactly.
        minimum: Smallest number seen; for information only.
        maximum: Largest number seen; for information only.
    """

    name: str
    type: ColumnType
    required: bool = True
    nullable: bool = False
    levels: tuple[Level, ...] | None = None
    categorical: bool = False
    ordered: bool = False
    dtype: str = ""
    minimum: float | None = None
    maximum: float | None = None

    @property
    def numeric(self) -> bool:
        """Whether a value of this column is a number by itself (booleans included, categoricals not)."""
        return self.type in NUMERIC and not self.categorical

    def to_json(self) -> dict[str, Any]:
        """Return our own JSON form; defaults are left out."""
        document: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "dtype": self.dtype or DEFAULT_DTYPE[self.type],
        }
        if not self.required:
            document["required"] = False
        for flag in ("nullable", "categorical", "ordered"):
            if getattr(self, flag):
                document[flag] = True
        if self.levels is not None:
            document["levels"] = list(self.levels)
        if self.minimum is not None:
            document["range"] = [self.minimum, self.maximum]
        return document

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> ColumnSpec:
        """Read our own JSON form."""
        levels = document.get("levels")
        low, high = document.get("range", (None, None))
        return ColumnSpec(
            name=str(document["name"]),
            type=_checked_type(document["type"]),
            required=bool(document.get("required", True)),
            nullable=bool(document.get("nullable", False)),
            levels=None if levels is None else tuple(levels),
            categorical=bool(document.get("categorical", False)),
            ordered=bool(document.get("ordered", False)),
            dtype=str(document.get("dtype", "")),
            minimum=low,
            maximum=high,
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a model.

    Attributes:
        inputs: Columns in the order of training.
        outputs: What the model's own ``predict`` returns; empty if not known.
        positional: Whether training used an array without names; the columns are then named ``x0``,
            ``x1``, ... unless the caller named them.
    """

    inputs: tuple[ColumnSpec, ...]
    outputs: tuple[ColumnSpec, ...] = ()
    positional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the input columns, in order."""
        return tuple(column.name for column in self.inputs)

    @property
    def numeric(self) -> bool:
        """Whether every input is a number by itself."""
        return all(column.numeric for column in self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Return our own JSON form."""
        return {
            "inputs": [column.to_json() for column in self.inputs],
            "outputs": [column.to_json() for column in self.outputs],
            "positional": self.positional,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Signature:
        """Read our own JSON form.

        Raises:
            BadModelFolder: If a column's type is not one of ours.
        """
        return Signature(
            inputs=tuple(ColumnSpec.from_json(column) for column in document["inputs"]),
            outputs=tuple(ColumnSpec.from_json(column) for column in document.get("outputs", ())),
            positional=bool(document.get("positional", False)),
        )

    def to_mlflow(self) -> dict[str, Any]:
        """Return MLflow's form: ``inputs`` and ``outputs`` as JSON strings of column or tensor specs.

        Source:
            MLflow 3.18, ``mlflow/types/schema.py`` (``ColSpec.to_dict``, ``TensorSpec.to_dict``).
        """
        if self.positional and self.numeric:
            dtype = self.inputs[0].dtype or "float64"
            tensor = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, len(self.inputs)]}}
            inputs: list[dict[str, Any]] = [tensor]
        else:
            inputs = [{"type": c.type, "name": c.name, "required": c.required} for c in self.inputs]
        outputs = [
            {"type": c.type, **({"name": c.name} if len(self.outputs) > 1 else {}), "required": c.required}
            for c in self.outputs
        ]
        return {
            "inputs": json.dumps(inputs),
            "outputs": json.dumps(outputs) if outputs else None,
            "params": None,
        }

    @staticmethod
    def from_mlflow(document: Mapping[str, Any]) -> Signature | None:
        """Read MLflow's form.

        Returns:
            The signature, or None if it has inputs that are not a flat table of columns. MLflow does not
            say which columns held nulls except through ``required``, so optional columns may be null.
        """
        inputs = _specs(document.get("inputs"))
        outputs = _specs(document.get("outputs")) or []
        if not inputs:
            return None
        if inputs[0].get("type") == "tensor":
            return _from_tensor(inputs)
        if not all(spec.get("type") in TYPES and "name" in spec for spec in inputs):
            return None
        columns = tuple(_from_spec(spec, str(spec["name"])) for spec in inputs)
        results = tuple(
            _from_spec(spec, str(spec.get("name", "prediction"))) for spec in outputs if spec.get("type") in TYPES
        )
        return Signature(columns, results)


def _from_spec(spec: Mapping[str, Any], name: str) -> ColumnSpec:
    required = bool(spec.get("required", True))
    return ColumnSpec(name, _checked_type(spec["type"]), required=required, nullable=not required)


def _from_tensor(specs: Sequence[Mapping[str, Any]]) -> Signature | None:
    details = specs[0].get("tensor-spec", {})
    shape, dtype = details.get("shape", ()), str(details.get("dtype"))
    if len(specs) != 1 or len(shape) != 2 or shape[1] < 1 or dtype not in _TENSOR_TYPE:
        return None
    kind = _checked_type(_TENSOR_TYPE[dtype])
    nullable = dtype.startswith("float")
    return Signature(
        tuple(ColumnSpec(f"x{i}", kind, nullable=nullable, dtype=dtype) for i in range(shape[1])),
        positional=True,
    )


def _specs(text: object) -> list[dict[str, Any]] | None:
    if not isinstance(text, str):
        return None
    try:
        specs = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadModelFolder(f"the signature is not JSON ({error})", file="MLmodel") from error
    return [spec for spec in specs if isinstance(spec, dict)] if isinstance(specs, list) else None


def _checked_type(text: object) -> ColumnType:
    if text not in TYPES:
        raise BadModelFolder(f"column type {text!r} is not one of {', '.join(TYPES)}", file="MLmodel")
    return cast(ColumnType, text)

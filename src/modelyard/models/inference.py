"""Read a signature off training data."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.errors import Invalid
from modelyard.models.frame import Array, as_array, is_null, to_columns
from modelyard.models.signature import ColumnSpec, ColumnType, Level, Signature

MAX_LEVELS = 100
"""A text column with more distinct values than this is free text: its domain is not kept, nor checked."""


def infer_signature(data: object, output: object = None) -> Signature:
    """Read the signature off a table of inputs and, if given, the model's predictions for it.

    Args:
        data: Any table that ``to_columns`` takes, at least one row. An array gives a positional signature.
        output: What ``predict`` returned for it: shape ``(rows,)`` or ``(rows, k)``, or None.

    Returns:
        The signature. A column is nullable, and then optional, exactly if a null was seen.

    Raises:
        Invalid: If the table is empty or a column's type has no place in a signature.

    >>> infer_signature({"age": [31.0, None], "city": ["Oslo", "Rome"]}).inputs[0].nullable
    True
    """
    columns = to_columns(data)
    if not columns or len(next(iter(columns.values()))) == 0:
        raise Invalid("A signature needs at least one column and one row.")
    frame: Any = data if hasattr(data, "dtypes") and hasattr(data, "iloc") else None
    inputs = tuple(
        infer_column(name, values, source=None if frame is None else frame[_label(frame, name)])
        for name, values in columns.items()
    )
    return Signature(inputs, _outputs(output), positional=isinstance(data, np.ndarray))


def infer_column(name: str, values: Array, *, source: Any = None) -> ColumnSpec:
    """Read one column's specification off its values.

    Args:
        name: Name of the column.
        values: Shape ``(rows,)``.
        source: The pandas series that the values came from, for its dtype, or None.
    """
    dtype = str(values.dtype) if source is None else str(source.dtype)
    if dtype == "category":
        return _categorical(name, source)
    kind = _column_type(name, values)
    nullable = _has_null(values)
    low, high = _range(values, kind)
    levels = _levels(values) if kind == "string" else None
    if values.dtype == object and kind != "string":
        dtype = "object" if kind == "boolean" else dtype
    return ColumnSpec(
        name,
        kind,
        required=not nullable,
        nullable=nullable,
        levels=levels,
        dtype=dtype,
        minimum=low,
        maximum=high,
    )


def _label(frame: Any, name: str) -> Any:
    return name if name in frame.columns else next(c for c in frame.columns if str(c) == name)


def _categorical(name: str, source: Any) -> ColumnSpec:
    categories = source.cat.categories
    levels = tuple(_plain(level) for level in categories.tolist())
    nullable = bool(source.isna().any())
    return ColumnSpec(
        name,
        _column_type(name, as_array(list(levels))) if levels else "string",
        required=not nullable,
        nullable=nullable,
        levels=levels,
        categorical=True,
        ordered=bool(source.cat.ordered),
        dtype="category",
    )


def _plain(level: object) -> Level:
    if isinstance(level, str | int | float | bool):
        return level
    if isinstance(level, np.generic) and isinstance(level.item(), str | int | float | bool):
        plain: Level = level.item()
        return plain
    return str(level)


def _column_type(name: str, values: Array) -> ColumnType:
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return "boolean"
    if kind in "iu":
        return "long" if size == 8 or (kind == "u" and size == 4) else "integer"
    if kind == "f":
        return "float" if size <= 4 else "double"
    if kind == "M":
        return "datetime"
    return _object_type(name, values)


def _object_type(name: str, values: Array) -> ColumnType:
    kinds = {type(value) for value in values.tolist() if value is not None}
    if kinds <= {str}:
        return "string"
    if kinds == {bool}:
        return "boolean"
    if all(issubclass(kind, int | float | np.number) and kind is not bool for kind in kinds):
        return "double"
    if all(hasattr(kind, "isoformat") for kind in kinds):
        return "datetime"
    seen = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise Invalid(
        f"Column {name!r} holds values of {seen}; a column holds numbers, text, booleans or times.",
        column=name,
        got=seen,
    )


def _has_null(values: Array) -> bool:
    if values.dtype.kind == "f":
        return bool(np.isnan(values).any())
    if values.dtype.kind == "M":
        return bool(np.isnat(values).any())
    return values.dtype == object and any(is_null(value) for value in values.tolist())


def _range(values: Array, kind: ColumnType) -> tuple[float | None, float | None]:
    if kind in {"string", "datetime", "boolean"} or values.dtype == object:
        return None, None
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if len(finite) == 0:
        return None, None
    return float(finite.min()), float(finite.max())


def _levels(values: Array) -> tuple[Level, ...] | None:
    found = {value for value in values.tolist() if value is not None}
    return tuple(sorted(found)) if 0 < len(found) <= MAX_LEVELS else None


def _outputs(output: object) -> tuple[ColumnSpec, ...]:
    if output is None:
        return ()
    values = np.asarray(output)
    columns = {"prediction": as_array(values)} if values.ndim == 1 else to_columns(values)
    names = ["prediction"] if len(columns) == 1 else [f"prediction_{i}" for i in range(len(columns))]
    return tuple(
        ColumnSpec(name, _column_type(name, column), dtype=str(column.dtype))
        for name, column in zip(names, columns.values(), strict=True)
    )

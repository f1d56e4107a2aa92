"""Tables in and out: any table becomes a mapping of names to NumPy arrays, and back to a pandas frame.

Nulls are NaN in float arrays and None in object arrays; other arrays hold none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid, MissingExtra
from modelyard.models.signature import ColumnSpec, Signature

Array = npt.NDArray[Any]
Columns = dict[str, Array]


@dataclass(frozen=True, slots=True)
class DataWarning:
    """Something odd about a value that does not prevent a prediction.

    Attributes:
        code: ``unknown_category`` or ``absent_column``.
        column: Where.
        row: In which row, from 0.
        got: The value, as text.
    """

    code: str
    column: str
    row: int
    got: str


@dataclass(frozen=True, slots=True)
class Frame:
    """Checked columns of equal length, in signature order.

    Attributes:
        columns: Name to array of shape ``(rows,)``.
        rows: Number of rows.
        warnings: What was odd about them.
    """

    columns: Columns
    rows: int
    warnings: tuple[DataWarning, ...] = ()


def to_columns(data: Any, *, names: Sequence[str] | None = None) -> Columns:
    """Turn a table into arrays.

    Args:
        data: pandas or polars frame, PyArrow table, mapping of columns, ``Frame``, or a two-dimensional
            array of shape ``(rows, columns)``.
        names: Column names for an array; default ``x0``, ``x1``, ...

    Returns:
        Name to array of shape ``(rows,)``; each null is NaN or None.

    Raises:
        Invalid: If ``data`` is none of these, or its columns differ in length.
    """
    if isinstance(data, Frame):
        return data.columns
    if isinstance(data, np.ndarray):
        return _from_array(data, names)
    if isinstance(data, Mapping):
        columns = {str(name): as_array(values) for name, values in data.items()}
    elif hasattr(data, "column_names") and hasattr(data, "column"):
        columns = {name: _from_arrow(data.column(name)) for name in data.column_names}
    elif hasattr(data, "columns") and hasattr(data, "dtypes"):
        columns = {str(name): _from_series(data[name]) for name in data.columns}
    else:
        raise Invalid(
            f"A table is expected (frame, PyArrow table, columns or 2-D array), got {type(data).__name__}.",
            got=type(data).__name__,
        )
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise Invalid(f"The columns differ in length: {lengths}.", lengths=lengths)
    return columns


def as_array(values: object) -> Array:
    """Turn one column of values into an array with nulls as NaN (numbers) or None (anything else)."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiubM":
        return values
    if hasattr(values, "dtype") and not isinstance(values, np.ndarray):
        return _from_series(values)
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str | bytes):
        raise Invalid(f"A column must be a list or an array, got {type(values).__name__}.")
    items = values.tolist() if isinstance(values, np.ndarray) else [_plain(item) for item in values]
    kinds = {type(item) for item in items}
    if kinds <= {float, int, type(None)} and kinds & {float, int}:
        if kinds == {int}:
            with suppress(OverflowError):
                return np.array(items, dtype=np.int64)
        return np.array(items, dtype=np.float64)
    if kinds == {bool}:
        return np.array(items, dtype=np.bool_)
    return objects([None if is_null(item) else item for item in items])


def _plain(item: object) -> object:
    return item.item() if isinstance(item, np.generic) and not isinstance(item, np.datetime64) else item


def objects(items: Sequence[object]) -> Array:
    """Put items into an object array of shape ``(len(items),)`` without looking inside them."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def is_null(value: object) -> bool:
    """Tell whether a scalar is None, NaN, NaT or a missing-value marker of pandas."""
    if value is None:
        return True
    if isinstance(value, float | np.floating | np.datetime64):
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT are the values that differ from themselves
    return type(value).__name__ in {"NAType", "NaTType"}


def _from_array(data: Array, names: Sequence[str] | None) -> Columns:
    if data.ndim != 2:
        raise Invalid(f"A table has two dimensions, got an array of shape {data.shape}.", shape=list(data.shape))
    labels = list(names) if names is not None else [f"x{i}" for i in range(data.shape[1])]
    if len(labels) != data.shape[1]:
        raise Invalid(
            f"The array has {data.shape[1]} columns; this model takes {len(labels)}.",
            expected=len(labels),
            got=data.shape[1],
        )
    return {label: as_array(data[:, i]) for i, label in enumerate(labels)}


def _from_arrow(column: Any) -> Array:
    text = str(column.type)
    if column.null_count == 0 and text.startswith(("int", "uint", "float", "double", "bool")):
        return np.asarray(column.to_numpy())
    return as_array(column.to_pylist())


def _from_series(series: Any) -> Array:
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "fiubM":
        return np.asarray(series.to_numpy())
    return as_array(list(series))


def pandas() -> Any:
    """Import pandas.

    Raises:
        MissingExtra: If it is not installed.
    """
    try:
        import pandas as pd  # noqa: PLC0415 - optional and heavy
    except ImportError as error:
        raise MissingExtra("pandas", extra="sklearn", purpose="Predicting with this model's own code") from error
    return pd


def to_pandas(columns: Mapping[str, Array], signature: Signature | None) -> Any:
    """Rebuild the frame that the model was trained with: same columns, order and dtypes.

    Args:
        columns: Name to array of shape ``(rows,)``.
        signature: Its columns are taken, in its order; None takes all as they are.

    Returns:
        A pandas frame.
    """
    pd = pandas()
    if signature is None:
        return pd.DataFrame(dict(columns))
    return pd.DataFrame({c.name: _series(pd, columns[c.name], c) for c in signature.inputs})


def model_input(columns: Mapping[str, Array], signature: Signature | None) -> Any:
    """Return what a model's own code is called with: an array if it was trained on one, else a frame."""
    if signature is not None and signature.positional and signature.numeric:
        dtype = np.result_type(*(columns[name].dtype for name in signature.names))
        wanted = dtype if dtype.kind in "fiub" else np.dtype(np.float64)
        return np.column_stack([columns[name].astype(wanted) for name in signature.names])
    return to_pandas(columns, signature)


def _series(pd: Any, values: Array, column: ColumnSpec) -> Any:
    if column.categorical:
        items = [None if is_null(item) else item for item in values.tolist()]
        known = None if column.levels is None else set(column.levels)
        kept = items if known is None else [item if item in known else None for item in items]
        return pd.Series(pd.Categorical(kept, categories=column.levels, ordered=column.ordered))
    dtype = column.dtype or ("str" if column.type == "string" else "")
    if column.type == "string":
        items = [np.nan if item is None else item for item in values.tolist()]
        return pd.Series(items, dtype=dtype if dtype in {"object", "str", "string"} else "object")
    if column.type == "datetime":
        return pd.Series(values.astype(dtype if dtype.startswith("datetime64") else "datetime64[ns]"))
    if values.dtype == object:
        items = [np.nan if item is None else item for item in values.tolist()]
        return pd.Series(items, dtype="object" if column.type == "boolean" else "float64")
    wanted = np.dtype(dtype) if dtype and _is_numpy(dtype) else values.dtype
    if wanted.kind in "iub" and values.dtype.kind == "f" and bool(np.isnan(values).any()):
        return pd.Series(values)
    return pd.Series(values.astype(wanted, copy=False))


def _is_numpy(dtype: str) -> bool:
    try:
        np.dtype(dtype)
    except TypeError:
        return False
    return True

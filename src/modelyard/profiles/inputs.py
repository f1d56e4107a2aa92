"""Reads tables of any common type into ``Columns``, without importing the package that they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

import numpy as np

from modelyard.errors import Invalid
from modelyard.profiles.columns import Column, Columns, is_missing, level_name, microseconds

_EXACT_INTEGER = 2.0**53
_NUMBER_TYPES = frozenset((int, float, np.float64, np.float32, np.int64, np.int32))


def read_columns(data: object, names: Iterable[str] | None = None) -> Columns:
    """Read a table.

    Args:
        data: Arrow Table or RecordBatch, pandas or Polars DataFrame, numpy structured array, mapping of
            column names to one-dimensional arrays, series or lists, list of mappings (one per row; an
            absent key is a missing value), or ``Columns``, which is returned as it is.
        names: Columns wanted; others are not converted, only named. None for all.

    Returns:
        The wanted columns that exist, in table order.

    Raises:
        Invalid: If the data is no table, names repeat, or lengths differ.
    """
    if isinstance(data, Columns):
        return data
    rows, parts = _parts(data)
    wanted = None if names is None else set(names)
    columns: dict[str, Column] = {}
    seen: set[str] = set()
    for name, read in parts:
        if name in seen:
            raise Invalid(f"The table has two columns named {name!r}; rename one.", column=name)
        seen.add(name)
        if wanted is None or name in wanted:
            columns[name] = column = read()
            if len(column) != rows:
                message = f"Column {name!r} has {len(column)} rows, the table has {rows}."
                raise Invalid(message, column=name, rows=rows)
    return Columns(rows, columns, tuple(sorted(seen - set(columns))))


_Parts = list[tuple[str, Callable[[], Column]]]


def _parts(data: Any) -> tuple[int, _Parts]:
    """Return the number of rows, and each column's name with a function that reads it."""
    package = _package(data)
    if package == "polars" and hasattr(data, "to_arrow") and hasattr(data, "columns"):
        return len(data), [(n, partial(_from_polars, data, n)) for n in data.columns]
    if package == "pyarrow" and hasattr(data, "column_names"):
        return data.num_rows, [(n, partial(_from_arrow_table, data, i)) for i, n in enumerate(data.column_names)]
    if package == "pandas" and hasattr(data, "iloc") and hasattr(data, "columns"):
        return len(data), [(str(n), partial(_from_frame, data, i)) for i, n in enumerate(data.columns)]
    if isinstance(data, np.ndarray) and data.dtype.names:
        return len(data), [(n, partial(from_numpy, data[n])) for n in data.dtype.names]
    if isinstance(data, Mapping):
        rows = len(next(iter(data.values()))) if data else 0
        return rows, [(str(n), partial(_from_any, values)) for n, values in data.items()]
    if isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        keys = dict.fromkeys(name for row in data for name in row)
        return len(data), [(str(key), partial(_from_rows, data, key)) for key in keys]
    raise Invalid(
        f"A {type(data).__name__} is no table. Pass an Arrow, pandas or Polars table, a dict of columns, "
        "or a list of dicts."
    )


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _from_polars(frame: Any, name: str) -> Column:
    return from_arrow(frame[name].to_arrow())


def _from_arrow_table(table: Any, index: int) -> Column:
    return from_arrow(table.column(index))


def _from_frame(frame: Any, index: int) -> Column:
    return _from_pandas(frame.iloc[:, index])


def _from_rows(rows: Sequence[Mapping[Any, Any]], key: object) -> Column:
    return from_values([row.get(key) for row in rows])


def _from_any(values: Any) -> Column:
    package = _package(values)
    if package == "pyarrow":
        return from_arrow(values)
    if package == "pandas" and hasattr(values, "dtype"):
        return _from_pandas(values)
    if package == "polars":
        return from_arrow(values.to_arrow())
    if isinstance(values, np.ndarray):
        return from_numpy(values)
    return from_values(list(values))


def from_numpy(array: np.ndarray[Any, Any]) -> Column:
    """Convert a one-dimensional numpy array, masked or not.

    Raises:
        Invalid: If the array has another number of dimensions.
    """
    if array.ndim != 1:
        raise Invalid(f"A column has one dimension; this array has {array.ndim}.", dimensions=array.ndim)
    valid = ~np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    array = np.ma.getdata(array)
    kind = array.dtype.kind
    if kind == "b":
        return Column(array, valid)
    if kind in "iu":
        return Column(array.astype(np.int64 if kind == "i" else np.uint64, copy=False), valid)
    if kind == "f":
        return Column(array.astype(np.float64, copy=False), valid)
    if kind == "M":
        return Column(array.astype("datetime64[us]"), valid)
    if kind == "m":
        return Column(array / np.timedelta64(1, "s"), valid)
    values = array.astype(object).tolist()
    if valid is not None:
        values = [value if ok else None for value, ok in zip(values, valid, strict=True)]
    return from_values(values)


def from_values(values: list[Any]) -> Column:
    """Convert a list of Python values, missing ones among them; several types give an object column."""
    types = set(map(type, values)) - {type(None)}
    column: Column | None = None
    if not types:
        column = Column(np.full(len(values), np.nan))
    elif types <= _NUMBER_TYPES:
        column = _plain_numbers(values, types)
    elif types <= {bool, np.bool_}:
        valid = np.array([value is not None for value in values], dtype=bool)
        column = Column(np.array([bool(value) for value in values], dtype=bool), valid)
    elif types == {str}:
        column = _plain_text(values)
    elif all(issubclass(t, date) and t.__name__ != "NaTType" for t in types):
        valid = np.array([value is not None for value in values], dtype=bool)
        moments = [0 if value is None else microseconds(value) or 0 for value in values]
        column = Column(np.array(moments, dtype=np.int64).view("datetime64[us]"), valid)
    return column or Column(np.fromiter(values, dtype=object, count=len(values)))


def _plain_numbers(values: list[Any], types: set[type]) -> Column | None:
    """Convert numbers and None; None if one by one is needed to keep large integers apart."""
    try:
        if types <= {int, np.int64, np.int32}:
            valid = np.array([value is not None for value in values], dtype=bool)
            return Column(np.array([0 if v is None else v for v in values], dtype=np.int64), valid)
        floats = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    integers = bool(types & {int, np.int64, np.int32})
    if integers and bool((np.abs(floats) >= _EXACT_INTEGER).any()):
        return None
    return Column(floats)


def _plain_text(values: list[Any]) -> Column | None:
    import pyarrow as pa  # noqa: PLC0415

    try:
        return from_arrow(pa.array(values, pa.large_string()))
    except (UnicodeEncodeError, pa.ArrowInvalid):  # lone surrogates are no UTF-8
        return None


def _from_pandas(series: Any) -> Column:
    if isinstance(series.dtype, np.dtype):
        return from_numpy(series.to_numpy())
    import pyarrow as pa  # noqa: PLC0415

    try:
        return from_arrow(pa.array(series, from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return from_values(series.astype(object).tolist())


def from_arrow(array: Any) -> Column:
    """Convert an Arrow array or chunked array.

    Lists, structs and other nested values become objects, which count as categories by their text.
    """
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(array, pa.ChunkedArray):
        array = array.unify_dictionaries().combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    if pa.types.is_null(kind):
        return Column(np.full(len(array), np.nan))
    if pa.types.is_dictionary(kind):
        return _from_dictionary(array)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        text = array.cast(pa.large_string()) if pa.types.is_string_view(kind) else array
        return _from_dictionary(text.dictionary_encode())
    return _from_arrow_scalars(array)


def _from_arrow_scalars(array: Any) -> Column:
    import pyarrow as pa  # noqa: PLC0415

    kind = array.type
    valid = None if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(kind):
        return Column(array.fill_null(False).to_numpy(zero_copy_only=False), valid)
    if pa.types.is_integer(kind):
        return Column(from_numpy(_filled(array)).values, valid)
    if pa.types.is_floating(kind):
        return Column(array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False))
    if pa.types.is_decimal(kind):
        return Column(array.cast(pa.float64()).to_numpy(zero_copy_only=False))
    if pa.types.is_temporal(kind):
        return _from_arrow_times(array, valid)
    return from_values(array.to_pylist())


def _from_arrow_times(array: Any, valid: Any) -> Column:
    import pyarrow as pa  # noqa: PLC0415

    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moments = array.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
        return Column(_filled(moments.cast(pa.int64())).view("datetime64[us]"), valid)
    if pa.types.is_duration(kind):
        return Column(_filled(array).astype("timedelta64[us]") / np.timedelta64(1, "s"), valid)
    return from_values(array.to_pylist())


def _filled(array: Any) -> Any:
    """Return a numpy array with zeros in place of nulls, so that integers stay integers."""
    import pyarrow as pa  # noqa: PLC0415

    filled = array.fill_null(pa.scalar(0, array.type)) if array.null_count else array
    return filled.to_numpy(zero_copy_only=False)


def _from_dictionary(array: Any) -> Column:
    names = array.dictionary.to_pylist()
    if any(map(is_missing, names)):  # a missing value may hide behind a code
        return from_arrow(array.dictionary_decode())
    valid = None if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)
    codes = _filled(array.indices).astype(np.int64, copy=False)
    return Column(codes, valid, tuple(level_name(name) for name in names))

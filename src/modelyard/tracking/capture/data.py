"""Data: a content digest that does not depend on the order of rows, a schema and a profile.

The digest tells whether data have changed. It is no defence against somebody who constructs other rows with
the same digest: rows are hashed to 64 bits by a fixed function and added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard import profiles
from modelyard.errors import Invalid
from modelyard.tracking.model import DatasetInput
from modelyard.tracking.recorder import RunRecorder

if TYPE_CHECKING:
    import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

LABEL = "label"
# Rows hashed at a time: a slice of a column and its hashes stay in the processor's cache.
_SLICE_ROWS = 1 << 17
_PROFILE_ROWS = 1_000_000
_NULL = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xD1B54A32D192ED03)


def content_digest(data: object) -> str:
    """Return the hex SHA-256 that names the content of a table.

    Equal rows in another order, another order of the columns, or another library holding them give the same
    digest; any other value, name, type or number of rows another one. NaN counts as null, -0.0 as 0.0.

    Args:
        data: What ``to_table`` takes.

    Raises:
        Invalid: If it is no table.
    """
    table = to_table(data)
    return digest_of(table)


def digest_of(table: pa.Table) -> str:
    """Return the digest of an Arrow table; see ``content_digest``."""
    first = second = 0
    for start in range(0, table.num_rows, _SLICE_ROWS):
        part = table.slice(start, _SLICE_ROWS)
        rows = np.zeros(part.num_rows, dtype=np.uint64)
        for name, column in zip(part.column_names, part.columns, strict=True):
            rows += _mix(_cells(column) ^ _seed(name))
        first += int(_mix(rows).sum(dtype=np.uint64))
        second += int(_mix(rows ^ _SECOND).sum(dtype=np.uint64))
    content = {
        "format": 1,
        "rows": table.num_rows,
        "columns": sorted([field.name, _type_name(field.type)] for field in table.schema),
        "sums": [first % 2**64, second % 2**64],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def to_table(data: Any, target: Any = None) -> pa.Table:
    """Turn data into an Arrow table, without a copy where Arrow can do without.

    Args:
        data: Arrow table or batch, pandas or Polars frame or series, NumPy array of one or two dimensions,
            SciPy sparse matrix, mapping of columns, or list of rows.
        target: Labels, one a row, added as a column; None for none.

    Raises:
        Invalid: If it is none of these, or target and data differ in length.
    """
    import pyarrow as pa

    table = _table(pa, data)
    if target is None:
        return table
    labels = _table(pa, target)
    if labels.num_rows != table.num_rows:
        raise Invalid(f"There are {labels.num_rows} labels for {table.num_rows} rows.")
    for name, column in zip(labels.column_names, labels.columns, strict=True):
        shown = LABEL if name in {"x0", ""} else name
        while shown in table.column_names:
            shown += "_"
        table = table.append_column(shown, column)
    return table


def describe(table: pa.Table, *, name: str, context: str = "training", digest: str | None = None) -> DatasetInput:
    """Describe a table as the input of a run."""
    schema = [{"name": field.name, "type": _type_name(field.type)} for field in table.schema]
    return DatasetInput(
        name=name,
        digest=digest or digest_of(table),
        context=context,
        schema=json.dumps({"columns": schema, "rows": table.num_rows}),
    )


def profile_of(table: pa.Table) -> profiles.TableProfile:
    """Learn bins from a table and count its rows; of more than a million rows an even selection."""
    if table.num_rows > _PROFILE_ROWS:
        table = table.take(np.linspace(0, table.num_rows - 1, _PROFILE_ROWS).astype(np.int64))
    return profiles.profile(table, profiles.learn_specs(table))


def pack_profile(profile: profiles.TableProfile) -> bytes:
    """Write a profile and how it counts as one object."""
    return profile.spec.to_json().encode() + b"\n" + profiles.to_bytes(profile)


def unpack_profile(content: bytes) -> profiles.TableProfile:
    """Read what ``pack_profile`` wrote.

    Raises:
        Invalid: If it is not that.
    """
    spec, _, counts = content.partition(b"\n")
    return profiles.from_bytes(counts, profiles.TableSpec.from_json(spec))


def record_data(
    run: RunRecorder, data: object, *, name: str, context: str = "training", target: object = None
) -> DatasetInput:
    """Log data as an input of a run: digest, schema and, as an object, its profile.

    Args:
        run: The run.
        data: What ``to_table`` takes.
        name: Name of the dataset.
        context: What it is used for.
        target: Labels, one a row.

    Raises:
        Invalid: If it is no table.
    """
    table = to_table(data, target)
    dataset = describe(table, name=name, context=context)
    if table.num_rows and table.num_columns:
        digest = run.upload(pack_profile(profile_of(table)))
        fields = {key: getattr(dataset, key) for key in DatasetInput.__slots__}
        dataset = DatasetInput(**{**fields, "profile_digest": digest})
    run.log_input(dataset)
    return dataset


def _table(pa: Any, data: Any) -> Any:
    package = type(data).__module__.partition(".")[0]
    if package in _READERS and (package != "scipy" or hasattr(data, "tocsc")):
        return _READERS[package](pa, data)
    if isinstance(data, Mapping):
        return pa.table({str(name): _from_values(pa, values) for name, values in data.items()})
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        if data and isinstance(data[0], Mapping):
            return pa.Table.from_pylist([dict(row) for row in data])
        return _from_array(pa, np.asarray(data))
    raise Invalid(f"A table is expected (Arrow, pandas, Polars, NumPy, columns or rows), got {type(data).__name__}.")


def _from_arrow(pa: Any, data: Any) -> Any:
    return pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data


def _from_polars(pa: Any, data: Any) -> Any:
    return data.to_arrow() if hasattr(data, "columns") else pa.table({data.name or LABEL: data.to_arrow()})


def _from_frame(pa: Any, data: Any) -> Any:
    frame = data if hasattr(data, "columns") else data.to_frame(LABEL if data.name is None else data.name)
    return pa.table({str(name): _from_pandas(pa, frame.iloc[:, i]) for i, name in enumerate(frame.columns)})


def _from_pandas(pa: Any, series: Any) -> Any:
    try:
        return pa.Array.from_pandas(series)
    except pa.ArrowException:
        # Mixed Python objects have no Arrow type; their text stands for them.
        return pa.array([None if value is None else str(value) for value in series])


def _from_array(pa: Any, array: npt.NDArray[Any]) -> Any:
    if array.dtype.names:
        return pa.table({name: _from_values(pa, array[name]) for name in array.dtype.names})
    if array.ndim == 1:
        return pa.table({"x0": _from_values(pa, array)})
    if array.ndim == 2:
        return pa.table({f"x{i}": _from_values(pa, array[:, i]) for i in range(array.shape[1])})
    raise Invalid(f"A table has one or two dimensions, got an array of shape {array.shape}.")


def _from_values(pa: Any, values: Any) -> Any:
    try:
        return pa.array(values, from_pandas=True)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values])


def _from_sparse(pa: Any, matrix: Any) -> Any:
    """Lay a sparse matrix out as one column a feature; its zeros are zeros."""
    return pa.table({f"x{i}": matrix[:, [i]].toarray().ravel() for i in range(matrix.shape[1])})


_READERS = {
    "pyarrow": _from_arrow,
    "polars": _from_polars,
    "pandas": _from_frame,
    "scipy": _from_sparse,
    "numpy": _from_array,
}


def _type_name(kind: Any) -> str:
    """Name a type so that libraries with different widths agree."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _type_name(kind.value_type)
    names = {
        "boolean": types.is_boolean,
        "integer": types.is_integer,
        "float": types.is_floating,
        "string": lambda each: types.is_string(each) or types.is_large_string(each) or types.is_string_view(each),
        "timestamp": lambda each: types.is_timestamp(each) or types.is_date(each),
    }
    return next((name for name, matches in names.items() if matches(kind)), str(kind))


def _cells(column: Any) -> Hashes:
    """Hash every value of a column to 64 bits that depend on nothing but the value. Shape ``(rows,)``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _cells(column.cast(kind.value_type))
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        wide = pa.uint64() if kind == pa.uint64() else pa.int64()
        numbers = _filled(pc, column.cast(wide)).view(np.uint64)
    elif pa.types.is_floating(kind):
        values = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy() + 0.0
        bits: Hashes = values.view(np.uint64)
        return np.where(np.isnan(values), _NULL, _mix(bits))
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        numbers = _instants(pa, pc, column)
    else:
        return _texts(pa, column)
    hashes = _mix(numbers)
    if column.null_count:
        hashes[column.is_null().to_numpy()] = _NULL
    return hashes


def _instants(pa: Any, pc: Any, column: Any) -> Hashes:
    """Return times as whole microseconds, what is below them added so that it vanishes when it is zero."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        nanoseconds = _filled(pc, column.cast(pa.int64()))
        below = _mix((nanoseconds % 1000).view(np.uint64)) - _mix(np.zeros(1, dtype=np.uint64))
        whole: Hashes = (nanoseconds // 1000).view(np.uint64)
        return whole + below
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    instants: Hashes = _filled(pc, column.cast(pa.timestamp("us", zone)).cast(pa.int64())).view(np.uint64)
    return instants


def _filled(pc: Any, column: Any) -> npt.NDArray[np.int64]:
    filled = pc.fill_null(column, 0) if column.null_count else column
    return np.ascontiguousarray(filled.to_numpy())


def _texts(pa: Any, column: Any) -> Hashes:
    """Hash anything else by its bytes or text, each distinct value once."""
    try:
        encoded = column.combine_chunks().dictionary_encode()
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        distinct, indices = encoded.dictionary.to_pylist(), encoded.indices
    except pa.ArrowException:
        return np.fromiter((_hash(value) for value in column.to_pylist()), dtype=np.uint64, count=len(column))
    table = np.fromiter((_hash(value) for value in [*distinct, None]), dtype=np.uint64, count=len(distinct) + 1)
    places: npt.NDArray[np.int64] = indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    return table[places]


def _hash(value: object) -> int:
    if value is None:
        return int(_NULL)
    content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _seed(name: str) -> np.uint64:
    return np.uint64(_hash(f"column {name}"))


def _mix(numbers: Hashes) -> Hashes:
    """Spread the bits of numbers; a bijection.

    Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014, Fast splittable pseudorandom number
    generators, figure 17), with its increment.
    """
    mixed = numbers + _NULL
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

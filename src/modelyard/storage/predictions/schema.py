"""The columns of a prediction, and how tables with different features come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from modelyard.errors import Invalid

FEATURE_PREFIX = "f."
FILE_NUMBER = "file_number"

_TIME = pa.timestamp("us", tz="UTC")

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("prediction_id", pa.string(), nullable=False),
        pa.field("request_id", pa.string()),
        pa.field("project", pa.string(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("version", pa.int64()),
        pa.field("variant", pa.string()),
        pa.field("role", pa.string()),
        pa.field("time", _TIME, nullable=False),
        pa.field("recorded_at", _TIME, nullable=False),
        pa.field("entity_key", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("answer", pa.string()),
        pa.field("label", pa.string()),
        pa.field("latency_us", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("warnings", pa.string()),
    ]
)
"""Every column but the features: one column each, named ``f.<feature>``, of any flat type."""

_REQUIRED = tuple(field.name for field in PREDICTION_SCHEMA if not field.nullable)


def conform(rows: pa.Table) -> pa.Table:
    """Bring rows to the prediction schema: its columns first, then the features by name.

    Columns that may be null and are absent are filled with nulls; dictionary-encoded text becomes text.

    Raises:
        Invalid: If a required column is absent or holds a null, a column is neither of the schema nor a
            feature, or a value does not fit its type.
    """
    names = rows.column_names
    unknown = [name for name in names if name not in PREDICTION_SCHEMA.names and not name.startswith(FEATURE_PREFIX)]
    if unknown or len(set(names)) != len(names):
        raise Invalid(
            f"Prediction rows have columns that do not belong or come twice: {unknown or names}. "
            f"Features are named {FEATURE_PREFIX}<name>.",
            columns=unknown,
        )
    for name in _REQUIRED:
        if name not in names or rows.column(name).null_count:
            raise Invalid(f"Every prediction row needs {name!r}.", column=name)
    features = sorted(name for name in names if name.startswith(FEATURE_PREFIX))
    extra = [pa.field(name, _plain(rows.schema.field(name).type)) for name in features]
    return cast(rows, pa.schema([*PREDICTION_SCHEMA, *extra]))


def cast(rows: pa.Table, schema: pa.Schema, *, exact: bool = True) -> pa.Table:
    """Return the columns of ``schema``, in its order and types; absent ones are null.

    Args:
        rows: Any of the schema's columns.
        schema: The columns to return.
        exact: Refuse a number that its new type cannot hold exactly, instead of rounding it.

    Raises:
        Invalid: If values do not fit their type.
    """
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column = rows.column(field.name)
        try:
            columns.append(column if column.type == field.type else pc.cast(column, field.type, safe=exact))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise Invalid(
                f"Column {field.name!r} holds {column.type} values that do not fit {field.type}.",
                column=field.name,
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def feature_types(schema: pa.Schema) -> dict[str, str]:
    """Return the name and type of each feature column, as the manifest keeps them."""
    return {field.name: str(field.type) for field in schema if field.name.startswith(FEATURE_PREFIX)}


def united(features: Iterable[Mapping[str, str]]) -> dict[str, pa.DataType]:
    """Return one type per feature over several files.

    Numbers widen (whole numbers and booleans beside floats become float64); types that have nothing in
    common, as when a feature changed its meaning between two versions, meet as text.
    """
    types: dict[str, pa.DataType] = {}
    for file in features:
        for name, text in file.items():
            found = _type_named(text)
            types[name] = _wider(types[name], found) if name in types else found
    return dict(sorted(types.items()))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return _TIME if kind.tz else pa.timestamp("us")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return kind
    if pa.types.is_null(kind):
        return pa.null()
    return pa.string()


def _type_named(text: str) -> pa.DataType:
    special = {"timestamp[us]": pa.timestamp("us"), "timestamp[us, tz=UTC]": _TIME}
    return special.get(text) or pa.type_for_alias(text)


def _wider(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    kinds = (left, right)
    whole = [pa.types.is_integer(kind) or pa.types.is_boolean(kind) for kind in kinds]
    if all(whole) and pa.uint64() not in kinds:
        return pa.int64()
    if all(w or pa.types.is_floating(kind) for w, kind in zip(whole, kinds, strict=True)):
        return pa.float64()
    return pa.string()

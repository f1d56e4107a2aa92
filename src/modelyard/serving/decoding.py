"""From records to prediction rows: bodies are parsed again, answers put beside them, columns typed.

Runs in the collector, never in a worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from modelyard.errors import Invalid
from modelyard.serving.capture import OIP, Descriptor, Record, decode_record
from modelyard.serving.protocols import native, oip
from modelyard.serving.protocols.ask import Row
from modelyard.serving.routing import key_bytes
from modelyard.storage.predictions import FEATURE_PREFIX, PREDICTION_SCHEMA

log = logging.getLogger(__name__)

PINNED = "pinned"
"""Role of rows whose version the client chose: they are no random sample, so experiments leave them out."""

MILLISECONDS_FROM = 100_000_000_000
"""A numeric event time from here on is in milliseconds; below it, in seconds (until the year 5138)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "long": pa.int64(),
    "float": pa.float64(),
    "double": pa.float64(),
    "string": pa.string(),
    "datetime": pa.timestamp("us"),
}
_NULL = type(None)
_PLAIN = {
    "boolean": frozenset({bool, _NULL}),
    "integer": frozenset({int, _NULL}),
    "long": frozenset({int, _NULL}),
    "float": frozenset({float, int, _NULL}),
    "double": frozenset({float, int, _NULL}),
    "string": frozenset({str, _NULL}),
    "datetime": frozenset({_NULL}),
}
_encode = msgspec.json.Encoder(enc_hook=str).encode

ReadDescriptor = Callable[[bytes], Descriptor]


class Decoded:
    """What a batch of records says.

    Args:
        payloads: Records as they were appended.
        read_descriptor: Returns a descriptor by its digest.

    Attributes:
        tables: One table per endpoint and set of columns, in the columns of ``PREDICTION_SCHEMA`` and
            ``f.<feature>``.
        unreadable: Records that could not be decoded; each is logged.
    """

    def __init__(self, payloads: Iterable[bytes], read_descriptor: ReadDescriptor) -> None:
        self.unreadable = 0
        groups: dict[bytes, list[Record]] = {}
        for payload in payloads:
            try:
                record = decode_record(payload)
            except Invalid as error:
                self._skip(error)
            else:
                groups.setdefault(record.descriptor, []).append(record)
        self.tables: list[pa.Table] = []
        for digest, records in groups.items():
            try:
                descriptor = read_descriptor(digest)
            except Invalid as error:
                self._skip(error, count=len(records))
            else:
                self.tables.append(table_of(records, descriptor))

    def _skip(self, error: Invalid, *, count: int = 1) -> None:
        self.unreadable += count
        log.error("%d prediction records were lost: %s", count, error.message)


def table_of(records: Sequence[Record], descriptor: Descriptor) -> pa.Table:
    """Turn records of one descriptor into rows.

    Returns:
        As many rows as the records hold answers, in their order.
    """
    rows: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {name: [] for name in PREDICTION_SCHEMA.names}
    constant = {"project": descriptor.project, "endpoint": descriptor.endpoint}
    for record in records:
        found = _rows(record, descriptor)
        rows += found
        _append(columns, record, found, descriptor)
    for name, value in constant.items():
        columns[name] = [value] * len(rows)
    arrays = [pa.array(columns[field.name], type=field.type) for field in PREDICTION_SCHEMA]
    fields = list(PREDICTION_SCHEMA)
    for name, kind in descriptor.columns:
        if name in descriptor.redact:
            values = pa.nulls(len(rows), _TYPES[kind])
        else:
            values = feature([row.get(name) for row in rows], kind)
        arrays.append(values)
        fields.append(pa.field(FEATURE_PREFIX + name, _TYPES[kind]))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def feature(values: list[Any], kind: str) -> pa.Array:
    """Turn JSON values into an Arrow array of a signature's column type; what does not fit becomes null."""
    if _PLAIN[kind].issuperset(map(type, values)):
        try:
            return pa.array(values, type=_TYPES[kind])
        except (
            pa.ArrowInvalid,
            OverflowError,
        ):  # a whole number beyond 64 bits, or beyond a float's precision
            pass
    return pa.array([_fitted(value, kind) for value in values], type=_TYPES[kind])


def event_time_us(value: object) -> int | None:
    """Read an event time: ISO 8601 text (UTC if it names no zone), or seconds or milliseconds since 1970.

    Returns:
        Microseconds since 1970, or None if it cannot be read.

    >>> event_time_us("1970-01-01T00:00:01"), event_time_us(1), event_time_us(1_700_000_000_000)
    (1000000, 1000000, 1700000000000000)
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return (aware - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, OverflowError):
            return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        scale = 1_000 if abs(value) >= MILLISECONDS_FROM else 1_000_000
        try:
            found = int(value * scale)
        except (ValueError, OverflowError):
            return None
        return found if abs(found) < 1 << 60 else None
    return None


def _rows(record: Record, descriptor: Descriptor) -> list[dict[str, Any]]:
    """Parse a record's body again; rows that were lists get their names."""
    try:
        if record.protocol == OIP:
            named = [name for name in (descriptor.entity_key, descriptor.time_column) if name is not None]
            found: list[Row] = oip.parse(record.body, order=descriptor.order, extra=named).rows
        else:
            found = native.parse(record.body).rows
    except Invalid as error:
        log.error("the body of request %r cannot be read again: %s", record.request_id, error.message)
        found = []
    if record.rows is not None:
        found = [found[i] for i in record.rows if i < len(found)]
    named_rows = [row if isinstance(row, dict) else dict(zip(descriptor.order, row, strict=False)) for row in found]
    missing = len(record.ids) - len(named_rows)
    return named_rows if missing == 0 else (named_rows + [{}] * max(missing, 0))[: len(record.ids)]


def _append(columns: dict[str, list[Any]], record: Record, rows: list[dict[str, Any]], descriptor: Descriptor) -> None:
    count = len(record.ids)
    nothing = [None] * count
    variants = [descriptor.variants[i] for i in record.variants]
    labels, outputs = record.labels or nothing, record.outputs or nothing
    statuses = record.statuses or ["ok"] * count
    warnings: list[Any] = list(record.warnings or nothing)
    columns["prediction_id"] += record.ids
    columns["request_id"] += [record.request_id] * count
    columns["model"] += [variant.model for variant in variants]
    columns["version"] += [variant.version for variant in variants]
    columns["variant"] += [variant.name for variant in variants]
    columns["role"] += [PINNED if record.pinned else variant.role for variant in variants]
    columns["time"] += _times(record, rows, descriptor, warnings)
    columns["recorded_at"] += [record.time_us] * count
    columns["entity_key"] += _keys(rows, descriptor)
    columns["score"] += record.scores
    columns["answer"] += [
        _answer(score, label, output) if status == "ok" else None
        for score, label, output, status in zip(record.scores, labels, outputs, statuses, strict=True)
    ]
    columns["label"] += [None if label is None else _text(label) for label in labels]
    columns["latency_us"] += [record.latency_us] * count
    columns["status"] += statuses
    columns["warnings"] += [_encode(items).decode() if items else None for items in warnings]


def _times(record: Record, rows: list[dict[str, Any]], descriptor: Descriptor, warnings: list[Any]) -> list[int]:
    """Return each row's event time; where it cannot be read, the wall clock and a warning."""
    name = descriptor.time_column
    if name is None or name in descriptor.redact:
        return [record.time_us] * len(rows)
    times = []
    for i, row in enumerate(rows):
        value = row.get(name)
        found = event_time_us(value)
        if found is None:
            found = record.time_us
            warning = {"code": "event_time", "column": name, "got": str(value)[:100]}
            warnings[i] = [*(warnings[i] or ()), warning]
        times.append(found)
    return times


def _keys(rows: list[dict[str, Any]], descriptor: Descriptor) -> list[str | None]:
    name = descriptor.entity_key
    if name is None or name in descriptor.redact:
        return [None] * len(rows)
    keys = (key_bytes(row.get(name)) for row in rows)
    return [None if key is None else key.decode("utf-8", "replace") for key in keys]


def _answer(score: float | None, label: Any, outputs: list[float] | None) -> str:
    answer: dict[str, Any] = {"score": score} if outputs is None else {"outputs": outputs}
    if label is not None:
        answer["label"] = label
    return _encode(answer).decode()


def _text(label: Any) -> str:
    return label if isinstance(label, str) else _encode(label).decode()


def _fitted(value: Any, kind: str) -> Any:
    """Return one value as its column holds it, or None if it does not fit."""
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "datetime":
        return event_time_us(value) if isinstance(value, str) else None
    if kind == "boolean":
        return bool(value) if type(value) in {bool, int, float} and value in {0, 1} else None
    return _number(value, whole=kind in {"integer", "long"}) if type(value) in {int, float} else None


def _number(value: float, *, whole: bool) -> float | None:
    try:
        if not whole:
            return float(value)
        found = int(value)
    except (ValueError, OverflowError):
        return None
    return found if found == value and -(2**63) <= found < 2**63 else None

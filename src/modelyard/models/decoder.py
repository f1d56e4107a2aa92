"""Check rows against a signature, fast.

A row is taken apart by one C-level ``itemgetter``. The tuple of its values' types is looked up among those
already proven good; only a new one is checked value by value. A typical row of 20 numbers so costs one
getter, one tuple of types and one set lookup (benchmarks/predictor.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any

import numpy as np

from modelyard.errors import Invalid, TooLarge
from modelyard.models.faults import MissingColumn, NullNotAllowed, UnexpectedColumn, WrongType
from modelyard.models.frame import Array, Columns, DataWarning, Frame, is_null, objects, to_columns
from modelyard.models.signature import ColumnSpec, Signature

Row = Mapping[str, Any] | Sequence[Any]
Values = tuple[Any, ...]

MAX_ROWS = 100_000
"""Rows in one call of ``rows``; larger tables come as columns."""
_MAX_SHAPES = 4096
"""Remembered tuples of value types; bounds memory when a client mixes types at random."""
_EXPECTED = {
    "boolean": "true or false",
    "integer": "a whole number",
    "long": "a whole number",
    "float": "a number",
    "double": "a number",
    "string": "text",
    "datetime": "an ISO 8601 time",
}
_PLAIN: dict[str, frozenset[type]] = {
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "long": frozenset({int}),
    "float": frozenset({float, int}),
    "double": frozenset({float, int}),
    "string": frozenset({str}),
    "datetime": frozenset(),
}


class Decoder:
    """Checks rows and columns against one signature. Safe for concurrent use.

    Args:
        signature: What the rows must look like; at least one input.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._specs = signature.inputs
        self._names = signature.names
        self._known = frozenset(self._names)
        self._width = len(self._names)
        getter = itemgetter(*self._names)
        self._get: Any = getter if self._width > 1 else lambda row: (getter(row),)
        self._good: set[tuple[type, ...]] = set()
        self._levels = [(i, c.name, frozenset(c.levels)) for i, c in enumerate(self._specs) if c.levels is not None]
        self._floats = [i for i, c in enumerate(self._specs) if c.type in {"float", "double"}]
        self._pick: Any = itemgetter(*self._floats) if self._floats else lambda row: ()
        self._float_names = [self._names[i] for i in self._floats]
        self._others = [(i, c) for i, c in enumerate(self._specs) if c.type not in {"float", "double"}]
        self._strict_of_floats = [k for k, i in enumerate(self._floats) if not self._specs[i].nullable]
        self._strict = np.array(
            [i for i, c in enumerate(self._specs) if c.type in {"float", "double"} and not c.nullable],
            dtype=np.intp,
        )

    def rows(self, rows: Sequence[Row], *, ignore: Collection[str] = ()) -> tuple[list[Values], list[DataWarning]]:
        """Check rows and put their values into signature order.

        Args:
            rows: Each a mapping of names to JSON values, or a sequence of values in signature order.
            ignore: Names that rows may hold besides the inputs; they are dropped.

        Returns:
            One tuple of ``len(signature.inputs)`` values a row (null is None), and the warnings.

        Raises:
            Invalid: For the first row that does not fit: ``MissingColumn``, ``UnexpectedColumn``,
                ``WrongType``, ``NullNotAllowed``; the facts name column, row, expected and got.
        """
        if len(rows) > MAX_ROWS:
            raise TooLarge("The request", size=len(rows), limit=MAX_ROWS, unit="rows")
        get, good, width = self._get, self._good, self._width
        out: list[Values] = []
        warnings: list[DataWarning] = []
        for index, row in enumerate(rows):
            try:
                values = get(row)
            except (KeyError, TypeError):
                values = None
            if values is None or len(row) != width or tuple(map(type, values)) not in good:
                values = self._check(row, index, ignore, warnings)
            for position, name, levels in self._levels:
                value = values[position]
                if value not in levels and value is not None:
                    warnings.append(DataWarning("unknown_category", name, index, str(value)[:100]))
            out.append(values)
        return out, warnings

    def frame(self, rows: Sequence[Row] | Mapping[str, Any], *, ignore: Collection[str] = ()) -> Frame:
        """Check rows, or a mapping of columns, and turn them into arrays.

        Raises:
            Invalid: As ``rows``; or the columns differ in length.
        """
        if isinstance(rows, Mapping):
            return self.columns(rows, ignore=ignore)
        values, warnings = self.rows(rows, ignore=ignore)
        # One conversion and one null check for all float columns: per column they would cost the most.
        block = np.array(values if not self._others else [self._pick(row) for row in values], dtype=np.float64)
        block = np.ascontiguousarray(block.reshape(len(values), len(self._floats)).T) if self._floats else block
        self._refuse_nulls_in(block)
        columns: Columns = dict.fromkeys(self._names, block)
        columns.update(zip(self._float_names, block, strict=False))
        for i, spec in self._others:
            columns[spec.name] = self._array(spec, [row[i] for row in values])
        return Frame(columns, len(values), tuple(warnings))

    def columns(self, data: object, *, ignore: Collection[str] | None = ()) -> Frame:
        """Check a table column by column.

        Args:
            data: Any table that ``to_columns`` takes; an array must be in signature order.
            ignore: Names that the table may hold besides the inputs; None ignores all others.

        Raises:
            Invalid: As ``rows``.
        """
        given = to_columns(data, names=self._names if isinstance(data, np.ndarray) else None)
        if ignore is not None:
            for name in given:
                if name not in self._known and name not in ignore:
                    raise UnexpectedColumn(name, row=None, known=self._names)
        count = len(next(iter(given.values()))) if given else 0
        warnings: list[DataWarning] = []
        columns: Columns = {}
        for spec in self._specs:
            values = given.get(spec.name)
            if values is None:
                if spec.required:
                    raise MissingColumn(spec.name, row=None, given=[n for n in given if n not in self._known])
                values = objects([None] * count)
            columns[spec.name] = self._column(spec, values, warnings)
        return Frame(columns, count, tuple(warnings))

    @property
    def strict(self) -> bool:
        """Whether some float column refuses nulls."""
        return len(self._strict) > 0

    def refuse_nulls(self, matrix: Array) -> None:
        """Refuse NaN where training saw none; ``matrix`` has shape ``(rows, inputs)``, signature order.

        Raises:
            NullNotAllowed: For the first such value.
        """
        if len(self._strict):
            rows, positions = np.nonzero(np.isnan(matrix[:, self._strict]))
            if len(rows):
                spec = self._specs[int(self._strict[positions[0]])]
                raise NullNotAllowed(spec.name, row=int(rows[0]), expected=_EXPECTED[spec.type])

    def _refuse_nulls_in(self, block: Array) -> None:
        if block.size and np.isnan(block).any():
            for k in self._strict_of_floats:
                bad = np.flatnonzero(np.isnan(block[k]))
                if len(bad):
                    spec = self._specs[self._floats[k]]
                    raise NullNotAllowed(spec.name, row=int(bad[0]), expected=_EXPECTED[spec.type])

    def _check(self, row: Row, index: int, ignore: Collection[str], warnings: list[DataWarning]) -> Values:
        if isinstance(row, Mapping):
            self._check_names(row, index, ignore)
            raw = [row.get(name) for name in self._names]
            absent = [c.name for c in self._specs if not c.required and c.name not in row]
            warnings += [DataWarning("absent_column", name, index, "null") for name in absent]
        elif isinstance(row, Sequence) and not isinstance(row, str | bytes):
            raw = list(row)
            if len(raw) != self._width:
                raise Invalid(
                    f"Row {index}: {len(raw)} values for {self._width} columns ({self._names[0]!r}, ...).",
                    row=index,
                    expected=self._width,
                    got=len(raw),
                )
        else:
            raise WrongType("(row)", row=index, expected="an object or a list of values", got=row)
        values = tuple(_scalar(spec, value, index) for spec, value in zip(self._specs, raw, strict=True))
        self._remember(raw)
        return values

    def _check_names(self, row: Mapping[str, Any], index: int, ignore: Collection[str]) -> None:
        extra = [name for name in row if name not in self._known and name not in ignore]
        for spec in self._specs:
            if spec.required and spec.name not in row:
                raise MissingColumn(spec.name, row=index, given=[str(name) for name in extra])
        if extra:
            raise UnexpectedColumn(str(extra[0]), row=index, known=self._names)

    def _remember(self, raw: Sequence[object]) -> None:
        """Remember the row's types if they alone prove that a row is good."""
        plain = all(
            type(value) in _PLAIN[spec.type] or (value is None and spec.nullable)
            for spec, value in zip(self._specs, raw, strict=True)
        )
        if plain and len(self._good) < _MAX_SHAPES:
            self._good.add(tuple(map(type, raw)))

    def _array(self, spec: ColumnSpec, column: Sequence[Any]) -> Array:
        """Turn checked values into an array, refusing what the types alone do not show."""
        if spec.type == "string":
            return objects(column)
        if spec.type in {"float", "double"} or (spec.numeric and spec.type != "boolean" and None in column):
            array = np.array(column, dtype=np.float64)
            if not spec.nullable and np.isnan(array).any():
                row = int(np.flatnonzero(np.isnan(array))[0])
                raise NullNotAllowed(spec.name, row=row, expected=_EXPECTED[spec.type])
            return array
        if spec.type == "datetime":
            return np.array([np.datetime64("NaT") if v is None else v for v in column], dtype="datetime64[ns]")
        if None in column:
            return objects(column)
        try:
            return np.array(column, dtype=np.bool_ if spec.type == "boolean" else np.int64)
        except OverflowError:
            row = next(i for i, v in enumerate(column) if not -(2**63) <= v < 2**63)
            raise WrongType(spec.name, row=row, expected="a 64-bit whole number", got=column[row]) from None

    def _column(self, spec: ColumnSpec, values: Array, warnings: list[DataWarning]) -> Array:
        kind = values.dtype.kind
        if not _fits(spec, values):
            items = [_scalar(spec, value, row) for row, value in enumerate(values.tolist())]
            values = self._array(spec, items)
        elif kind == "f" and not spec.nullable and bool(np.isnan(values).any()):
            row = int(np.flatnonzero(np.isnan(values))[0])
            raise NullNotAllowed(spec.name, row=row, expected=_EXPECTED[spec.type])
        if spec.levels is not None:
            levels = frozenset(spec.levels)
            for row, value in enumerate(values.tolist()):
                if value not in levels and not is_null(value):
                    warnings.append(DataWarning("unknown_category", spec.name, row, str(value)[:100]))
        return values


def _fits(spec: ColumnSpec, values: Array) -> bool:
    kind = values.dtype.kind
    if spec.type in {"float", "double"}:
        return kind in "fiu"
    if spec.type in {"integer", "long"}:
        return kind in "iu"
    return (spec.type == "boolean" and kind == "b") or (spec.type == "datetime" and kind == "M" and spec.nullable)


def _scalar(spec: ColumnSpec, value: object, row: int) -> Any:
    """Check one value; return it as plain Python (a time as ``datetime64``), null as None."""
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        value = value.item()
    if is_null(value):
        if spec.nullable:
            return None
        raise NullNotAllowed(spec.name, row=row, expected=_EXPECTED[spec.type])
    if type(value) in _PLAIN[spec.type]:
        return value
    if spec.type in {"integer", "long"} and isinstance(value, float) and value.is_integer():
        return int(value)
    if spec.type in {"float", "double"} and isinstance(value, float):
        return float(value)
    if spec.type == "boolean" and type(value) in {int, float} and value in {0, 1}:
        return bool(value)
    if spec.type == "datetime":
        return _time(spec, value, row)
    raise WrongType(spec.name, row=row, expected=_EXPECTED[spec.type], got=value)


def _time(spec: ColumnSpec, value: object, row: int) -> np.datetime64:
    """Read a time; one with an offset is converted to UTC, one without is taken as it stands."""
    if isinstance(value, np.datetime64):
        return value
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if isinstance(moment, datetime):
        plain = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        return np.datetime64(plain, "ns")
    if isinstance(moment, date):
        return np.datetime64(moment, "ns")
    raise WrongType(spec.name, row=row, expected=_EXPECTED["datetime"], got=value)

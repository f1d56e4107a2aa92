"""Open Inference Protocol v2 over REST, JSON tensors.

Inputs are one tensor a column, shape ``[n]`` or ``[n, 1]``, named like the columns; or one two-dimensional
tensor of any other name, shape ``[n, columns]`` in signature order, beside which the entity key and the event
time may come as tensors of their own. Outputs: ``score`` or ``scores``, ``label``, ``prediction_id``,
``version``.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol (REST).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from modelyard.errors import Invalid, ModelyardError
from modelyard.serving.faults import EmptyBody, InvalidJson
from modelyard.serving.outcome import Outcome
from modelyard.serving.protocols.ask import UNREADABLE, Ask, Row, Scalar, reason

EXPECTED = '{"inputs": [{"name", "shape", "datatype", "data"}, …]}'

DATATYPE = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "datetime": "BYTES",
}
"""Datatype of each column type of a signature."""

_NULL: type = type(None)
_WHOLE = frozenset({int, _NULL})
_NUMBER = frozenset({int, float, _NULL})
_KINDS: dict[str, frozenset[type]] = {
    "BOOL": frozenset({bool, _NULL}),
    "BYTES": frozenset({str, _NULL}),
    "FP32": _NUMBER,
    "FP64": _NUMBER,
    **{f"{sign}INT{bits}": _WHOLE for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
_MAX_DIMENSION = 100_000


class _Tensor(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[Scalar | list[Scalar]]
    parameters: dict[str, Scalar] | None = None


class _Requested(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    parameters: dict[str, Scalar] | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Scalar] | None = None
    outputs: list[_Requested] | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class _Response(msgspec.Struct, gc=False):
    model_name: str
    model_version: str
    id: str
    outputs: list[_Output]


class BadTensor(Invalid):
    """A tensor's shape, datatype or data do not fit together, or fit no input."""

    code = "bad_tensor"

    def __init__(self, name: str, problem: str, *, expected: str) -> None:
        super().__init__(
            f"Tensor {name[:100]!r}: {problem}; expected {expected}.", column=name[:100], expected=expected
        )


class UnknownOutput(Invalid):
    """The request asks for an output that there is not."""

    code = "unknown_output"

    def __init__(self, name: str, *, known: Collection[str]) -> None:
        listed = ", ".join(known)
        super().__init__(f"There is no output {name[:100]!r}; outputs are {listed}.", expected=listed)


_decoder = msgspec.json.Decoder(_Request)
_encode = msgspec.json.Encoder(enc_hook=str).encode


def parse(body: bytes, *, order: Sequence[str], extra: Collection[str] = ()) -> Ask:
    """Read an inference request.

    Args:
        body: The JSON text.
        order: Names of the inputs in signature order.
        extra: Names of the entity key and the event time.

    Raises:
        EmptyBody: If there are no inputs or no rows.
        InvalidJson: If it is not a request.
        BadTensor: If a tensor is malformed or none fits.
    """
    if not body or body.isspace():
        raise EmptyBody(expected=EXPECTED)
    try:
        request = _decoder.decode(body)
    except UNREADABLE as error:
        raise InvalidJson(reason(error), expected=EXPECTED) from error
    if not request.inputs:
        raise EmptyBody(expected=EXPECTED)
    rows = _rows(request.inputs, order, extra)
    if not rows:
        raise EmptyBody(expected=EXPECTED)
    outputs = None if not request.outputs else tuple(output.name for output in request.outputs)
    return Ask(rows, request.id, outputs=outputs)


def encode_answer(outcome: Outcome, *, name: str, outputs: tuple[str, ...] | None) -> bytes:
    """Encode the answer to a request.

    Raises:
        ModelyardError: The first row's fault, since this protocol answers for all rows or none.
        UnknownOutput: If an output was asked for that there is not.
    """
    if outcome.errors is not None:
        for error in outcome.errors:
            if error is not None:
                raise error
    made: dict[str, Callable[[], _Output]] = {}
    count = len(outcome.ids)
    if outcome.outputs is not None:
        table = outcome.outputs
        made["scores"] = lambda: _table(table)
    else:
        made["score"] = lambda: _Output("score", "FP64", [count], outcome.scores)
    if outcome.labels[0] is not None:
        made["label"] = lambda: _Output("label", _label_type(outcome.labels), [count], outcome.labels)
    made["prediction_id"] = lambda: _Output("prediction_id", "BYTES", [count], outcome.ids)
    made["version"] = lambda: _Output("version", "INT64", [count], [v.route.version for v in outcome.variants])
    for wanted in outputs or ():
        if wanted not in made:
            raise UnknownOutput(wanted, known=list(made))
    version = str(outcome.variants[0].route.version)
    tensors = [made[wanted]() for wanted in outputs or made]
    return _encode(_Response(name, version, outcome.request_id, tensors))


def encode_problem(error: ModelyardError) -> bytes:
    """Encode an error: ``{"error": "<code>: <message>"}``."""
    return _encode({"error": f"{error.code}: {error.message}"})


def encode_metadata(
    name: str,
    *,
    versions: Sequence[int],
    columns: Sequence[tuple[str, str]],
    classes: Sequence[Any],
    outputs: int,
) -> bytes:
    """Encode a model's metadata."""
    scores = {"name": "scores", "datatype": "FP64", "shape": [-1, outputs]}
    made: list[dict[str, Any]] = [scores if outputs > 1 else {"name": "score", "datatype": "FP64", "shape": [-1]}]
    if classes:
        made.append({"name": "label", "datatype": _label_type(classes), "shape": [-1]})
    made.append({"name": "prediction_id", "datatype": "BYTES", "shape": [-1]})
    made.append({"name": "version", "datatype": "INT64", "shape": [-1]})
    inputs = [{"name": column, "datatype": DATATYPE[kind], "shape": [-1]} for column, kind in columns]
    return _encode(
        {
            "name": name,
            "versions": [str(version) for version in sorted(versions)],
            "platform": "modelyard",
            "inputs": inputs,
            "outputs": made,
        }
    )


def _rows(tensors: list[_Tensor], order: Sequence[str], extra: Collection[str]) -> list[Row]:
    known = set(order) | set(extra)
    count = _first_dimension(tensors[0])
    matrix: list[list[Any]] | None = None
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        if _first_dimension(tensor) != count:
            raise BadTensor(tensor.name, f"it has {tensor.shape[0]} rows, the first one {count}", expected="as many")
        data = _data(tensor)
        width = tensor.shape[1] if len(tensor.shape) == 2 else 1
        if tensor.name in known and width == 1:
            if tensor.name in columns:
                raise BadTensor(tensor.name, "it comes twice", expected="one tensor a column")
            columns[tensor.name] = data
        elif matrix is None and len(tensor.shape) == 2 and width == len(order) and tensor.name not in known:
            matrix = [data[i * width : (i + 1) * width] for i in range(count)]
        else:
            raise _misfit(tensor, order)
    return _joined(matrix, columns, order, count)


def _misfit(tensor: _Tensor, order: Sequence[str]) -> BadTensor:
    listed = ", ".join(order[:10]) + (", …" if len(order) > 10 else "")
    return BadTensor(
        tensor.name,
        f"it fits no input (shape {tensor.shape[:8]})",
        expected=f"one tensor [rows] a column ({listed}) or one tensor [rows, {len(order)}]",
    )


def _joined(
    matrix: list[list[Any]] | None, columns: dict[str, list[Any]], order: Sequence[str], count: int
) -> list[Row]:
    if matrix is None:
        names = tuple(columns)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if not columns:
        return list[Row](matrix)
    twice = [name for name in columns if name in order]
    if twice:
        raise BadTensor(twice[0], "it is also a column of the two-dimensional tensor", expected="one of them")
    return [
        dict(zip(order, matrix[i], strict=True)) | {name: values[i] for name, values in columns.items()}
        for i in range(count)
    ]


def _first_dimension(tensor: _Tensor) -> int:
    shape = tensor.shape
    if len(shape) not in {1, 2} or not all(0 <= size <= _MAX_DIMENSION for size in shape):
        raise BadTensor(tensor.name, f"shape {shape[:8]} is not possible", expected="[rows] or [rows, columns]")
    return shape[0]


def _data(tensor: _Tensor) -> list[Any]:
    """Return a tensor's values, flat and row-major, all of its datatype."""
    kinds = _KINDS.get(tensor.datatype)
    if kinds is None:
        raise BadTensor(
            tensor.name,
            f"datatype {tensor.datatype[:20]!r} has no JSON form",
            expected=" ".join(sorted(_KINDS)),
        )
    data = tensor.data
    if data and type(data[0]) is list:
        data = _flat(tensor)
    if len(data) != math.prod(tensor.shape):
        raise BadTensor(tensor.name, f"{len(data)} values for shape {tensor.shape}", expected="as many as the shape")
    if not kinds.issuperset(map(type, data)):
        wrong = next(value for value in data if type(value) not in kinds)
        raise BadTensor(tensor.name, f"{type(wrong).__name__} {str(wrong)[:60]!r}", expected=tensor.datatype)
    if kinds is _WHOLE:
        _check_range(tensor, data)
    return data


def _flat(tensor: _Tensor) -> list[Any]:
    width = tensor.shape[1] if len(tensor.shape) == 2 else 1
    flat: list[Any] = []
    for row in tensor.data:
        if type(row) is not list or len(row) != width:
            raise BadTensor(tensor.name, "its nested rows differ from its shape", expected=f"{width} values a row")
        flat += row
    return flat


def _check_range(tensor: _Tensor, data: list[Any]) -> None:
    signed = not tensor.datatype.startswith("U")
    bits = int(tensor.datatype.rpartition("INT")[2])
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    for value in data:
        if value is not None and not low <= value <= high:
            raise BadTensor(tensor.name, f"{value} is out of range", expected=tensor.datatype)


def _table(rows: list[list[float] | None]) -> _Output:
    width = max(len(row) for row in rows if row is not None)
    flat = [value for row in rows for value in row or [math.nan] * width]
    return _Output("scores", "FP64", [len(rows), width], flat)


def _label_type(labels: Sequence[Any]) -> str:
    kinds = {type(label) for label in labels}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "FP64" if kinds <= {int, float} else "BYTES"

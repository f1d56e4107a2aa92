"""Modelyard's own protocol: rows as JSON objects in, one prediction a row out.

POST /predict/<endpoint>
{"rows": [{"age": 41, "city": "Oslo"}], "id": "optional"}      or one object, or a list of objects
{"id": …, "predictions": [{"prediction_id", "score", "label", "variant", "version"}], "captured": true}
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.errors import ModelyardError
from modelyard.serving.faults import EmptyBody, InvalidJson
from modelyard.serving.outcome import Outcome
from modelyard.serving.protocols.ask import UNREADABLE, Ask, Row, Scalar, reason

EXPECTED = '{"rows": [{"<column>": <value>, …}]}, a list of such rows, or one row'
_SHOWN = ("column", "row", "expected", "got", "near")


class _Envelope(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    rows: list[Row]
    id: str | None = None


class _Prediction(msgspec.Struct, omit_defaults=True, gc=False):
    prediction_id: str
    variant: str
    version: int
    score: float | None = None
    label: Any = None
    outputs: list[float] | None = None
    error: dict[str, Any] | None = None
    warnings: list[dict[str, Any]] | None = None


class _Answer(msgspec.Struct, omit_defaults=True, gc=False):
    id: str
    predictions: list[_Prediction]
    captured: bool
    sticky: bool = True


_envelope = msgspec.json.Decoder(_Envelope)
_list = msgspec.json.Decoder(list[Row])
_object = msgspec.json.Decoder(dict[str, Scalar])
_encode = msgspec.json.Encoder(enc_hook=str).encode


def parse(body: bytes) -> Ask:
    """Read a request body.

    Raises:
        EmptyBody: If it is empty or holds no rows.
        InvalidJson: If it is not JSON of one of the three shapes.
    """
    first = body[:1] if body[:1] in (b"{", b"[") else body.lstrip()[:1]
    if not first:
        raise EmptyBody(expected=EXPECTED)
    request_id = None
    rows: list[Row]
    try:
        if first == b"[":
            rows = _list.decode(body)
        elif b'"rows"' in body:
            envelope = _envelope.decode(body)
            rows, request_id = envelope.rows, envelope.id
        else:
            rows = [_object.decode(body)]
    except UNREADABLE as error:
        raise InvalidJson(reason(error), expected=EXPECTED) from error
    if not rows:
        raise EmptyBody(expected=EXPECTED)
    return Ask(rows, request_id)


def encode_answer(outcome: Outcome, *, captured: bool) -> bytes:
    """Encode the answer to a request."""
    predictions = []
    for i, prediction_id in enumerate(outcome.ids):
        variant = outcome.variants[i].route
        prediction = _Prediction(prediction_id, variant.name, variant.version, outcome.scores[i], outcome.labels[i])
        if outcome.outputs is not None:
            prediction.outputs = outcome.outputs[i]
        if outcome.errors is not None and (error := outcome.errors[i]) is not None:
            prediction.error = problem(error)
        if outcome.warnings is not None and outcome.warnings[i]:
            prediction.warnings = outcome.warnings[i]
        predictions.append(prediction)
    return _encode(_Answer(outcome.request_id, predictions, captured, outcome.sticky))


def encode_problem(error: ModelyardError) -> bytes:
    """Encode an error: ``{"error": {"code", "message", "column"?, "expected"?}}``."""
    return _encode({"error": problem(error)})


def dumps(document: dict[str, Any]) -> bytes:
    """Encode any other document."""
    return _encode(document)


def problem(error: ModelyardError) -> dict[str, Any]:
    """Return an error's code, message and the facts that help to mend the request."""
    shown = {"code": error.code, "message": error.message}
    shown.update({key: plain(error.facts[key]) for key in _SHOWN if error.facts.get(key) is not None})
    return shown


def plain(value: object) -> Any:
    """Return a value that JSON can hold; text of its own for anything else."""
    return value if isinstance(value, str | int | bool | float) else str(value)

"""ONNX models through onnxruntime. The format holds no code, so it loads anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import MissingExtra
from modelyard.models.faults import BadModelFolder
from modelyard.models.frame import Array
from modelyard.models.info import Traits, task_of
from modelyard.models.own import OwnModel
from modelyard.models.signature import Level

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}


def session(path: Path) -> Any:
    """Open an ONNX file with one thread a call (a serving worker is one of many processes).

    Raises:
        MissingExtra: If onnxruntime is not installed.
        BadModelFolder: If the file is not a model that it can run.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtra("onnxruntime", extra="onnx", purpose="Predicting with an ONNX model") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises several private classes without a common root
        raise BadModelFolder(f"onnxruntime cannot open it ({str(error)[:200]})", file=path.name) from error


def onnx_model(opened: Any) -> OwnModel:
    """Put an open session behind the common face.

    A graph with one input tensor gets all columns side by side; one with several gets each by name, as a
    column of shape ``(rows, 1)``. Classifier graphs as scikit-learn's converters write them (label, then
    probabilities as a tensor or as maps) are recognised; any other gives its last output.
    """
    outputs = opened.get_outputs()
    inputs = [(i.name, _DTYPES.get(i.type, np.float32)) for i in opened.get_inputs()]
    names = [output.name for output in outputs]
    classifier = len(outputs) == 2 and outputs[0].type in {"tensor(int64)", "tensor(string)"}

    def run(frame: Any, output: str) -> Any:
        return opened.run([output], _feed(inputs, frame))[0]

    def raw(frame: Any) -> Array:
        found = run(frame, names[-1])
        if isinstance(found, list):
            return np.array([list(row.values()) for row in found], dtype=np.float64)
        return np.asarray(found)

    if not classifier:
        return OwnModel(Traits("regression"), raw, None, opened)
    classes = _classes(opened, outputs[-1])

    def labels(frame: Any) -> Array:
        return np.asarray(run(frame, names[0]))

    return OwnModel(Traits(task_of(classes), classes, 1, "probability", "labels"), raw, labels, opened)


def _feed(inputs: list[tuple[str, Any]], frame: Any) -> dict[str, Array]:
    if len(inputs) == 1:
        name, dtype = inputs[0]
        return {name: np.asarray(frame).astype(dtype)}
    return {name: frame[name].to_numpy().astype(dtype).reshape(-1, 1) for name, dtype in inputs}


def _classes(opened: Any, output: Any) -> tuple[Level, ...]:
    """Read the classes off a probability map by running one row of zeros, or count the tensor's columns."""
    if not output.type.startswith("seq(map"):
        return tuple(range(int(output.shape[-1])))
    feed: dict[str, Array] = {
        i.name: np.zeros(
            (1, *(d if isinstance(d, int) else 1 for d in i.shape[1:])), dtype=_DTYPES.get(i.type, np.float32)
        )
        for i in opened.get_inputs()
    }
    text = {name: np.full(values.shape, "", dtype=object) for name, values in feed.items() if values.dtype == object}
    return tuple(opened.run([output.name], {**feed, **text})[0][0])

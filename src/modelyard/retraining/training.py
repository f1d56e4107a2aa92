"""What runs in the child process of a training: the user's function, and every measurement of its result.

The server never loads what comes out of it. All that the workflow needs to know comes back as JSON; the model
lies in a folder. Facts of captured logging go to a file of batches that the parent applies.
"""

from __future__ import annotations

import importlib
import math
import random
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import Invalid
from modelyard.evaluation import (
    Insufficient,
    Measured,
    Task,
    compare,
    evaluate,
    expected_shares,
    measure_latency,
    not_worse,
)
from modelyard.models import Predictor, save_model, verify_engine
from modelyard.models.verification import record_verification
from modelyard.retraining.captured import recording
from modelyard.retraining.project import PROFILE_FILE, function_name
from modelyard.retraining.snapshot import edge
from modelyard.tracking.capture import pack_profile, profile_of, read_environment

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_MOST_CLASSES = 50
_CHECKED_ROWS = 2_000
_LATENCY_CALLS = 1_000


def run(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Train, measure and save one model.

    Args:
        payload: ``code`` (folder of the unpacked project), ``function`` (``module:qualname``), ``train`` and
            ``holdout`` (Parquet files), ``label``, ``features`` (names), ``output`` (folder to create for the
            model), ``task`` (or None), ``champion`` (folder of the version in production, or None),
            ``comparable_from`` (see ``split.unseen_by``), ``comparisons`` (see ``requested`` of ``gates``),
            ``seed``, ``run`` (id of the tracked run) and ``captured`` (folder for what it logs).

    Returns:
        ``task``, ``metrics`` (value and interval each), ``latency``, ``verification``, ``comparisons``,
        ``expected_shares`` (or None), ``rows``, ``compared_rows``, ``environment`` (digest). The model's folder
        holds ``profile.bin``: features and score of the holdout, which is what serving is compared with, since
        scores of rows that a model was fitted on are too good.

    Raises:
        Invalid: If the function returns nothing, or something that cannot predict.
    """
    with recording(str(payload["run"]), Path(payload["captured"])) as capturing:
        result: dict[str, Any] = _finite(_run(payload, capturing))
        return result


def _run(payload: Mapping[str, Any], capturing: AbstractContextManager[None]) -> dict[str, Any]:
    import pyarrow.parquet as pq

    rows = pq.read_table(payload["train"])
    holdout = pq.read_table(payload["holdout"])
    label, names = str(payload["label"]), list(payload["features"])
    task = payload["task"] or infer_task(rows[label])
    with capturing:
        model = _call(payload, rows.select([*names, label]).to_pandas())
    folder = Path(payload["output"])
    features = rows.select(names)
    save_model(model, folder, data=features.to_pandas())
    judged = holdout.select(names)
    verification = verify_engine(folder, judged.slice(0, _CHECKED_ROWS), trust=True)
    record_verification(folder, verification)
    predictor = Predictor.load(folder, trust=True)
    scores = predictor.predict(judged).scores
    _write_profile(folder, judged, scores)
    truth = truth_of(holdout[label], predictor)
    rng = np.random.default_rng(payload["seed"])
    measured = evaluate(truth, scores, task=task, rng=rng, classes=predictor.classes or None)
    return {
        "task": task,
        "rows": {"train": rows.num_rows, "holdout": holdout.num_rows},
        "metrics": {name: _plain(value) for name, value in measured.items()},
        "latency": _latency(predictor, judged),
        "verification": verification.to_json(),
        "environment": read_environment().digest,
        **_against(payload, predictor, holdout, task=task, rng=rng),
    }


def infer_task(label: pa.ChunkedArray) -> Task:
    """Say what is predicted: two values are binary, up to 50 names or whole numbers multiclass, else a number.

    Raises:
        Invalid: If the label has a single value.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.unique(label.drop_null())
    if len(values) < 2:
        raise Invalid("The label has the same value in every row: there is nothing to learn.")
    if len(values) == 2:
        return "binary"
    numbers = pa.types.is_integer(label.type) or (
        pa.types.is_floating(label.type) and bool(pc.all(pc.equal(values, pc.round(values))).as_py())
    )
    named = pa.types.is_string(label.type) or pa.types.is_large_string(label.type)
    if len(values) <= _MOST_CLASSES and (numbers or named):
        return "multiclass"
    if named:
        raise Invalid(f"The label has {len(values)} different names; at most {_MOST_CLASSES} classes are supported.")
    return "regression"


def truth_of(label: pa.ChunkedArray, predictor: Predictor) -> Any:
    """Return the outcomes in the form that the model's scores are judged against, shape ``(rows,)``."""
    values = label.to_numpy()
    traits = predictor.traits
    if traits.task != "binary" or not traits.classes:
        return values
    positive = traits.classes[traits.positive]
    # A model that learnt 0 and 1 is judged on labels that came as 0.0 and 1.0, or as text.
    return np.asarray([_same(value, positive) for value in values.tolist()], dtype=np.int64)


def _same(value: object, positive: object) -> bool:
    if isinstance(value, int | float) and isinstance(positive, int | float):
        return float(value) == float(positive)
    return str(value) == str(positive)


def _call(payload: Mapping[str, Any], data: pd.DataFrame) -> Any:
    module, qualname = function_name(payload["function"])
    sys.path.insert(0, str(payload["code"]))
    # The same recipe on the same data gives the same model, as far as the libraries' own seeds follow these.
    random.seed(payload["seed"])
    np.random.seed(payload["seed"])  # noqa: NPY002 - it is the global generator that user code draws from
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    train: Callable[[pd.DataFrame], Any] = found
    model = train(data)
    if model is None:
        raise Invalid(f"{payload['function']} returned nothing; it must return the fitted model.")
    if not callable(getattr(model, "predict", None)) and not callable(model):
        raise Invalid(
            f"{payload['function']} returned a {type(model).__name__}, which has no predict; "
            "return a fitted model, or a function from rows to predictions."
        )
    return model


def _write_profile(folder: Path, features: pa.Table, scores: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    import pyarrow as pa

    if scores.ndim == 1:
        features = features.append_column("score", pa.array(scores))
    (folder / PROFILE_FILE).write_bytes(pack_profile(profile_of(features)))


def _latency(predictor: Predictor, rows: pa.Table) -> dict[str, Any]:
    # Each sample is a request of one row, as an endpoint gets it.
    requests = [[row] for row in rows.slice(0, _LATENCY_CALLS).to_pylist()]

    def ask(request: Any) -> object:
        return predictor.predict_rows(request)

    return asdict(measure_latency(ask, requests, calls=_LATENCY_CALLS))


def _against(
    payload: Mapping[str, Any], challenger: Predictor, holdout: pa.Table, *, task: Task, rng: np.random.Generator
) -> dict[str, Any]:
    """Score champion and challenger on the same rows, which neither was trained on."""
    if payload["champion"] is None:
        return {"comparisons": {}, "expected_shares": None, "compared_rows": 0}
    rows = _unseen(holdout, payload["comparable_from"])
    if rows.num_rows == 0:
        return {"comparisons": {}, "expected_shares": None, "compared_rows": 0}
    champion = Predictor.load(Path(payload["champion"]), trust=True)
    names = list(payload["features"])
    table = rows.select(names)
    old, new = champion.predict(table).scores, challenger.predict(table).scores
    truth = truth_of(rows[payload["label"]], challenger)
    found = {
        name: _compared(request, truth, old, new, task=task, rng=rng, classes=challenger.classes)
        for name, request in payload["comparisons"].items()
    }
    shares = expected_shares(old, new, rng=rng) if old.ndim == new.ndim == 1 else None
    return {"comparisons": found, "expected_shares": shares, "compared_rows": rows.num_rows}


def _compared(
    request: Mapping[str, Any],
    truth: Any,
    old: Any,
    new: Any,
    *,
    task: Task,
    rng: np.random.Generator,
    classes: tuple[object, ...],
) -> dict[str, Any]:
    options, metric = dict(request["options"]), str(request["metric"])
    if request["kind"] == "not_worse":
        slices = not_worse(truth, old, new, metric=metric, task=task, rng=rng, classes=classes or None, **options)
        return {"slices": {name: asdict(found) for name, found in slices.items()}}
    return asdict(compare(truth, old, new, metric=metric, task=task, rng=rng, classes=classes or None, **options))


def _unseen(holdout: pa.Table, since: Mapping[str, Any] | None) -> pa.Table:
    import pyarrow.compute as pc

    if since is None:
        return holdout.slice(0, 0)
    if not since:
        return holdout
    column = holdout[since["column"]]
    return holdout.filter(pc.greater(column, edge(since["after"], column.type)))


def _finite(value: Any) -> Any:
    """Return JSON with null for what is not finite, which neither events nor other readers of JSON take."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Measured) -> dict[str, Any]:
    if isinstance(value, Insufficient):
        return {"value": None, "reason": value.reason}
    return asdict(value)

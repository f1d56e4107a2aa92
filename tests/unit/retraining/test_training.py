"""The child trains, measures and saves; what cannot be a model is refused with a reason."""

import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.errors import Invalid
from modelyard.models import Predictor
from modelyard.retraining import training
from modelyard.retraining.gates import parse_gates, requested

CODE = """
from sklearn.linear_model import LogisticRegression

def good(data):
    return LogisticRegression().fit(data[["x", "z"]], data["y"])

def weak(data):
    return LogisticRegression().fit(data[["z", "x"]].assign(x=0.0)[["x", "z"]], data["y"])

def nothing(data):
    pass

def useless(data):
    return 42
"""


@pytest.fixture
def payload(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    rng = np.random.default_rng(0)
    n = 1500
    x, z = rng.normal(size=n), rng.normal(size=n)
    y = (x + 0.3 * rng.normal(size=n) > 0).astype(float)
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)]
    table = pa.table({"x": x, "z": z, "y": y, "at": at})
    pq.write_table(table.slice(0, 1000), tmp_path / "train.parquet")
    pq.write_table(table.slice(1000), tmp_path / "holdout.parquet")
    module = f"user_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{module}.py").write_text(CODE)
    return {
        "code": str(tmp_path / "code"),
        "function": f"{module}:good",
        "train": str(tmp_path / "train.parquet"),
        "holdout": str(tmp_path / "holdout.parquet"),
        "label": "y",
        "features": ["x", "z"],
        "output": str(tmp_path / "model"),
        "task": None,
        "champion": None,
        "comparable_from": None,
        "comparisons": {},
        "seed": 0,
        "run": "r1",
        "captured": str(tmp_path / "captured"),
    }


def test_a_model_is_trained_measured_and_saved(payload, tmp_path):
    result = training.run(payload)
    assert result["task"] == "binary"
    auc = result["metrics"]["roc_auc"]
    assert 0.9 < auc["low"] < auc["value"] < auc["high"] <= 1
    assert result["verification"]["passed"]
    assert result["latency"]["p99_ms"] > 0
    assert result["rows"] == {"train": 1000, "holdout": 500}
    predictor = Predictor.load(tmp_path / "model", trust=True)
    assert predictor.predict_rows([{"x": 2.0, "z": 0.0}]).scores[0] > 0.9


def test_a_challenger_is_compared_on_rows_that_the_champion_has_not_seen(payload, tmp_path):
    weak = {**payload, "function": payload["function"].replace("good", "weak"), "output": str(tmp_path / "weak")}
    training.run(weak)
    request = requested(parse_gates(["better_than(champion, roc_auc)", "not_worse(champion, roc_auc, margin=0.01)"]))
    seen_until = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=1199)
    result = training.run(
        {
            **payload,
            "champion": str(tmp_path / "weak"),
            "comparisons": request,
            "comparable_from": {"column": "at", "after": seen_until.isoformat()},
        }
    )
    assert result["compared_rows"] == 300
    better, same = (result["comparisons"][key] for key in request)
    assert better["verdict"] == "promote"
    assert better["n"] == 300
    assert all(item["verdict"] == "not_worse" for item in same["slices"].values())
    assert sum(result["expected_shares"]) == pytest.approx(1)


def test_nothing_to_compare_on_is_said(payload, tmp_path):
    training.run(payload)
    later = {"column": "at", "after": "2030-01-01T00:00:00+00:00"}
    again = {**payload, "output": str(tmp_path / "again"), "champion": payload["output"], "comparable_from": later}
    result = training.run(again)
    assert (result["compared_rows"], result["expected_shares"]) == (0, None)


@pytest.mark.parametrize(("name", "message"), [("nothing", "returned nothing"), ("useless", "has no predict")])
def test_what_is_not_a_model_is_refused(payload, name, message):
    with pytest.raises(Invalid, match=message):
        training.run({**payload, "function": payload["function"].replace("good", name)})


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1, 0], "binary"),
        (["a", "b", None], "binary"),
        ([True, False], "binary"),
        (["a", "b", "c"], "multiclass"),
        ([1.0, 2.0, 3.0], "multiclass"),
        ([0.5, 1.5, 2.5], "regression"),
        (list(range(100)), "regression"),
    ],
)
def test_task_is_inferred_from_the_label(values, task):
    assert training.infer_task(pa.chunked_array([values])) == task


def test_labels_without_anything_to_learn_are_refused():
    with pytest.raises(Invalid, match="same value"):
        training.infer_task(pa.chunked_array([[1, 1, None]]))
    with pytest.raises(Invalid, match="at most 50"):
        training.infer_task(pa.chunked_array([[f"n{n}" for n in range(60)]]))

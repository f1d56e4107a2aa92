"""Metrics against scikit-learn."""

import numpy as np
import pytest

from modelyard.errors import NotFound
from modelyard.evaluation import evaluate, metric_names, metric_of, read_sample
from modelyard.evaluation.metrics import ECE_BINS, METRICS

skm = pytest.importorskip("sklearn.metrics")


def binary_data(seed, n=400, *, ties=False):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.2 * y - 1)))
    return y, np.round(score, 1) if ties else score


def values(y, prediction, task):
    found = evaluate(y, prediction, task=task, rng=np.random.default_rng(0), draws=50)
    return {name: estimate.value for name, estimate in found.items()}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_binary_metrics_equal_sklearn(seed, ties):
    y, p = binary_data(seed, ties=ties)
    label = p >= 0.5
    expected = {
        "roc_auc": skm.roc_auc_score(y, p),
        "pr_auc": skm.average_precision_score(y, p),
        "accuracy": skm.accuracy_score(y, label),
        "precision": skm.precision_score(y, label),
        "recall": skm.recall_score(y, label),
        "f1": skm.f1_score(y, label),
        "log_loss": skm.log_loss(y, np.clip(p, 2.3e-16, 1 - 2.3e-16)),
        "brier": skm.brier_score_loss(y, p),
    }
    found = values(y, p, "binary")
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)


def test_calibration_error_equals_a_loop_over_bins():
    y, p = binary_data(5)
    total = 0.0
    for low in np.arange(ECE_BINS) / ECE_BINS:
        inside = (p >= low) & (p < low + 1 / ECE_BINS)
        if inside.any():
            total += inside.mean() * abs(p[inside].mean() - y[inside].mean())
    assert values(y, p, "binary")["ece"] == pytest.approx(total)


def test_multiclass_metrics_equal_sklearn():
    rng = np.random.default_rng(4)
    y = rng.integers(4, size=300)
    proba = rng.dirichlet(np.ones(4), size=300)
    proba[np.arange(300), y] += 0.5
    proba /= proba.sum(axis=1, keepdims=True)
    label = proba.argmax(axis=1)
    expected = {
        "accuracy": skm.accuracy_score(y, label),
        "macro_f1": skm.f1_score(y, label, average="macro"),
        "log_loss": skm.log_loss(y, proba),
    }
    assert values(y, proba, "multiclass") == pytest.approx(expected)
    names = np.array(["ant", "bee", "cat", "dog"])
    assert values(names[y], proba, "multiclass") == pytest.approx(expected)


def test_macro_f1_of_labels_alone_counts_only_classes_that_occur():
    y, label = ["a", "b", "a", "c"], ["a", "a", "a", "c"]
    found = evaluate(y, label, task="multiclass", classes=["a", "b", "c", "never"], rng=np.random.default_rng(0))
    assert found["macro_f1"].value == pytest.approx(skm.f1_score(y, label, average="macro", zero_division=0))
    assert found["log_loss"].value is None
    assert "no probabilities" in found["log_loss"].reason


def test_regression_metrics_equal_sklearn():
    rng = np.random.default_rng(6)
    y = rng.normal(50, 5, size=300)
    p = y + rng.normal(0.5, 2, size=300)
    expected = {
        "rmse": skm.root_mean_squared_error(y, p),
        "mae": skm.mean_absolute_error(y, p),
        "mape": skm.mean_absolute_percentage_error(y, p),
        "r2": skm.r2_score(y, p),
        "bias": float(np.mean(p - y)),
    }
    assert values(y, p, "regression") == pytest.approx(expected)


def test_r2_keeps_its_digits_far_from_zero():
    rng = np.random.default_rng(7)
    y = rng.normal(1e9, 1.0, size=300)
    p = y + rng.normal(0, 0.5, size=300)
    assert values(y, p, "regression")["r2"] == pytest.approx(skm.r2_score(y, p), abs=1e-6)


def test_two_columns_and_class_names_mean_the_same_as_scores():
    y, p = binary_data(8)
    names = np.where(y == 1, "left", "stayed")
    both = np.column_stack([1 - p, p])
    plain = values(y, p, "binary")
    named = evaluate(names, both, task="binary", classes=["stayed", "left"], rng=np.random.default_rng(0), draws=50)
    assert {name: estimate.value for name, estimate in named.items()} == pytest.approx(plain)


def test_every_metric_knows_which_way_is_better():
    for metric in METRICS.values():
        better, worse = (0.0, 0.3) if metric.direction in ("lower", "zero") else (0.9, 0.3)
        goodness = metric.goodness(np.array([better, worse]))
        assert goodness[0] > goodness[1], metric.name
    bias = metric_of("bias", task="regression")
    assert bias.goodness(np.array([-0.5]))[0] == bias.goodness(np.array([0.5]))[0]


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(NotFound, match="Did you mean 'roc_auc'"):
        metric_of("roc_uac", task="binary")
    assert metric_names("multiclass") == ["accuracy", "macro_f1", "log_loss"]


def test_threshold_decides_labels():
    sample = read_sample([0, 1, 1], [0.2, 0.3, 0.9], task="binary", threshold=0.3)
    assert sample.label.tolist() == [0, 1, 1]

"""Intervals, and what is said when the data cannot answer."""

import time

import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.evaluation import Insufficient, evaluate
from modelyard.evaluation.delong import auc_interval
from modelyard.evaluation.ranking import roc_auc


def data(seed, n):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    return y, 1 / (1 + np.exp(-(rng.normal(size=n) + 1.2 * y - 1)))


def run(y, p, task="binary", seed=0, **options):
    return evaluate(y, p, task=task, rng=np.random.default_rng(seed), **options)


def test_every_interval_holds_its_value_and_names_its_method():
    found = run(*data(1, 500))
    methods = {name: estimate.method for name, estimate in found.items()}
    assert methods == {
        "roc_auc": "delong",
        "pr_auc": "bootstrap-bca",
        "accuracy": "wilson",
        "precision": "wilson",
        "recall": "wilson",
        "f1": "bootstrap-bca",
        "log_loss": "bootstrap-bca",
        "brier": "bootstrap-bca",
        "ece": "bootstrap-basic",
    }
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high


def test_the_same_generator_gives_the_same_intervals():
    y, p = data(2, 300)
    assert run(y, p, seed=5) == run(y, p, seed=5)
    assert run(y, p, seed=5)["brier"] != run(y, p, seed=6)["brier"]


@pytest.mark.parametrize("metric", ["pr_auc", "f1", "log_loss", "ece"])
def test_the_interval_of_many_rows_continues_that_of_few(metric):
    y, p = data(3, 19_000)
    few = run(y, p, metrics=[metric])[metric]
    many = run(np.tile(y, 2), np.tile(p, 2), metrics=[metric])[metric]
    assert many.value == pytest.approx(few.value)
    width = (few.high - few.low) / np.sqrt(2)
    # The calibration error's bias shrinks with the rows as well, so its width is less regular.
    assert many.high - many.low == pytest.approx(width, rel=0.4 if metric == "ece" else 0.12)


def test_a_mean_has_the_interval_of_the_t_distribution():
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    error = rng.normal(0.3, 1.0, size=400)
    bias = run(np.zeros(400), error, "regression", metrics=["bias"], draws=20_000)["bias"]
    expected = scipy_stats.t.interval(0.95, 399, error.mean(), scipy_stats.sem(error))
    assert (bias.low, bias.high) == pytest.approx(expected, abs=0.01)


def test_bca_agrees_with_scipy_on_a_skewed_metric():
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    y, p = np.zeros(60), rng.lognormal(size=60)
    mine = run(y, p, "regression", metrics=["rmse"], draws=20_000)["rmse"]
    theirs = scipy_stats.bootstrap(
        (p,), lambda x, axis: np.sqrt((x**2).mean(axis=axis)), n_resamples=20_000, rng=rng
    ).confidence_interval
    assert (mine.low, mine.high) == pytest.approx(tuple(theirs), rel=0.03)


@pytest.mark.parametrize(
    ("y", "p", "reason"),
    [
        ([], [], "no labelled rows"),
        ([1, 0, np.nan], [0.1, 0.2, 0.3], "1 of 3 labels are missing"),
        ([1, 0, None], [0.1, 0.2, 0.3], "1 of 3 labels are missing"),
        ([1, 0, 1], [0.1, np.nan, np.inf], "2 of 3 predictions are missing or not finite"),
    ],
)
def test_unusable_rows_are_an_answer_not_an_exception(y, p, reason):
    for found in run(y, p).values():
        assert isinstance(found, Insufficient)
        assert found.value is None
        assert reason in found.reason


def test_one_class_leaves_the_metrics_that_need_none():
    found = run([0] * 50, np.linspace(0, 0.4, 50))
    assert found["roc_auc"].reason == "ROC AUC is undefined: all 50 rows are of class 0"
    assert found["pr_auc"].value is None
    assert found["precision"].reason.endswith("none of 50 rows was predicted as class 1")
    assert found["recall"].value is None
    assert found["accuracy"].value == 1.0
    assert found["accuracy"].low < 0.95
    assert found["brier"].value > 0


def test_scores_that_are_not_probabilities_have_ranks_alone():
    y, p = data(6, 100)
    found = run(y, 10 * p - 3)
    assert found["roc_auc"].value == pytest.approx(roc_auc(y.astype(float), p))
    assert "no probabilities" in found["log_loss"].reason
    assert "no probabilities" in found["accuracy"].reason


def test_constant_targets_zero_targets_and_single_rows():
    assert "all 9 targets are equal" in run([5.0] * 9, np.arange(9.0), "regression")["r2"].reason
    assert "1 of 2 targets are zero" in run([0.0, 1.0], [1.0, 1.0], "regression")["mape"].reason
    assert run([0.0, 1.0], [0.5, 1.0], "regression", metrics=["r2"])["r2"].method == "bootstrap-percentile"
    assert "single row" in run([1.0], [2.0], "regression")["rmse"].reason


def test_perfect_separation_has_an_honest_width():
    y = np.array([0.0] * 20 + [1.0] * 10)
    low, high = auc_interval(y, y, confidence=0.95)
    assert high == 1.0
    assert 0.6 < low < 0.8  # Wilson's lower bound of 10 of 10
    lonely = run([1] + [0] * 30, np.linspace(1, 0, 31), metrics=["roc_auc"])["roc_auc"]
    assert lonely.low < 0.5


@pytest.mark.parametrize(
    ("y", "p", "task", "options"),
    [
        ([0, 1], [0.1], "binary", {}),
        ([[0, 1]], [0.1], "binary", {}),
        ([0, 2], [0.1, 0.2], "binary", {}),
        ([0, 1], ["a", "b"], "binary", {}),
        ([0, 1], [0.1, 0.2], "ranking", {}),
        ([0, 1], [0.1, 0.2], "binary", {"confidence": 1.0}),
        (["a", "b"], np.ones((2, 3)) / 3, "multiclass", {}),
        ([0, 1], np.ones((2, 2)), "regression", {}),
        ([0, 1], np.ones((2, 3)), "binary", {}),
        ([0, 1], [0.1, 0.2], "binary", {"classes": ["a", "b", "c"]}),
    ],
)
def test_wrong_input_is_an_error(y, p, task, options):
    with pytest.raises(Invalid):
        run(y, p, task, **options)


def test_auc_of_a_hundred_thousand_rows_is_fast():
    y, p = data(7, 100_000)
    taken = []
    for _ in range(3):
        start = time.process_time()
        run(y, p, metrics=["roc_auc"])
        taken.append(time.process_time() - start)
    # 0.04 s of CPU measured; the bar leaves room for a slower machine.
    assert min(taken) < 0.5

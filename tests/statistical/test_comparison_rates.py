"""How often offline comparisons promote, reject, pass and cover, by simulation with fixed seeds.

A false rate passes if the 99 % Wilson upper bound of its simulated share is at most the stated rate plus
one point. A test that is exactly as large as stated needs about 8,000 repeats for that.
"""

import numpy as np
import pytest

from modelyard.evaluation import (
    bayesian_correlated_t,
    compare,
    delong_paired,
    evaluate,
    impact_ratio,
    mcnemar,
    nadeau_bengio,
    not_worse,
    wilson,
)

pytestmark = pytest.mark.statistical


def upper(hits, repeats):
    return wilson(hits, repeats, confidence=0.99)[1]


def binormal(rng, n, gain):
    """Labels and scores of two models: 30 % positive, correlation 0.7, true AUC 0.80 and 0.80 + gain."""
    from scipy.special import ndtri

    y = (rng.random(n) < 0.3).astype(float)
    shared, own = rng.normal(size=(2, n)), np.sqrt(1 - 0.7**2)
    old = shared[0] + y * np.sqrt(2) * ndtri(0.80)
    new = 0.7 * shared[0] + own * shared[1] + y * np.sqrt(2) * ndtri(0.80 + gain)
    return y, old, new


def calibrated(rng, n):
    """Labels and probabilities of two equally good, equally noisy models."""
    z = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-z - 0.5))).astype(float)
    return y, *(1 / (1 + np.exp(-(z + 0.7 * rng.normal(size=n)))) for _ in range(2))


def test_delong_promotes_equal_models_at_the_stated_rate():
    rng = np.random.default_rng(1)
    found = [delong_paired(*binormal(rng, 500, 0.0)) for _ in range(10_000)]
    promoted = sum(pair.p_greater <= 0.05 for pair in found)
    naive = sum(pair.difference > 0 for pair in found)
    assert upper(promoted, 10_000) <= 0.06
    assert promoted / 10_000 > 0.04
    assert naive / 10_000 == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("n", "gain", "power"),
    [(500, 0.01, 0.14), (500, 0.02, 0.30), (500, 0.03, 0.56), (500, 0.05, 0.91), (2_000, 0.02, 0.76)],
)
def test_delong_finds_real_gains(n, gain, power):
    rng = np.random.default_rng(2)
    promoted = sum(delong_paired(*binormal(rng, n, gain)).p_greater <= 0.05 for _ in range(2_000))
    assert promoted / 2_000 == pytest.approx(power, abs=0.04)


def test_clustered_delong_is_not_fooled_by_repeated_entities():
    """100 entities with 8 rows each that share half of their noise."""
    rng = np.random.default_rng(3)
    entity = np.repeat(np.arange(100), 8)
    clustered = naive = 0
    for run in range(10_000):
        y = np.repeat((rng.random(100) < 0.4).astype(float), 8)
        old, new = (np.repeat(rng.normal(size=100), 8) + rng.normal(size=800) + y for _ in range(2))
        clustered += delong_paired(y, old, new, cluster=entity).p_greater <= 0.05
        naive += run < 2_000 and delong_paired(y, old, new).p_greater <= 0.05
    assert upper(clustered, 10_000) <= 0.06
    assert naive / 2_000 > 0.15


def test_mcnemar_promotes_equal_classifiers_at_most_at_the_stated_rate():
    rng = np.random.default_rng(4)
    promoted = sum(mcnemar(*(rng.random((2, 400)) < 0.8)).p_greater <= 0.05 for _ in range(10_000))
    assert upper(promoted, 10_000) <= 0.06


@pytest.mark.parametrize("metric", ["brier", "log_loss", "f1"])
def test_paired_bootstrap_promotes_equal_models_at_the_stated_rate(metric):
    rng = np.random.default_rng(5)
    verdicts = [
        compare(*calibrated(rng, 300), metric=metric, task="binary", rng=rng, draws=199).verdict for _ in range(10_000)
    ]
    assert upper(verdicts.count("promote"), 10_000) <= 0.06


def test_paired_bootstrap_by_cluster_keeps_its_rate_and_by_row_does_not():
    rng = np.random.default_rng(6)
    entity = np.repeat(np.arange(80), 5)
    options = {"metric": "mae", "task": "regression", "rng": rng, "draws": 199}
    by_cluster = by_row = 0
    for run in range(10_000):
        truth = rng.normal(size=400)
        old, new = (truth + np.repeat(rng.normal(size=80), 5) for _ in range(2))
        by_cluster += compare(truth, old, new, cluster=entity, **options).verdict == "promote"
        by_row += run < 2_000 and compare(truth, old, new, **options).verdict == "promote"
    assert upper(by_cluster, 10_000) <= 0.06
    assert by_row / 2_000 > 0.15


def test_non_inferiority_passes_a_model_at_the_margin_at_the_stated_rate():
    rng = np.random.default_rng(7)
    passed = 0
    for _ in range(10_000):
        y, old, new = binormal(rng, 500, -0.02)
        found = not_worse(y, old, new, metric="roc_auc", task="binary", margin=0.02, rng=rng)
        passed += found["(all)"].verdict == "not_worse"
    assert upper(passed, 10_000) <= 0.06


def test_corrected_t_counts_the_shared_training_rows():
    """Ten fold differences with correlation 0.1, no true difference."""
    rng = np.random.default_rng(8)
    repeats = 10_000
    draws = np.sqrt(0.1) * rng.normal(size=(repeats, 1)) + np.sqrt(0.9) * rng.normal(size=(repeats, 10))
    corrected = sum(nadeau_bengio(d, test_share=0.1).p_greater <= 0.05 for d in draws)
    plain = sum(nadeau_bengio(d, test_share=1e-9).p_greater <= 0.05 for d in draws)
    bayes = sum(bayesian_correlated_t(d, test_share=0.1, rope=0.0).better >= 0.95 for d in draws)
    assert upper(corrected, repeats) <= 0.06
    assert plain / repeats > 0.10
    assert abs(bayes - corrected) <= 2  # the same bound, seen from the other side


@pytest.mark.parametrize(
    ("metric", "least"),
    [("roc_auc", 0.94), ("pr_auc", 0.93), ("brier", 0.93), ("f1", 0.93), ("accuracy", 0.94)],
)
def test_intervals_cover_the_truth(metric, least):
    rng = np.random.default_rng(9)
    y, score, _ = calibrated(rng, 400_000)
    truth = evaluate(y, score, task="binary", metrics=[metric], rng=rng)[metric].value
    covered = 0
    for _ in range(2_000):
        y, score, _ = calibrated(rng, 250)
        found = evaluate(y, score, task="binary", metrics=[metric], rng=rng, draws=300)[metric]
        covered += found.low <= truth <= found.high
    assert covered / 2_000 >= least


@pytest.mark.parametrize("small", [20, 50, 100])
def test_the_four_fifths_rule_by_interval_seldom_fails_equal_groups(small):
    """Rate 0.3 in both groups; the bare rule on points fails 47 %, 31 % and 15 % of them."""
    rng = np.random.default_rng(small)
    by_point = by_interval = 0
    group = np.repeat(["small", "large"], [small, 5_000])
    selected = [rng.binomial(small, 0.3, size=2_000), rng.binomial(5_000, 0.3, size=2_000)]
    for few, many in zip(*selected, strict=True):
        decision = np.concatenate([np.arange(small) < few, np.arange(5_000) < many])
        found = impact_ratio(group, decision, rng=rng, draws=200)
        by_point += found.value < 0.8
        by_interval += found.high < 0.8
    assert by_point / 2_000 == pytest.approx({20: 0.47, 50: 0.31, 100: 0.15}[small], abs=0.06)
    assert upper(by_interval, 2_000) <= 0.06

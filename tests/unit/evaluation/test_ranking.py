import numpy as np
import pytest

from modelyard.evaluation import ranking

TRUTH = np.array([1.0, 0, 1, 1, 0, 0, 1, 0])
SCORE = np.array([0.9, 0.1, 0.4, 0.4, 0.4, 0.3, 0.2, 0.2])


def test_midranks_equal_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(1).integers(20, size=200).astype(float)
    assert ranking.midranks(x).tolist() == scipy_stats.rankdata(x).tolist()


def test_auc_counts_pairs():
    pairs = [(p > n) + 0.5 * (p == n) for p in SCORE[TRUTH == 1] for n in SCORE[TRUTH == 0]]
    assert ranking.roc_auc(TRUTH, SCORE) == pytest.approx(np.mean(pairs))
    v10, v01 = ranking.placements(TRUTH, SCORE)
    assert v10.mean() == pytest.approx(np.mean(pairs))
    assert v01.mean() == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    ("weighted", "value"),
    [
        (ranking.weighted_roc_auc, ranking.roc_auc),
        (ranking.weighted_average_precision, ranking.average_precision),
    ],
)
def test_weights_mean_repetition(weighted, value):
    rng = np.random.default_rng(2)
    weights = rng.integers(0, 4, size=(5, 8))
    weights[:, 0] = 1
    weights[:, 1] = 1
    repeated = [value(np.repeat(TRUTH, w), np.repeat(SCORE, w)) for w in weights]
    assert weighted(TRUTH, SCORE, weights.astype(float)) == pytest.approx(repeated)


@pytest.mark.parametrize(
    ("influence", "weighted", "value"),
    [
        (ranking.roc_auc_influence, ranking.weighted_roc_auc, ranking.roc_auc),
        (
            ranking.average_precision_influence,
            ranking.weighted_average_precision,
            ranking.average_precision,
        ),
    ],
)
def test_influence_is_the_derivative_by_weight(influence, weighted, value):
    step, n = 1e-6, len(TRUTH)
    moved = weighted(TRUTH, SCORE, np.ones((n, n)) + step * np.eye(n))
    numeric = (moved - value(TRUTH, SCORE)) / step * n
    assert influence(TRUTH, SCORE) == pytest.approx(numeric, abs=1e-4)
    assert influence(TRUTH, SCORE).mean() == pytest.approx(0, abs=1e-12)


def test_a_resample_without_a_class_is_not_a_number():
    weights = (TRUTH == 1).astype(float)[None, :]
    assert np.isnan(ranking.weighted_roc_auc(TRUTH, SCORE, weights)).all()

"""DeLong, McNemar and the paired bootstrap against other implementations."""

import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.evaluation import (
    bootstrap_linear,
    bootstrap_means,
    bootstrap_weighted,
    delong,
    delong_paired,
    mcnemar,
)
from modelyard.evaluation.bootstrap import Units
from modelyard.evaluation.ranking import roc_auc, roc_auc_influence, weighted_roc_auc

stats = pytest.importorskip("scipy.stats")


def two_models(seed, n=600, gain=0.3):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(float)
    shared = rng.normal(size=n)
    old = shared + rng.normal(size=n) + y
    return y, old, shared + rng.normal(size=n) + (1 + gain) * y


def slow_delong_variance(y, scores):
    """Covariance of AUCs by the pairwise kernel, as the paper writes it."""
    kernels = []
    for score in scores:
        x, z = score[y == 1], score[y == 0]
        kernels.append((x[:, None] > z) + 0.5 * (x[:, None] == z))
    m, n = kernels[0].shape
    s10 = np.cov(np.array([k.mean(axis=1) for k in kernels]))
    s01 = np.cov(np.array([k.mean(axis=0) for k in kernels]))
    return s10 / m + s01 / n


@pytest.mark.parametrize("digits", [1, 8])
def test_delong_equals_the_pairwise_definition(digits):
    y, old, new = (np.round(column, digits) for column in two_models(1, n=200))
    covariance = slow_delong_variance(y, [old, new])
    area, se = delong(y, new)
    assert area == pytest.approx(roc_auc(y, new))
    assert se**2 == pytest.approx(covariance[1, 1])
    paired = delong_paired(y, old, new)
    contrast = np.array([-1.0, 1.0])
    assert paired.se**2 == pytest.approx(contrast @ covariance @ contrast)
    z = paired.difference / paired.se
    assert paired.p_greater == pytest.approx(stats.norm.sf(z))
    assert paired.p_less == pytest.approx(stats.norm.cdf(z))
    assert paired.bounds(confidence=0.9) == pytest.approx(stats.norm.interval(0.9, paired.difference, paired.se))


def test_single_rows_as_clusters_change_little_and_repeats_widen():
    y, old, new = two_models(2)
    plain = delong_paired(y, old, new)
    alone = delong_paired(y, old, new, cluster=np.arange(len(y)))
    assert alone.se == pytest.approx(plain.se, rel=0.01)
    entity = np.repeat(np.arange(len(y)), 4)
    repeated = delong_paired(*(np.repeat(c, 4) for c in (y, old, new)), cluster=entity)
    naive = delong_paired(*(np.repeat(c, 4) for c in (y, old, new)))
    assert repeated.se == pytest.approx(plain.se, rel=0.01)
    assert naive.se == pytest.approx(plain.se / 2, rel=0.02)


def test_equal_rankings_are_no_evidence_and_opposite_perfect_ones_are():
    y, old, _ = two_models(3)
    same = delong_paired(y, old, 2 * old + 7)
    assert (same.difference, same.se, same.p_greater, same.p_less) == (0.0, 0.0, 0.5, 0.5)
    assert delong_paired(y, -y, y).p_greater < 1e-6


def test_mcnemar_is_the_exact_binomial_test():
    rng = np.random.default_rng(4)
    old, new = rng.random(500) < 0.7, rng.random(500) < 0.76
    found = mcnemar(old, new)
    b, c = int((new & ~old).sum()), int((old & ~new).sum())
    assert (found.gained, found.lost) == (b, c)
    assert found.p_value == pytest.approx(stats.binomtest(b, b + c).pvalue)
    assert found.p_greater == pytest.approx(stats.binomtest(b, b + c, alternative="greater").pvalue)
    assert found.p_less == pytest.approx(stats.binomtest(b, b + c, alternative="less").pvalue)
    assert found.difference == pytest.approx(new.mean() - old.mean())
    low, high = found.bounds(confidence=0.95)
    difference = new.astype(float) - old
    expected = stats.norm.interval(0.95, difference.mean(), stats.sem(difference))
    assert (low, high) == pytest.approx(expected, abs=0.003)


def test_mcnemar_without_disagreement_says_nothing():
    found = mcnemar([True, False], [True, False])
    assert (found.p_value, found.p_greater, found.p_less) == (1.0, 1.0, 1.0)
    low, high = found.bounds(confidence=0.9)
    assert low < 0 < high
    with pytest.raises(Invalid):
        mcnemar([True], [True, False])
    with pytest.raises(Invalid):
        mcnemar([], [])


def test_paired_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(5)
    old = rng.exponential(size=(300, 1))
    new = old * rng.uniform(0.5, 1.3, size=(300, 1))
    found = bootstrap_means(old, new, lambda m: np.sqrt(m[..., 0]), rng=rng, draws=20_000)

    def statistic(a, b, axis):
        return np.sqrt(b.mean(axis=axis)) - np.sqrt(a.mean(axis=axis))

    theirs = stats.bootstrap(
        (old[:, 0], new[:, 0]), statistic, paired=True, n_resamples=20_000, method="percentile", rng=rng
    ).confidence_interval
    assert found.difference == pytest.approx(statistic(old[:, 0], new[:, 0], 0))
    assert found.bounds(confidence=0.95) == pytest.approx(tuple(theirs), abs=0.003)
    assert 1 / 20_001 < found.p_less < 1e-4  # no draw against it, read with 299 degrees of freedom
    assert found.p_greater == 1.0


def test_bootstrap_of_a_rank_metric_agrees_with_delong():
    y, old, new = two_models(6)

    def difference(weights):
        return weighted_roc_auc(y, new, weights) - weighted_roc_auc(y, old, weights)

    exact = delong_paired(y, old, new)
    full = bootstrap_weighted(difference, rows=len(y), rng=np.random.default_rng(0))
    influence = roc_auc_influence(y, new) - roc_auc_influence(y, old)
    quick = bootstrap_linear(exact.difference, influence, rng=np.random.default_rng(0), draws=4_000)
    assert full.difference == pytest.approx(exact.difference)
    assert full.draws.std() == pytest.approx(exact.se, rel=0.06)
    assert quick.draws.std() == pytest.approx(exact.se, rel=0.06)


def test_blocks_and_clusters_reach_the_bootstrap():
    rng = np.random.default_rng(7)
    old = np.repeat(rng.normal(size=60), 5)[:, None]
    new = old + np.repeat(rng.normal(size=60), 5)[:, None]
    entity = np.repeat(np.arange(60), 5)
    spread = {
        name: bootstrap_means(old, new, lambda m: m[..., 0], rng=rng, units=units).draws.std()
        for name, units in {
            "rows": Units.of_rows(300),
            "clusters": Units.of(300, cluster=entity),
            "blocks": Units.of(300, block=25),
        }.items()
    }
    assert spread["clusters"] > 1.7 * spread["rows"]
    assert spread["blocks"] > 1.5 * spread["rows"]


def test_a_metric_without_any_finite_draw_is_refused():
    with pytest.raises(Invalid, match="not finite"):
        bootstrap_means(np.ones((3, 1)), np.ones((3, 1)), lambda m: m[..., 0] * np.nan, rng=np.random.default_rng(0))
    with pytest.raises(Invalid, match="Shapes"):
        bootstrap_means(np.ones((3, 1)), np.ones((2, 1)), lambda m: m[..., 0], rng=np.random.default_rng(0))

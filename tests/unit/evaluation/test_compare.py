import numpy as np
import pytest

from modelyard.errors import Invalid, NotFound
from modelyard.evaluation import compare, not_worse


def models(seed=0, n=2_000, gain=0.6):
    """Labels and the probabilities of two models, the second better by ``gain`` standard deviations."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(int)
    shared = rng.normal(size=n)

    def probability(strength):
        return 1 / (1 + np.exp(-(shared + rng.normal(size=n) + strength * (2 * y - 1))))

    return y, probability(0.6), probability(0.6 + gain)


def judge(y, old, new, metric="roc_auc", task="binary", **options):
    return compare(y, old, new, metric=metric, task=task, rng=np.random.default_rng(1), **options)


@pytest.mark.parametrize(
    ("metric", "test"),
    [
        ("roc_auc", "delong"),
        ("accuracy", "mcnemar"),
        ("pr_auc", "paired-bootstrap"),
        ("f1", "paired-bootstrap"),
        ("log_loss", "paired-bootstrap"),
        ("brier", "paired-bootstrap"),
    ],
)
def test_a_better_model_is_promoted_and_a_worse_one_rejected(metric, test):
    y, old, new = models()
    better, worse = judge(y, old, new, metric), judge(y, new, old, metric)
    assert (better.verdict, better.test) == ("promote", test)
    assert worse.verdict == "reject"
    assert better.difference > 0 > worse.difference
    assert better.interval[0] < better.difference < better.interval[1]
    assert better.p_value < 0.05
    assert "better" in better.reason
    assert "is worse" in worse.reason
    assert "2,000 rows" in better.reason


def test_equal_models_are_inconclusive_and_the_reason_says_what_would_settle_it():
    y, old, new = models(n=500, gain=0.05)
    found = judge(y, old, new)
    assert found.verdict == "inconclusive"
    assert found.rows_needed > 500
    assert f"{found.rows_needed:,} rows would settle" in found.reason
    same = judge(y, old, old)
    assert (same.verdict, same.difference, same.rows_needed) == ("inconclusive", 0.0, None)


def test_a_gain_below_the_minimum_is_not_promoted():
    y, old, new = models(n=20_000, gain=0.1)
    plain = judge(y, old, new)
    assert plain.verdict == "promote"
    assert judge(y, old, new, min_gain=plain.interval[1] + 0.01).verdict == "reject"
    close = judge(y, old, new, min_gain=(plain.difference + plain.interval[1]) / 2)
    assert close.verdict == "inconclusive"
    assert "is required" in close.reason
    assert judge(y, old, old, min_gain=0.01).verdict == "reject"


def test_bias_is_better_nearer_to_zero():
    rng = np.random.default_rng(2)
    y = rng.normal(size=500)
    noise = rng.normal(0, 0.1, size=500)
    found = judge(y, y + noise - 0.5, y + noise + 0.1, "bias", "regression")
    assert found.verdict == "promote"
    assert found.difference == pytest.approx(0.4, abs=0.02)
    assert (found.champion, found.challenger) == pytest.approx((-0.5, 0.1), abs=0.02)


def test_multiclass_and_regression_metrics_compare():
    rng = np.random.default_rng(3)
    y = rng.integers(3, size=600)
    good = np.where(rng.random(600) < 0.9, y, 0)
    poor = np.where(rng.random(600) < 0.6, y, 0)
    for metric in ("accuracy", "macro_f1"):
        assert judge(y, poor, good, metric, "multiclass").verdict == "promote"
    target = rng.normal(size=600)
    near, far = target + rng.normal(0, 0.5, 600), target + rng.normal(0, 1, 600)
    for metric in ("rmse", "mae", "r2"):
        assert judge(target, far, near, metric, "regression").verdict == "promote"


def test_repeated_entities_are_not_counted_as_evidence():
    y, old, new = models(seed=4, n=300, gain=0.2)
    entity = np.repeat(np.arange(300), 20)
    repeated = [np.repeat(column, 20) for column in (y, old, new)]
    for metric, test in (
        ("roc_auc", "delong"),
        ("accuracy", "paired-bootstrap"),
        ("pr_auc", "paired-bootstrap"),
    ):
        alone = judge(y, old, new, metric)
        clustered = judge(*repeated, metric, cluster=entity)
        naive = judge(*repeated, metric)
        width = [c.interval[1] - c.interval[0] for c in (alone, clustered, naive)]
        assert clustered.test == test
        assert width[1] == pytest.approx(width[0], rel=0.15)
        assert width[2] < 0.5 * width[1]


def test_blocks_reach_the_bootstrap():
    y, old, new = models(seed=5, n=600)
    assert judge(y, old, new, "roc_auc", block=24).test == "paired-bootstrap"
    assert judge(y, old, new, "accuracy", block=24).test == "paired-bootstrap"


def test_many_rows_take_the_linearised_path():
    y, old, new = models(seed=6, n=25_000, gain=0.1)
    assert judge(y, old, new, "pr_auc").verdict == "promote"
    assert judge(y, old, new, "log_loss").verdict == "promote"


@pytest.mark.parametrize(
    ("rows", "metric", "reason"),
    [
        (60, "roc_auc", "rows of the rarer class; at least 50 are needed"),
        (150, "brier", "150 rows; at least 200 are needed"),
        (0, "roc_auc", "no labelled rows"),
    ],
)
def test_too_little_data_is_inconclusive_with_a_reason(rows, metric, reason):
    y, old, new = models()
    found = judge(y[:rows], old[:rows], new[:rows], metric)
    assert (found.verdict, found.test) == ("inconclusive", "none")
    assert reason in found.reason
    assert found.difference is None
    assert found.interval is None
    assert found.p_value is None


def test_degenerate_data_is_inconclusive_with_a_reason():
    y, old, new = models()
    lost = new.copy()
    lost[3] = np.nan
    assert "the challenger's rows cannot be used: 1 of 2,000" in judge(y, old, lost).reason
    assert "the champion's rows cannot be used" in judge(y, lost, old).reason
    assert "all 2,000 rows are of class 0" in judge(0 * y, old, new).reason
    assert "2 clusters" in judge(y, old, new, cluster=y).reason
    assert judge(y, old, 5 * new, "log_loss").verdict == "inconclusive"


def test_wrong_options_are_errors():
    y, old, new = models(n=300)
    for options in ({"alpha": 0.5}, {"alpha": 0.0}, {"min_gain": -0.1}, {"cluster": [1]}):
        with pytest.raises(Invalid):
            judge(y, old, new, **options)
    with pytest.raises(NotFound):
        judge(y, old, new, "rmse")
    for options in ({"margin": -0.1}, {"margin": 0.1, "alpha": 0.7}, {"margin": 0.1, "by": [1]}):
        with pytest.raises(Invalid):
            not_worse(y, old, new, metric="roc_auc", task="binary", rng=np.random.default_rng(0), **options)


def check(y, old, new, **options):
    return not_worse(y, old, new, task="binary", rng=np.random.default_rng(0), **options)


def test_not_worse_judges_every_slice_and_never_passes_a_small_one():
    y, old, new = models(seed=7, n=6_000, gain=0.0)
    region = np.array([None, *["north", "south"] * 3_000][:6_000], dtype=object)
    region[:30] = "tiny"
    region[30:2_030] = None
    new = np.where(region == "south", 1 - new, new)
    found = check(y, old, new, metric="roc_auc", margin=0.05, by=region)
    assert {name: result.verdict for name, result in found.items()} == {
        "(missing)": "not_worse",
        "north": "not_worse",
        "south": "worse",
        "tiny": "inconclusive",
    }
    assert "at least 50 are needed" in found["tiny"].reason


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "brier"])
def test_not_worse_of_all_rows(metric):
    y, old, new = models(seed=8)
    assert check(y, old, new, metric=metric, margin=0.0)["(all)"].verdict == "not_worse"
    assert check(y, new, old, metric=metric, margin=0.0)["(all)"].verdict == "worse"
    entity = np.arange(2_000) // 2
    assert check(y, old, new, metric=metric, margin=0.0, cluster=entity)["(all)"].verdict == "not_worse"
    lost = check(y, old, np.full(2_000, np.nan), metric=metric, margin=0.1)["(all)"]
    assert lost.verdict == "inconclusive"

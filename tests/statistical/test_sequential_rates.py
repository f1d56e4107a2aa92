"""How often sequential tests alarm falsely, and how soon they alarm rightly, by simulation with fixed seeds.

A false rate passes if the 99 % Wilson upper bound of its simulated share is at most the stated rate plus
one point.
"""

from math import log

import numpy as np
import pytest

from modelyard.evaluation import Arm, RateTest, ScoreSkew, msprt, rank_bins, sequential_noninferiority, wilson
from modelyard.evaluation.msprt import FEWEST, FEWEST_EVENTS, log_e_value, null_variance
from modelyard.evaluation.score_skew import BINS, TOLERANCE, effective_control, expected_shares, log_factors
from modelyard.evaluation.srm import split_check

pytestmark = pytest.mark.statistical

REPEATS = 4_000
TAU = 0.02
ALARM = log(1_000)


def upper(hits, repeats=REPEATS):
    return wilson(hits, repeats, confidence=0.99)[1]


def conversion_looks(rng, rates, per_look, *, looks=50):
    """Cumulative hits and observations at each look: arrays (REPEATS, looks) and (looks,) per arm."""
    arms = []
    for rate, n in zip(rates, per_look, strict=True):
        arms.append((np.cumsum(rng.binomial(n, rate, size=(REPEATS, looks)), axis=1), n * np.arange(1, looks + 1)))
    return arms


def evidence(arms, *, null=0.0, one_sided=False, sign=1.0):
    (hits_1, n_1), (hits_2, n_2) = arms
    difference = sign * (hits_2 / n_2 - hits_1 / n_1 - null)
    v, events = null_variance(hits_1, n_1, hits_2, n_2, null=null)
    log_e = log_e_value(difference, v, tau=TAU, one_sided=one_sided)
    return np.where((events >= FEWEST_EVENTS) & (np.minimum(n_1, n_2) >= FEWEST), log_e, 0.0)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("per_look", [(100, 100), (1_900, 100), (800, 100)])
@pytest.mark.parametrize("one_sided", [False, True])
def test_msprt_alarms_on_equal_arms_at_most_at_the_stated_rate(rate, per_look, one_sided):
    arms = conversion_looks(np.random.default_rng(1), (rate, rate), per_look)
    for sign in (1.0, -1.0):
        found = evidence(arms, one_sided=one_sided, sign=sign).max(axis=1) >= log(20)
        assert upper(int(found.sum())) <= 0.06


def test_msprt_has_the_published_power_and_stops_early():
    arms = conversion_looks(np.random.default_rng(2), (0.10, 0.12), (100, 100))
    crossed = evidence(arms) >= log(20)
    found = crossed.any(axis=1)
    assert found.mean() == pytest.approx(0.66, abs=0.04)
    assert np.median(100 * (crossed[found].argmax(axis=1) + 1)) == pytest.approx(2_800, abs=300)
    one_sided = (evidence(arms, one_sided=True) >= log(20)).any(axis=1)
    assert one_sided.mean() > found.mean() + 0.03


def test_stopping_at_the_first_small_p_would_alarm_six_times_as_often():
    (hits_1, n), (hits_2, _) = conversion_looks(np.random.default_rng(3), (0.1, 0.1), (100, 100))
    pooled = (hits_1 + hits_2) / (2 * n)
    z = (hits_2 - hits_1) / n / np.sqrt(2 * pooled * (1 - pooled) / n)
    peeking = (np.abs(z) >= 1.96).any(axis=1).mean()
    assert peeking > 0.25


def test_msprt_of_skewed_means_keeps_its_rate():
    """Log-normal values, arms 8 to 1, a look at each 100 canary values."""
    rng = np.random.default_rng(4)
    false = 0
    for _ in range(2_000):
        arms, p = [Arm(0, 0.0, 0.0), Arm(0, 0.0, 0.0)], 1.0
        control, canary = rng.lognormal(0, 0.75, (20, 800)), rng.lognormal(0, 0.75, (20, 100))
        for a, b in zip(control, canary, strict=True):
            arms = [arms[0].merge(Arm.of_values(a)), arms[1].merge(Arm.of_values(b))]
            p = msprt(arms[0], arms[1], tau=0.1, p_before=p).p_value
        false += p <= 0.05
    assert upper(false, 2_000) <= 0.06


def test_sequential_non_inferiority_at_the_margin_passes_at_most_at_the_stated_rate():
    rng = np.random.default_rng(5)
    arms = conversion_looks(rng, (0.10, 0.08), (800, 100))
    passes = evidence(arms, null=-0.02, one_sided=True) >= log(20)
    aborts = evidence(arms, null=-0.02, one_sided=True, sign=-1.0) >= log(20)
    assert upper(int(passes.any(axis=1).sum())) <= 0.06
    assert upper(int(aborts.any(axis=1).sum())) <= 0.06
    (hits_1, n_1), (hits_2, n_2) = arms
    for run, look in ((0, 5), (1, 20), (int(passes.any(axis=1).argmax()), 49)):
        found = sequential_noninferiority(
            Arm.of_counts(int(hits_1[run, look]), int(n_1[look])),
            Arm.of_counts(int(hits_2[run, look]), int(n_2[look])),
            margin=0.02,
            tau=TAU,
        )
        assert (found.verdict == "not_worse") == bool(passes[run, look])
        assert (found.verdict == "worse") == bool(aborts[run, look])


def rate_tests(seed, rate, *, repeats=REPEATS):
    rng = np.random.default_rng(seed)
    start = RateTest(p0=0.01, p1=0.05)
    return [start.update(rng.random(2_000) < rate) for _ in range(repeats)]


@pytest.mark.parametrize(("rate", "median", "p95"), [(1.0, 3, 3), (0.2, 17, 38), (0.05, 86, 270)])
def test_a_broken_limit_is_found_as_soon_as_published(rate, median, p95):
    tests = rate_tests(6, rate)
    at = [test.decided_at for test in tests if test.verdict == "over"]
    # 90.1 % of rates of 5 % in the long run; beta itself is held to below, with more repeats.
    assert len(at) / REPEATS >= 0.88
    assert np.median(at) == pytest.approx(median, abs=0.15 * median)
    assert np.quantile(at, 0.95) == pytest.approx(p95, abs=0.15 * p95)


def test_a_kept_limit_is_broken_and_a_broken_one_kept_at_most_at_the_stated_rates():
    repeats = 20_000  # "within" is nearly as large as stated, 9.9 %: see the head of this file
    at_limit = rate_tests(7, 0.01, repeats=repeats)
    at_alternative = rate_tests(8, 0.05, repeats=repeats)
    assert upper(sum(test.verdict == "over" for test in at_limit), repeats) <= 0.01 + 0.01
    assert upper(sum(test.verdict == "within" for test in at_alternative), repeats) <= 0.10 + 0.01
    accepted = [test.decided_at for test in at_limit if test.verdict == "within"]
    assert np.median(accepted) < 150


def test_split_check_alarms_on_a_sane_split_at_the_stated_rate():
    hits = np.random.default_rng(9).binomial(5_000, 0.05, size=10_000)
    found = sum(split_check([5_000 - int(h), int(h)], [95, 5]).mismatch for h in hits)
    assert upper(found, 10_000) <= 0.001 + 0.01


@pytest.mark.parametrize("control_size", [500, 1_000])
@pytest.mark.parametrize("ties", [False, True])
def test_score_skew_does_not_blame_an_honest_canary(control_size, ties):
    """The same model in both arms; 1,500 canary scores against one fixed control sample."""
    rng = np.random.default_rng(10)
    repeats, alarms = 2_000, 0
    state = ScoreSkew(control_size=control_size)
    for _ in range(repeats):
        scores = rng.beta(2, 5, size=control_size + 1_500)
        scores = np.round(scores, 1) if ties else scores
        bins = rank_bins(scores[:control_size], scores[control_size:], rng=rng)
        alarms += state.update(bins).alarmed
    assert alarms / repeats <= 0.002
    assert upper(alarms, repeats) <= 0.001 + 0.01


def test_score_skew_does_not_blame_an_honest_new_version():
    """Expected shares from 2,000 offline rows scored by both versions."""
    rng = np.random.default_rng(11)
    repeats, alarms = 2_000, 0

    def scores(n):
        signal = rng.normal(size=n)
        return signal + rng.normal(size=n), 1.3 * signal + 0.4 + 0.8 * rng.normal(size=n)

    for _ in range(repeats):
        q = expected_shares(*scores(2_000), rng=rng)
        state = ScoreSkew(q=q, control_size=effective_control(1_000, 2_000))
        bins = rank_bins(scores(1_000)[0], scores(1_000)[1], rng=rng)
        alarms += state.update(bins).alarmed
    assert alarms / repeats <= 0.002
    assert upper(alarms, repeats) <= 0.001 + 0.01


def shifted(direction, nats=0.5):
    """Return the tilt exp(a * direction) of the uniform distribution that lies ``nats`` away from it."""
    low, high = 0.0, 60.0
    for _ in range(80):
        strength = (low + high) / 2
        p = np.exp(strength * (direction - direction.max()))
        p /= p.sum()
        divergence = float(np.sum(p * np.log(np.maximum(p, 1e-300) * BINS)))
        low, high = (strength, high) if divergence < nats else (low, strength)
    return p


POSITION = np.linspace(-1, 1, BINS)
SHAPES = {
    "one bin": np.eye(BINS)[0],
    "two bins": np.eye(BINS)[0] + np.eye(BINS)[1],
    "three bins": (np.arange(BINS) < 3).astype(float),
    "four bins": (np.arange(BINS) < 4).astype(float),
    "slope": POSITION,
    "middle": -(POSITION**2),
    "ends": POSITION**2,
}


@pytest.mark.parametrize("control_size", [500, 1_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_of_half_a_nat_is_found_within_sixty_scores(shape, control_size):
    rng = np.random.default_rng(12)
    bins = rng.choice(BINS, size=(6_000, 60), p=shifted(SHAPES[shape]))
    q = np.full(BINS, 1 / BINS)
    path = np.cumsum(log_factors(bins, q, tolerance=TOLERANCE, control_size=control_size), axis=1)
    found = (path.max(axis=1) >= ALARM).mean()
    # All mass in one bin is the hardest shape: 98.9 % with 500 control scores.
    assert found >= (0.985 if control_size == 500 else 0.99)


def test_swapped_columns_are_found_within_sixty_scores():
    """A logistic model whose first two columns, of different mean, arrive in the wrong order."""
    rng = np.random.default_rng(13)
    weights = np.array([1.0, -0.4, 0.3, 0.2])

    def score(n, order):
        rows = rng.normal([0.0, 1.2, 0.0, 0.0], 1.0, size=(n, 4))
        return 1 / (1 + np.exp(-(rows[:, order] @ weights)))

    straight, swapped = [0, 1, 2, 3], [1, 0, 2, 3]
    repeats = 2_000
    big = rank_bins(score(200_000, straight), score(200_000, swapped), rng=rng)
    share = np.bincount(big, minlength=BINS) / 200_000
    assert np.sum(share * np.log(share * BINS)) >= 0.5
    found = 0
    for _ in range(repeats):
        bins = rank_bins(score(500, straight), score(60, swapped), rng=rng)
        found += ScoreSkew(control_size=500).update(bins).alarmed
    assert found / repeats >= 0.99


def test_a_plain_ratio_with_the_same_tolerance_would_be_slower():
    rng = np.random.default_rng(14)
    bins = rng.choice(BINS, size=(2_000, 60), p=shifted(POSITION))
    q = np.full(BINS, 1 / BINS)
    projected = np.cumsum(log_factors(bins, q, tolerance=0.2), axis=1)
    counts = np.cumsum(bins[:, :, None] == np.arange(BINS), axis=1)
    before = np.take_along_axis(counts, bins[:, :, None], axis=2)[:, :, 0] - 1
    plain = np.cumsum(np.log((before + 16 / BINS) / (np.arange(60) + 16) * BINS) - 0.2, axis=1)
    gain = (projected.max(axis=1) >= ALARM).mean() - (plain.max(axis=1) >= ALARM).mean()
    assert gain > 0.05

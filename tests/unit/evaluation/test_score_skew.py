from itertools import product
from math import exp, log

import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.evaluation import ScoreSkew, effective_control, expected_shares, rank_bins
from modelyard.evaluation.score_skew import log_factors

Q = np.array([0.1, 0.2, 0.3, 0.4])


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("control_size", [None, 200])
def test_no_distribution_of_the_null_earns_evidence(tolerance, control_size):
    """E[f] <= 1 at the corners of the null: as many bins as possible at their cap."""
    before = np.array([9.0, 0.0, 2.0, 1.0])
    factors = np.array(
        [
            np.exp(log_factors(np.array([[k]]), Q, tolerance=tolerance, control_size=control_size, before=before))
            for k in range(4)
        ]
    ).ravel()
    expected = Q if control_size is None else (before + (control_size + 1) * Q) / (12 + control_size + 1)
    cap = exp(tolerance) * expected
    worst = 0.0
    for order in ((a, b, c, d) for a, b, c, d in product(range(4), repeat=4) if len({a, b, c, d}) == 4):
        null, left = np.zeros(4), 1.0
        for k in order:
            null[k] = min(cap[k], left)
            left -= null[k]
        worst = max(worst, float(null @ factors))
    assert worst == pytest.approx(1.0)


def test_it_never_earns_less_than_the_plain_ratio():
    bins = rng(1).integers(4, size=(1, 200))
    found = log_factors(bins, Q, tolerance=0.2)[0]
    counts = np.zeros(4)
    for t, k in enumerate(bins[0]):
        plain = (counts[k] + 16 * Q[k]) / (t + 16) / (Q[k] * exp(0.2))
        assert found[t] >= log(plain) - 1e-12
        counts[k] += 1


def test_a_prediction_inside_the_null_costs_nothing():
    assert log_factors(np.array([[3]]), Q, tolerance=0.05) == pytest.approx(0.0)


def test_batches_equal_one_by_one():
    bins = rng(2).integers(8, size=300)
    whole = ScoreSkew(control_size=1_000).update(bins)
    single = ScoreSkew(control_size=1_000)
    for k in bins:
        single = single.update([k])
    assert single.counts == whole.counts
    assert single.log_e == pytest.approx(whole.log_e)
    assert whole.n == 300


def test_a_constant_score_is_found_and_the_alarm_stays():
    start = ScoreSkew()
    found = start.update([7] * 40)
    assert found.alarmed
    assert found.alarmed_at < 12
    assert found.e_value >= 1000
    calm = found.update(np.tile(np.arange(8), 2_000))
    assert calm.e_value < 1000
    assert calm.alarmed_at == found.alarmed_at
    assert (start.n, start.e_value, start.alarmed) == (0, 1.0, False)
    assert found.update([7] * 3_000).e_value == np.inf


def test_honest_scores_of_another_model_do_not_alarm():
    state = ScoreSkew(q=tuple(Q))
    assert not state.update(rng(3).choice(4, size=5_000, p=Q)).alarmed
    assert state.update(rng(3).choice(4, size=200, p=Q[::-1])).alarmed


def test_swapped_columns_of_a_model_are_found_in_sixty_scores():
    r = rng(4)
    weights = np.array([2.0, -0.5, 0.3])

    def score(x):
        return 1 / (1 + np.exp(-(x @ weights)))

    control = score(r.normal([0.0, 3.0, 0.0], 1.0, size=(1_000, 3)))
    live = r.normal([0.0, 3.0, 0.0], 1.0, size=(60, 3))
    broken = rank_bins(control, score(live[:, [1, 0, 2]]), rng=r)
    honest = rank_bins(control, score(live), rng=r)
    assert ScoreSkew(control_size=1_000).update(broken).alarmed
    assert not ScoreSkew(control_size=1_000).update(honest).alarmed


def test_ranks_are_uniform_however_many_ties():
    r = rng(5)
    for values in (np.zeros(1), np.arange(3.0), np.linspace(0, 1, 1_000)):
        placed = rank_bins(r.choice(values, size=2_000), r.choice(values, size=40_000), rng=r)
        assert np.bincount(placed, minlength=8) / 40_000 == pytest.approx(np.full(8, 1 / 8), abs=0.02)


def test_the_same_generator_places_ties_alike():
    control, canary = np.zeros(50), np.zeros(20)
    assert (rank_bins(control, canary, rng=rng(6)) == rank_bins(control, canary, rng=rng(6))).all()
    assert len(set(rank_bins(control, canary, rng=rng(6)).tolist())) > 3


def test_extremes_fall_in_the_outer_bins_and_lost_control_scores_are_left_out():
    control = np.append(np.linspace(0, 1, 999), np.nan)
    assert rank_bins(control, [-5.0, 5.0], rng=rng()).tolist() == [0, 7]
    with pytest.raises(Invalid):
        rank_bins([np.nan], [0.5], rng=rng())
    with pytest.raises(Invalid):
        rank_bins([0.5], [np.nan], rng=rng())


def test_expected_shares_come_from_the_same_rows():
    old = rng(7).random(4_000)
    assert expected_shares(old, old, rng=rng()) == pytest.approx((1 / 8,) * 8, abs=0.001)
    squared = expected_shares(old, old**2, rng=rng())
    assert squared[0] == pytest.approx(np.sqrt(1 / 8), abs=0.03)
    assert sum(squared) == pytest.approx(1.0)
    assert min(expected_shares(old, np.full(4_000, 0.5), rng=rng())) > 0
    assert effective_control(1_000, 1_000) == 500


def test_the_controls_size_can_grow():
    state = ScoreSkew(control_size=500).update([1, 2], control_size=600)
    assert state.control_size == 600
    assert state.update([]).control_size == 600


@pytest.mark.parametrize(
    "options",
    [
        {"q": (1.0,)},
        {"q": (0.5, 0.5, 0.0)},
        {"q": (0.5, 0.6)},
        {"tolerance": -0.1},
        {"alpha": 0.0},
        {"counts": (1, 2)},
    ],
)
def test_settings_that_make_no_test_are_refused(options):
    with pytest.raises(Invalid):
        ScoreSkew(**options)


def test_a_bin_outside_is_refused():
    with pytest.raises(Invalid):
        ScoreSkew().update([8])

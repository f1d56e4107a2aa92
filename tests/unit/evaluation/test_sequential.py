"""mSPRT, non-inferiority, SPRT and the split check."""

from math import exp, inf, log, sqrt

import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.evaluation import (
    Arm,
    RateTest,
    default_tau,
    judge_margin,
    msprt,
    rate_to_catch,
    sequential_noninferiority,
    split_check,
)
from modelyard.evaluation.msprt import half_width, log_e_value

TAU = 0.02


def arms(control=(100, 1_000), treatment=(130, 1_000)):
    return Arm.of_counts(*control), Arm.of_counts(*treatment)


def test_the_two_sided_test_of_means_is_the_published_formula():
    r = np.random.default_rng(0)
    control, treatment = Arm.of_values(r.normal(0.10, 0.3, 10_000)), Arm.of_values(r.normal(0.13, 0.3, 2_000))
    v = control.variance / 10_000 + treatment.variance / 2_000
    d = treatment.mean - control.mean
    e = sqrt(v / (v + TAU**2)) * exp(TAU**2 * d**2 / (2 * v * (v + TAU**2)))
    found = msprt(control, treatment, tau=TAU)
    assert found.p_value == pytest.approx(1 / e)
    half = sqrt(v * (v + TAU**2) / TAU**2 * (2 * log(20) + log((v + TAU**2) / v)))
    assert (found.low, found.high) == pytest.approx((d - half, d + half))


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_the_bounds_of_proportions_are_where_the_test_turns(alternative):
    control, treatment = arms((1_000, 10_000), (230, 2_000))
    found = msprt(control, treatment, tau=TAU, alternative=alternative)
    for bound in (found.low, found.high):
        if not np.isinf(bound):
            at_bound = msprt(control, treatment, tau=TAU, alternative=alternative, null=bound)
            assert at_bound.p_value == pytest.approx(0.05, rel=1e-6)
    assert found.low < found.difference < found.high
    if alternative == "two-sided":
        own = control.variance / 10_000 + treatment.variance / 2_000
        half = half_width(np.array([own]), tau=TAU, alpha=0.05, one_sided=False)[0]
        assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_a_bound_that_nothing_refutes_is_the_end_of_the_scale():
    found = msprt(*arms((50, 100), (50, 100)), tau=1e-6)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_rare_events_are_waited_for():
    found = msprt(*arms((40, 20_000), (0, 200)), tau=TAU)
    assert found.reason == "about 0.4 events are expected in the smaller arm; 5 are needed"
    assert not found.significant


@pytest.mark.parametrize("one_sided", [False, True])
def test_sequence_and_p_value_say_the_same(one_sided):
    v = np.geomspace(1e-7, 1e-2, 9)
    half = half_width(v, tau=TAU, alpha=0.05, one_sided=one_sided)
    assert log_e_value(half, v, tau=TAU, one_sided=one_sided) == pytest.approx(np.full(9, log(20)))


def test_the_one_sided_e_value_is_the_mixture_over_positive_differences():
    v, d = 4e-4, 0.03
    theta = np.linspace(0, 10 * TAU, 200_001)
    density = 2 * np.exp(-(theta**2) / (2 * TAU**2)) / sqrt(2 * np.pi * TAU**2)
    mixture = np.trapezoid(np.exp(theta * d / v - theta**2 / (2 * v)) * density, theta)
    found = log_e_value(np.array([d]), np.array([v]), tau=TAU, one_sided=True)[0]
    assert found == pytest.approx(log(mixture), abs=1e-6)


def test_sides_mirror_and_open_bounds():
    control, treatment = arms((200, 1_000), (120, 1_000))
    less = msprt(control, treatment, tau=TAU, alternative="less")
    greater = msprt(treatment, control, tau=TAU, alternative="greater")
    assert less.p_value == pytest.approx(greater.p_value)
    assert (less.low, greater.high) == (-inf, inf)
    assert less.high == pytest.approx(-greater.low)
    assert less.significant
    assert less.high < 0
    assert not msprt(control, treatment, tau=TAU, alternative="greater").significant


def test_an_evidence_once_seen_stays():
    control, treatment = arms()
    found = msprt(control, treatment, tau=TAU, p_before=0.01)
    assert found.p_value == 0.01
    assert found.significant


def test_before_the_minimum_there_is_no_answer():
    found = msprt(*arms((1, 5_000), (99, 99)), tau=TAU)
    assert found.reason == "99 observations in the smaller arm; 100 are needed"
    assert (found.low, found.high, found.p_value) == (-inf, inf, 1.0)
    still = msprt(Arm.of_values([1.0] * 200), Arm.of_values([2.0] * 200), tau=TAU)
    assert still.reason == "neither arm varies"
    assert not still.significant


def test_arms_merge_exactly_and_measure_variance():
    values = np.random.default_rng(0).normal(1e6, 2.0, size=500)
    whole = Arm.of_values(values, shift=1e6)
    parts = Arm.of_values(values[:120], shift=1e6).merge(Arm.of_values(values[120:], shift=1e6))
    assert parts.n == 500
    assert parts.mean == pytest.approx(values.mean())
    assert parts.variance == pytest.approx(values.var(ddof=1))
    assert whole.variance == pytest.approx(parts.variance)
    assert Arm.of_counts(3, 10).merge(Arm.of_counts(1, 10)) == Arm.of_counts(4, 20)
    assert Arm.of_counts(0, 50).variance > 0
    assert np.isnan(Arm.of_counts(0, 0).mean)
    with pytest.raises(Invalid):
        Arm.of_counts(1, 2).merge(whole)
    with pytest.raises(Invalid):
        Arm.of_counts(3, 2)
    with pytest.raises(Invalid):
        msprt(whole, parts, tau=0.0)


def test_default_tau_is_a_tenth_of_a_standard_deviation():
    assert default_tau(Arm.of_counts(1_000, 10_000)) == pytest.approx(0.03, rel=0.01)
    assert default_tau(Arm.of_counts(0, 0)) == 0.1


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.01, 0.02, "not_worse"), (-0.05, -0.011, "worse"), (-0.05, 0.0, "inconclusive")],
)
def test_an_interval_against_a_margin(low, high, verdict):
    assert judge_margin((low + high) / 2, low, high, margin=0.01).verdict == verdict


def test_a_negative_margin_is_refused():
    with pytest.raises(Invalid, match="margin"):
        judge_margin(0.0, 0.0, 0.0, margin=-0.1)


def test_a_running_guardrail_takes_the_direction_of_the_metric():
    control = Arm.of_counts(1_000, 10_000)
    high, same, early = Arm.of_counts(1_600, 10_000), Arm.of_counts(1_000, 10_000), Arm.of_counts(5, 50)
    options = {"margin": 0.02, "tau": TAU}
    assert sequential_noninferiority(control, high, **options).verdict == "not_worse"
    assert sequential_noninferiority(control, high, higher_is_better=False, **options).verdict == "worse"
    assert sequential_noninferiority(control, same, **options).verdict == "not_worse"
    assert sequential_noninferiority(control, early, **options).verdict == "inconclusive"
    assert sequential_noninferiority(control, early, **options).reason.startswith("Not yet: 50 ")


def test_three_failures_in_a_row_break_a_limit_of_one_percent():
    test = RateTest(p0=0.01, p1=rate_to_catch(0.01)).update([True] * 5)
    assert (test.verdict, test.decided_at, test.n, test.failures) == ("over", 3, 5, 5)
    assert "above 1.00%" in test.reason


def test_a_clean_start_is_accepted_after_56_observations():
    test = RateTest(p0=0.01, p1=0.05).update([False] * 100)
    assert (test.verdict, test.decided_at) == ("within", 56)
    # What is decided stays decided; the counts go on.
    later = test.update([True] * 50)
    assert (later.verdict, later.decided_at, later.failures) == ("within", 56, 50)


def test_batches_in_order_equal_one_by_one():
    failed = np.random.default_rng(1).random(400) < 0.04
    whole = RateTest(p0=0.01, p1=0.05).update(failed)
    single = RateTest(p0=0.01, p1=0.05)
    for outcome in failed:
        single = single.update(outcome)
    assert single == whole
    assert whole.verdict != "undecided"
    assert whole.update([]) == whole


def test_unordered_counts_are_judged_at_the_end_of_the_batch():
    start = RateTest(p0=0.01, p1=0.05)
    assert start.add_counts(failures=4, n=10).verdict == "over"
    assert start.add_counts(failures=0, n=60).decided_at == 60
    open_test = start.add_counts(failures=1, n=20)
    assert open_test.verdict == "undecided"
    assert "still open" in open_test.reason
    decided = start.add_counts(failures=4, n=10)
    assert decided.add_counts(failures=0, n=1_000).verdict == "over"
    with pytest.raises(Invalid):
        start.add_counts(failures=2, n=1)


@pytest.mark.parametrize("rates", [(0.0, 0.1), (0.1, 0.1), (0.2, 0.1), (0.5, 1.0)])
def test_rates_that_make_no_test_are_refused(rates):
    with pytest.raises(Invalid):
        RateTest(p0=rates[0], p1=rates[1])
    with pytest.raises(Invalid):
        RateTest(p0=0.01, p1=0.05, alpha=1.0)


def test_the_rate_to_catch_is_above_any_limit():
    assert rate_to_catch(0.01) == pytest.approx(0.05, abs=0.001)
    for limit in (1e-6, 0.3, 0.9, 0.999):
        assert limit < rate_to_catch(limit) < 1


def test_split_check_is_pearsons_chi_square():
    stats = pytest.importorskip("scipy.stats")
    found = split_check([9_400, 600], [95, 5])
    expected = stats.chisquare([9_400, 600], [9_500, 500])
    assert found.chi2 == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.mismatch
    assert "does not fit the configured 95.0% / 5.0%" in found.reason
    assert split_check([9_490, 510], [0.95, 0.05]).mismatch is False


def test_a_split_is_not_judged_early_or_without_arms():
    early = split_check([0, 0], [1, 1])
    assert early.mismatch is None
    assert "1,000 are needed" in early.reason
    for counts, shares in (([1], [1]), ([1, 2], [1, 0]), ([1, 2], [1, 1, 1])):
        with pytest.raises(Invalid):
            split_check(counts, shares)

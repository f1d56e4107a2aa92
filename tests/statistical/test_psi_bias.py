"""Bias of distances without any drift, by simulation, through whole profiles."""

import math

import numpy as np
import pytest

from modelyard.profiles import (
    count_distances,
    expected_psi,
    kolmogorov_smirnov_test,
    learn_specs,
    population_stability_index,
    profile,
)

pytestmark = pytest.mark.statistical

REPEATS = 2_000
REFERENCE_ROWS = 20_000


@pytest.mark.parametrize(("bins", "n", "tolerance"), [(10, 500, 0.03), (32, 500, 0.05), (32, 5_000, 0.02)])
def test_mean_psi_of_simulated_counts_is_near_its_expectation(bins, n, tolerance):
    rng = np.random.default_rng(bins * n)
    shares = np.full(bins, 1.0 / bins)
    reference = rng.multinomial(REFERENCE_ROWS, shares, 10 * REPEATS)
    current = rng.multinomial(n, shares, 10 * REPEATS)
    mean = float(count_distances.population_stability_index(reference, current).mean())
    assert mean == pytest.approx(expected_psi(bins, n, REFERENCE_ROWS), rel=tolerance)


def test_small_windows_have_the_known_null_distribution():
    rng = np.random.default_rng(1)
    shares = np.full(32, 1.0 / 32)
    reference = rng.multinomial(REFERENCE_ROWS, shares, 10 * REPEATS)
    current = rng.multinomial(200, shares, 10 * REPEATS)
    psi = count_distances.population_stability_index(reference, current)
    js = count_distances.jensen_shannon_distance(reference, current)
    # Empty cells of a small window pull the mean below the first-order formula (0.157); a floor of 1e-4 in
    # place of Jeffreys' 0.5 would push it above, to 0.179, and the 99 % quantile from 0.257 to 0.384.
    assert psi.mean() == pytest.approx(0.1457, rel=0.02)
    assert np.quantile(psi, 0.99) == pytest.approx(0.257, rel=0.03)
    assert js.mean() == pytest.approx(0.173, rel=0.02)
    assert np.quantile(js, 0.99) == pytest.approx(0.231, rel=0.03)


def test_mean_psi_through_profiles_of_raw_rows():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(100):
        reference = rng.gamma(2.0, size=REFERENCE_ROWS)
        spec = learn_specs({"x": reference})
        baseline = profile({"x": reference}, spec)["x"]
        windows = (profile({"x": rng.gamma(2.0, size=500)}, spec)["x"] for _ in range(REPEATS // 100))
        found += [population_stability_index(baseline, window) for window in windows]
    # Rows beyond the reference range (2 in 20,000) open a cell now and then, hence the wider tolerance.
    assert np.mean(found) == pytest.approx(expected_psi(32, 500, REFERENCE_ROWS), rel=0.12)


def test_binned_ks_keeps_its_false_alarm_rate():
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(20):
        reference = rng.normal(size=REFERENCE_ROWS)
        spec = learn_specs({"x": reference})
        baseline = profile({"x": reference}, spec)["x"]
        windows = (profile({"x": rng.normal(size=500)}, spec)["x"] for _ in range(REPEATS // 20))
        alarms += sum(kolmogorov_smirnov_test(baseline, window).p_value < 0.05 for window in windows)
    assert wilson_upper(alarms, REPEATS) <= 0.05 + 0.01


def wilson_upper(hits, trials, z=2.326):
    share = hits / trials
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (middle + spread) / (1 + z * z / trials)

"""Distances: known values, exact counterparts on raw rows, and refusals."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from modelyard.errors import Invalid
from modelyard.profiles import (
    DISTANCES,
    EdgesDiffer,
    EmptyProfile,
    NotOrdered,
    chi_square_test,
    count_distances,
    empty_column,
    expected_psi,
    hellinger_distance,
    jensen_shannon_distance,
    kolmogorov_smirnov_distance,
    kolmogorov_smirnov_test,
    l_infinity_distance,
    learn_specs,
    population_stability_index,
    profile,
    wasserstein_distance,
)

RNG = np.random.default_rng(7)
REFERENCE = RNG.normal(size=20_000)


def pair(reference, current, **options):
    spec = learn_specs({"x": reference}, **options)
    return profile({"x": reference}, spec)["x"], profile({"x": current}, spec)["x"]


def levels(first, second):
    values = [[name for name, count in side.items() for _ in range(count)] for side in (first, second)]
    return pair(*values)


A_B = levels({"a": 50, "b": 50}, {"a": 30, "b": 70})


def test_psi_with_jeffreys_smoothing():
    p, q = (50.5 / 101, 50.5 / 101), (30.5 / 101, 70.5 / 101)
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert population_stability_index(*A_B) == pytest.approx(expected, rel=1e-12)


def test_js_distance_is_base_2():
    assert jensen_shannon_distance(*A_B) == pytest.approx(jensenshannon([0.5, 0.5], [0.3, 0.7], base=2), rel=1e-12)
    assert jensen_shannon_distance(*levels({"a": 5}, {"b": 9})) == 1.0


def test_hellinger_and_l_infinity():
    expected = math.sqrt(1 - math.sqrt(0.5 * 0.3) - math.sqrt(0.5 * 0.7))
    assert hellinger_distance(*A_B) == pytest.approx(expected, rel=1e-12)
    assert l_infinity_distance(*A_B) == pytest.approx(0.2, rel=1e-12)
    assert hellinger_distance(*levels({"a": 5}, {"b": 9})) == 1.0


def test_chi_square_agrees_with_scipy():
    result = chi_square_test(*levels({"a": 40, "b": 60, "c": 20}, {"a": 55, "b": 35, "d": 5}))
    table = [[40, 60, 20, 0], [55, 35, 0, 5]]
    peer = stats.chi2_contingency(table, correction=False)
    assert result.statistic == pytest.approx(peer.statistic, rel=1e-12)
    assert result.p_value == pytest.approx(peer.pvalue, rel=1e-9)
    assert result.degrees_of_freedom == 3


def test_chi_square_of_one_cell_says_nothing():
    result = chi_square_test(*levels({"a": 5}, {"a": 9}))
    assert (result.statistic, result.p_value, result.degrees_of_freedom) == (0.0, 1.0, 0)


@pytest.mark.parametrize("name", DISTANCES)
def test_same_rows_have_no_distance(name):
    reference, current = pair(REFERENCE, REFERENCE)
    assert DISTANCES[name](reference, current) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_grow_with_the_shift(name):
    found = [DISTANCES[name](*pair(REFERENCE, REFERENCE + shift)) for shift in (0.1, 0.3, 1.0, 3.0)]
    assert found == sorted(found)
    assert found[0] > 0


def test_ks_is_a_lower_bound_within_one_bin():
    current = RNG.normal(0.2, 1.1, size=4_000)
    found = kolmogorov_smirnov_test(*pair(REFERENCE, current))
    exact = stats.ks_2samp(REFERENCE, current, method="asymp")
    assert exact.statistic - 1 / 32 <= found.statistic <= exact.statistic
    assert found.p_value >= exact.pvalue


def test_ks_p_value_is_kolmogorovs():
    reference, current = pair(REFERENCE, RNG.normal(size=500))
    d = kolmogorov_smirnov_distance(reference, current)
    result = kolmogorov_smirnov_test(reference, current)
    assert result.p_value == pytest.approx(stats.kstwobign.sf(d * math.sqrt(500 * 20_000 / 20_500)), rel=1e-9)


@pytest.mark.parametrize(
    "current",
    [REFERENCE + 0.3, REFERENCE * 1.5, RNG.exponential(size=3_000), RNG.normal(size=900), REFERENCE + 10.0],
)
def test_w1_is_near_the_exact_one(current):
    exact = stats.wasserstein_distance(REFERENCE, current) / REFERENCE.std()
    assert wasserstein_distance(*pair(REFERENCE, current)) == pytest.approx(exact, rel=0.12, abs=0.01)


def test_w1_of_few_values_is_exact():
    reference, current = [0, 1] * 50, [0] * 40 + [1] * 60
    assert wasserstein_distance(*pair(reference, current)) == pytest.approx(0.1 / np.std(reference, ddof=1), rel=1e-9)
    ages = [18, 21, 30, 30, 44, 65]
    older = [18, 21, 30, 44, 65, 65]
    exact = stats.wasserstein_distance(ages, older) / np.std(ages, ddof=1)
    assert wasserstein_distance(*pair(ages, older)) == pytest.approx(exact, rel=1e-9)


def test_w1_of_a_constant_uses_the_smallest_sd():
    # Values above the reference spread evenly up to the largest: half of the way, on average.
    assert wasserstein_distance(*pair([5.0] * 9, [6.0] * 9)) == pytest.approx(0.5 / 0.001)


def test_w1_with_infinite_values_is_finite():
    assert math.isfinite(wasserstein_distance(*pair(REFERENCE, [0.0, math.inf, -math.inf])))


def test_w1_of_times_is_in_reference_spreads():
    start = np.datetime64("2024-01-01", "us")
    times = start + np.arange(1_000) * np.timedelta64(1, "h")
    found = wasserstein_distance(*pair(times, times + np.timedelta64(100, "h")))
    assert found == pytest.approx(100 / np.arange(1_000).std(ddof=1), rel=0.05)


def test_values_beyond_the_reference_are_seen_by_every_distance():
    moved = np.where(np.arange(20_000) < 200, -999.0, REFERENCE)
    reference, current = pair(REFERENCE, moved)
    assert jensen_shannon_distance(reference, current) > 0.06
    assert l_infinity_distance(reference, current) == pytest.approx(0.01)
    assert population_stability_index(reference, current) > 0.05


def test_missing_values_and_wrong_types_do_not_move_distances():
    plain = pair(REFERENCE, REFERENCE[:500])
    dirty = pair(REFERENCE, [*REFERENCE[:500].tolist(), None, "x"])
    for distance in DISTANCES.values():
        assert distance(*plain) == distance(*dirty)


def test_cells_with_missing_values():
    seen = profile({"x": [1, None, "x"], "s": ["a", "z", None]}, learn_specs({"x": [1, 2], "s": ["a", "a"]}))
    assert seen["x"].cells(missing=True).tolist() == [0, 1, 0, 0, 0, 1, 1]
    assert seen["s"].cells(missing=True).tolist() == [1, 1, 1]


def test_boolean_columns_have_distances_but_no_order():
    reference, current = pair([True, False] * 50, [True] * 60 + [False] * 40)
    assert l_infinity_distance(reference, current) == pytest.approx(0.1)
    for name in ("ks", "w1_per_sd"):
        with pytest.raises(NotOrdered, match="boolean"):
            DISTANCES[name](reference, current)


@pytest.mark.parametrize("name", DISTANCES)
def test_empty_and_foreign_profiles_are_refused(name):
    reference, current = pair(REFERENCE, REFERENCE + 1)
    with pytest.raises(EmptyProfile, match="current"):
        DISTANCES[name](reference, empty_column(reference.spec))
    with pytest.raises(EmptyProfile, match="reference"):
        DISTANCES[name](empty_column(reference.spec), current)
    with pytest.raises(EdgesDiffer):
        DISTANCES[name](reference, pair(REFERENCE + 1, REFERENCE)[0])


def test_categories_have_no_order():
    with pytest.raises(NotOrdered, match="categorical"):
        wasserstein_distance(*A_B)


def test_distances_of_counts_are_vectorised():
    rng = np.random.default_rng(0)
    reference, current = rng.multinomial(900, [0.1] * 10, 50), rng.multinomial(70, [0.1] * 10, 50)
    for name in (
        "population_stability_index",
        "jensen_shannon_distance",
        "hellinger_distance",
        "l_infinity_distance",
        "kolmogorov_smirnov_distance",
        "chi_square_statistic",
    ):
        measure = getattr(count_distances, name)
        together = measure(reference, current)
        assert together.shape == (50,)
        single = [float(measure(a, b)) for a, b in zip(reference, current, strict=True)]
        assert together.tolist() == pytest.approx(single, rel=1e-12)
        assert measure(reference[0], current).shape == (50,)


@pytest.mark.parametrize("arguments", [(0, 1, 1), (2, 0, 1), (2, 1, 0)])
def test_expected_psi_needs_values(arguments):
    with pytest.raises(Invalid):
        expected_psi(*arguments)

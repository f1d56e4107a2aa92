"""Exact sums: against rational arithmetic, whatever the magnitudes."""

import math
from fractions import Fraction

import numpy as np
import pytest

from modelyard.profiles.exact import CHUNK, LIMIT, ExactSum, exact_sum


def rational(values):
    return sum(map(Fraction, values.tolist()), Fraction())


@pytest.mark.parametrize(
    "values",
    [
        np.array([]),
        np.array([0.0, 0.0]),
        np.array([0.1] * 10),
        np.array([1e16, 1.0, -1e16]),
        np.array([5e-324, -5e-324, 5e-324]),
        np.array([1e300 / 1e150, 5e-324, -1e150, 1.0]),
        np.array([LIMIT, -LIMIT / 3, 1e-300, 2.0**-1074]),
        (np.array([LIMIT / 2, 3.0]) * 2) ** 2,
    ],
)
def test_sum_is_exact(values):
    assert exact_sum(values).fraction() == rational(values)


@pytest.mark.parametrize("rows", [1, 2, 3, 255, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 17])
def test_sum_is_exact_for_every_chunk_length(rows):
    values = np.random.default_rng(rows).normal(size=rows) * 10.0 ** np.random.default_rng(1).integers(-40, 40, rows)
    assert exact_sum(values).fraction() == rational(values)


def test_sum_of_equal_extremes_does_not_lose_the_last_bit():
    values = np.full(CHUNK, np.nextafter(2.0, 0.0))
    assert exact_sum(values).fraction() == CHUNK * Fraction(float(values[0]))


def test_adding_gives_the_normal_form():
    half = exact_sum(np.array([0.5]))
    assert half + half == exact_sum(np.array([1.0])) == ExactSum(1, 0)
    assert half + exact_sum(np.array([-0.5])) == ExactSum()
    assert ExactSum() + half == half + ExactSum() == half


def test_sum_agrees_with_fsum_after_rounding():
    values = np.random.default_rng(3).lognormal(sigma=8, size=20_000)
    assert float(exact_sum(values).fraction()) == math.fsum(values)


def test_input_is_left_alone():
    values = np.array([0.1, 0.2, 0.3])
    exact_sum(values)
    assert values.tolist() == [0.1, 0.2, 0.3]

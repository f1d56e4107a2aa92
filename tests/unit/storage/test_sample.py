import numpy as np
import pytest

from modelyard.storage.series.model import points
from modelyard.storage.series.sample import sample


def _series(values):
    return points(np.arange(len(values)), np.arange(len(values)), values)


@pytest.mark.parametrize("size", [1, 4, 1999, 2000, 2001, 2003, 4001, 123_457])
@pytest.mark.parametrize("limit", [4, 5, 2000])
def test_sample_keeps_its_size_its_ends_and_its_extremes(size, limit):
    values = np.random.default_rng(size).normal(size=size)
    thin = sample(_series(values), limit)
    assert len(thin) <= max(limit, 0)
    assert thin.steps[0] == 0
    assert thin.steps[-1] == size - 1
    assert (np.diff(thin.steps) > 0).all()
    np.testing.assert_array_equal(thin.values, values[thin.steps])
    assert thin.values.max() == values.max()
    assert thin.values.min() == values.min()


def test_short_series_is_kept_whole():
    series = _series(np.arange(2000.0))
    assert sample(series, 2000) is series


def test_nan_does_not_hide_a_peak():
    values = np.full(10_000, np.nan)
    values[5000] = 7.0
    values[5001] = np.inf
    values[5002] = -3.0
    thin = sample(_series(values), 100)
    assert {5001, 5002} <= set(thin.steps.tolist())
    all_missing = sample(_series(np.full(10_000, np.nan)), 100)
    assert np.isnan(all_missing.values).all()

"""Profiles in plain numbers."""

import json
import math

import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.profiles import NotOrdered, describe, describe_table, empty, learn_specs, profile, quantile

VALUES = np.random.default_rng(0).lognormal(size=20_000)


def one(values, reference=None):
    return profile({"x": values}, learn_specs({"x": values if reference is None else reference}))["x"]


@pytest.mark.parametrize("probability", [0.03, 0.1, 0.5, 0.77, 0.95])
def test_quantiles_are_near_the_exact_ones(probability):
    share_below = float(np.mean(quantile(one(VALUES), probability) >= VALUES))
    assert share_below == pytest.approx(probability, abs=1 / 64)


def test_quantiles_at_bin_edges_and_ends_are_exact():
    seen = one(VALUES)
    assert quantile(seen, 0.0) == VALUES.min()
    assert quantile(seen, 1.0) == VALUES.max()
    assert np.mean(quantile(seen, 0.5) > VALUES) == pytest.approx(0.5, abs=1e-3)


def test_quantiles_of_few_values_are_those_values():
    seen = one([1] * 50 + [2] * 30 + [9] * 20)
    assert [round(quantile(seen, p), 9) for p in (0.0, 0.3, 0.6, 0.9, 1.0)] == [1.0, 1.0, 2.0, 9.0, 9.0]


def test_quantiles_beyond_the_reference_stay_within_what_was_seen():
    seen = one([100.0, 110.0, 120.0], [1.0, 2.0])
    assert [quantile(seen, p) for p in (0.0, 0.5, 1.0)] == [100.0, 110.0, 120.0]


def test_quantiles_grow_with_the_probability():
    seen = one(np.concatenate([VALUES, [np.inf, -5.0]]), VALUES)
    found = [quantile(seen, p) for p in np.linspace(0, 1, 201)]
    assert found == sorted(found)


def test_quantiles_without_an_answer():
    assert quantile(one([], [1.0]), 0.5) is None
    assert quantile(one([math.inf], [1.0]), 0.5) is None
    with pytest.raises(NotOrdered):
        quantile(one(["a"]), 0.5)
    with pytest.raises(Invalid):
        quantile(one([1.0]), 1.5)


def test_open_bin_has_quantiles_too():
    assert quantile(one([1.0, 3.0], np.array([np.nan])), 0.5) == 2.0


def test_description_is_json():
    table = {
        "x": [1.0, None, 3.0, math.inf],
        "s": ["b", "a", "new", "b"],
        "b": [True, None, False, True],
        "t": np.arange(4).astype("datetime64[D]"),
    }
    spec = learn_specs({**table, "x": [1.0, 2.0, 3.0, 4.0], "s": ["a", "b", "b", "c"]})
    shown = json.loads(json.dumps(describe_table(profile(table, spec)), allow_nan=False))
    x, s, b, t = shown["columns"]
    assert shown["rows"] == 4
    assert (x["n"], x["null"], x["mean"], x["over"], x["extreme"]) == (3, 1, 2.0, 1, 1)
    assert s["levels"] == [{"level": "b", "count": 2}, {"level": "a", "count": 1}, {"level": "c", "count": 0}]
    assert (s["unseen"], s["distinct"]) == ([{"level": "new", "count": 1}], 3)
    assert b["counts"] == [1, 2]
    assert t["quantiles"]["0.5"] == pytest.approx(1.5 * 86_400e6, rel=0.4)


def test_description_of_nothing_is_json():
    spec = learn_specs({"x": [1.0], "s": ["a"], "b": [True]})
    shown = json.dumps(describe_table(empty(spec)), allow_nan=False)
    assert json.loads(shown)["columns"][0]["mean"] is None
    assert describe(empty(spec)["b"])["null_rate"] is None

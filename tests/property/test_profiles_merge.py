"""Merging any grouping of the rows, in any order, equals profiling all of them, bit for bit."""

import math
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.profiles import TableSpec, empty, from_bytes, learn_specs, merge, profile, to_bytes
from modelyard.profiles.exact import exact_sum

numbers = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0.0, -0.0, 1.0, 1, True, 2**53, 2**53 + 1, float(2**53), 1e308, 5e-324, "text", 0.1]),
)
labels = st.one_of(st.none(), st.text(max_size=4), st.sampled_from(["a", "b", 1, 1.0, True]))
truths = st.sampled_from([True, False, None, 1, 0.0, 2, "true"])
times = st.one_of(
    st.none(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from(["2024-01-01", "soon", 3]),
)
rows = st.lists(st.fixed_dictionaries({"n": numbers, "s": labels, "b": truths, "t": times}), max_size=40)
kinds = {"n": "numeric", "s": "categorical", "b": "boolean", "t": "datetime"}

REFERENCE = learn_specs(
    [
        {"n": float(i % 7) - 3, "s": "ab"[i % 2], "b": i % 3 == 0, "t": datetime(2000 + i, 1, 1, tzinfo=UTC)}
        for i in range(40)
    ]
)


@st.composite
def grouped(draw):
    table = draw(rows)
    order = draw(st.permutations(range(len(table))))
    cuts = sorted(draw(st.lists(st.integers(0, len(table)), max_size=6)))
    bounds = zip([0, *cuts], [*cuts, len(table)], strict=True)
    return table, [[table[i] for i in order[start:end]] for start, end in bounds]


def fold(parts, spec):
    """Merge as a tree, so that grouping varies too."""
    profiles = [profile(part, spec) for part in parts] or [empty(spec)]
    while len(profiles) > 1:
        pairs = zip(profiles[::2], [*profiles[1::2], empty(spec)], strict=False)
        profiles = [merge(b, a) for a, b in pairs]
    return profiles[0]


@settings(deadline=None, max_examples=150)
@given(grouped())
def test_any_grouping_gives_the_same_bytes(case):
    table, parts = case
    assert to_bytes(fold(parts, REFERENCE)) == to_bytes(profile(table, REFERENCE))


@settings(deadline=None, max_examples=60)
@given(rows)
def test_any_rows_teach_a_usable_specification(table):
    spec = learn_specs(table, kinds=kinds if table else None)
    assert TableSpec.from_json(spec.to_json()) == spec
    seen = profile(table, spec)
    assert from_bytes(to_bytes(seen), spec) == seen
    for column in seen.columns.values():
        assert column.rows == len(table)
        assert column.under == column.over == 0 or column.extreme > 0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([1.0, 1e-3, 1e9]), st.booleans())
def test_large_batches_give_the_same_bytes(seed, pieces, scale, ties):
    rng = np.random.default_rng(seed)
    values = rng.standard_cauchy(30_000) * scale
    if ties:
        values = np.round(values)
    values[rng.random(30_000) < 0.02] = np.nan
    spec = learn_specs({"x": values[:2_000]})
    whole = profile({"x": values}, spec)
    shuffled = rng.permutation(values)
    cuts = np.sort(rng.integers(0, 30_000, pieces))
    assert to_bytes(fold([{"x": part} for part in np.split(shuffled, cuts)], spec)) == to_bytes(whole)


@settings(deadline=None)
@given(st.lists(st.floats(-(2.0**500), 2.0**500)))
def test_sums_are_exact(values):
    assert exact_sum(np.array(values, dtype=float)).fraction() == sum(map(Fraction, values), Fraction())


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_moments_agree_with_rational_arithmetic(values):
    seen = profile({"x": values}, learn_specs({"x": values}))["x"]
    exact = list(map(Fraction, values))
    mean = sum(exact) / len(exact)
    assert seen.mean == float(mean)
    variance = float(sum((x - mean) ** 2 for x in exact) / (len(exact) - 1))
    assert math.isclose(seen.sd, math.sqrt(variance), rel_tol=1e-6, abs_tol=1e-150)

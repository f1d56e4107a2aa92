"""Counting rows: values, gaps, wrong types, and the two ways to count."""

import math
import statistics
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest

from modelyard.profiles import learn_specs, merge, profile, to_bytes
from modelyard.profiles.counting import SEARCH_BELOW, count_cells


def one(values, reference=None, **options):
    spec = learn_specs({"x": values if reference is None else reference}, **options)
    return profile({"x": values}, spec)["x"]


def test_moments_of_a_small_sample():
    seen = one([2.0, 4.0, 4.0, 5.0, 10.0])
    assert (seen.n, seen.mean, seen.minimum, seen.maximum) == (5, 5.0, 2.0, 10.0)
    assert seen.sd == pytest.approx(statistics.stdev([2, 4, 4, 5, 10]), rel=1e-15)
    assert seen.total.fraction() == 25


def test_variance_keeps_its_digits_far_from_zero():
    values = 1e9 + np.array([0.0, 0.25, 0.5, 0.75])
    assert one(values).sd == pytest.approx(statistics.stdev([0.0, 0.25, 0.5, 0.75]), rel=1e-15)


def test_one_value_has_no_spread():
    seen = one([3.0])
    assert (seen.mean, seen.sd) == (3.0, None)


def test_empty_profile_answers_none():
    seen = one([], [1.0, 2.0])
    assert (seen.rows, seen.n, seen.mean, seen.sd, seen.null_rate, seen.other_rate) == (
        0,
        0,
        None,
        None,
        None,
        None,
    )
    assert (seen.minimum, seen.maximum, seen.distinct) == (None, None, 0.0)


def test_nan_and_none_are_missing():
    seen = one([1.0, None, math.nan, 2.0])
    assert (seen.null, seen.n, seen.rows, seen.null_rate) == (2, 2, 4, 0.5)


def test_all_missing():
    seen = one([None, math.nan], [1.0])
    assert (seen.null, seen.n, seen.null_rate, seen.mean) == (2, 0, 1.0, None)


def test_infinities_are_beyond_the_range_and_outside_the_moments():
    seen = one([1.0, math.inf, -math.inf, 1e200, 3.0], [1.0, 2.0, 3.0])
    assert (seen.under, seen.over, seen.extreme, seen.n) == (1, 2, 3, 5)
    assert (seen.mean, seen.minimum, seen.maximum) == (2.0, 1.0, 3.0)


def test_squares_of_large_values_do_not_overflow():
    seen = one([2.0**499, -(2.0**499)])
    assert seen.extreme == 0
    assert math.isfinite(seen.sd)


def test_text_in_a_numeric_column_is_of_the_wrong_type():
    for values in (["1.5", "old"], ["1.5", 2.0, "old"], np.array(["1.5", "old"])):
        seen = one(values, [1.0, 2.0])
        assert seen.other == 2
        assert seen.rows == len(values)


def test_python_values_of_many_types_are_numbers():
    values = [1, 2.0, Decimal("2.5"), True, np.float32(1.5), np.int8(2), np.bool_(False), 10**400, "x", [1]]
    seen = one(values, [0.0, 1.0, 2.0, 3.0])
    assert (seen.n, seen.other, seen.null) == (7, 3, 0)
    assert seen.total.fraction() == 10


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("sNaN"), np.datetime64("NaT"), np.float32("nan")])
def test_missing_values_of_other_types_are_missing(value):
    seen = one([1.0, "text", value], [1.0])
    assert (seen.n, seen.other, seen.null) == (1, 1, 1)


def test_negative_zero_is_zero():
    a, b = one([-0.0, 1.0], [0.0, 1.0]), one([0.0, 1.0], [0.0, 1.0])
    assert a == b
    assert math.copysign(1.0, one([-0.0, 1.0]).minimum) == 1.0
    assert one([-0.0, "x"], [0.0, 1.0]).minimum == 0.0


def test_fractions_are_counted():
    assert one([1.0, 2.0, 2.5, -0.5]).fractional == 2
    assert one([1, 2, 3]).fractional == 0


def test_integers_beyond_float_precision():
    values = np.array([2**53, 2**53 + 1, 2**60, 2**60 + 1, -(2**62) - 1], dtype=np.int64)
    seen = one(values)
    assert seen.n == 5
    assert seen.maximum == float(2**60)
    assert round(seen.distinct) == 5
    listed = one([*values.tolist(), 1.5, None], values)
    assert round(listed.distinct) == 6
    assert listed.null == 1


def test_large_unsigned_and_huge_integers():
    seen = one(np.array([2**63, 2**64 - 1], dtype=np.uint64))
    assert (seen.n, seen.minimum) == (2, float(2**63))
    assert one([2**70, 2**70 + 1, 3]).n == 3


def test_booleans():
    seen = one([True, False, None, True, 1, 0.0, 2, "true"], [True, False])
    assert (seen.counts, seen.null, seen.other) == ((2, 3), 1, 2)
    assert seen.mean == pytest.approx(0.6)
    assert seen.sd == pytest.approx(statistics.stdev([1, 1, 1, 0, 0]))
    assert seen.distinct == 2.0
    assert one(np.array([True, True])).counts == (0, 2)
    assert one(np.array([1.0, 0.0, np.nan, 7.0]), [True]).counts == (1, 1)


def test_unicode_levels():
    seen = one(["ä", "日本", "ä", "", None], ["ä", "日本", ""])
    assert dict(zip(seen.spec.levels, seen.counts, strict=True)) == {"ä": 2, "日本": 1, "": 1}
    assert (seen.null, seen.other, seen.n) == (1, 0, 4)


def test_unknown_levels_are_counted_and_named():
    long = "é" * 200
    seen = one(["a", "new", "new", long], ["a", "b"])
    assert (seen.other, seen.n, seen.other_rate) == (3, 4, 0.75)
    assert {(u.label, u.count) for u in seen.unseen} == {("new", 2), ("é" * 64, 1)}
    assert seen.distinct == 3.0


def test_unknown_levels_kept_are_bounded_and_distinct_still_estimated():
    seen = one([f"id-{i}" for i in range(5_000)], ["a"])
    assert len(seen.unseen) == 20
    assert seen.other == 5_000
    assert seen.distinct == pytest.approx(5_000, rel=0.15)


def test_lone_surrogates_do_not_break_text():
    seen = one(["\ud800", "a", "a"], ["a"])
    assert [u.label for u in seen.unseen] == ["?"]
    spec = learn_specs({"x": ["\ud800", "b"]})
    assert to_bytes(profile({"x": ["\ud800"]}, spec))


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 2],
        [1.0, 2.0, 2.0],
        np.array([1, 2, 2]),
        np.array([1, 2, 2], dtype=np.float32),
        [1, "2", 2.0],
        ["1", "2", "2"],
    ],
)
def test_numbers_as_categories_have_one_name(values):
    seen = one(values, [2, 2, 1], kinds={"x": "categorical"})
    assert (seen.spec.levels, seen.counts, seen.other) == (("2", "1"), (2, 1), 0)


def test_missing_values_of_categories():
    for values in ([1.0, math.nan, 2.0], np.array([1.0, np.nan, 2.0]), [1, None, 2.0, "a"]):
        assert one(values, [1, 2], kinds={"x": "categorical"}).null == 1


def test_truths_and_times_as_categories():
    seen = one([True, np.True_, "true"], ["true"])
    assert seen.counts == (3,)
    day = datetime(2024, 2, 29, tzinfo=UTC)
    by_object, by_array = ([day, "x"], np.array(["2024-02-29"], dtype="datetime64[D]"))
    spec = learn_specs({"x": by_object}, kinds={"x": "categorical"})
    assert spec["x"].levels == ("2024-02-29T00:00:00.000000Z", "x")
    assert profile({"x": by_array}, spec)["x"].counts == (1, 0)


def test_times_with_zones_are_one_instant():
    noon = datetime(2024, 6, 1, 12, tzinfo=UTC)
    berlin = noon.astimezone(timezone(timedelta(hours=2)))
    naive = noon.replace(tzinfo=None)
    spec = learn_specs({"x": [noon, noon + timedelta(hours=1)]})
    assert spec["x"].kind == "datetime"
    seen = profile(
        {"x": [noon, berlin, naive, "2024-06-01T14:00:00+02:00", "2024-06-01T12:00:00Z", None, 3, "soon"]},
        spec,
    )
    column = seen["x"]
    assert (column.counts, column.null, column.other) == ((5, 0, 0), 1, 2)
    assert column.mean == noon.timestamp() * 1e6
    assert round(column.distinct) == 1


def test_times_from_arrays_and_text_columns():
    moments = np.array(["2024-01-01", "NaT", "1960-05-05T01:02:03.5"], dtype="datetime64[ms]")
    seen = one(moments)
    assert (seen.null, seen.n) == (1, 2)
    assert seen.minimum == datetime(1960, 5, 5, 1, 2, 3, 500_000, tzinfo=UTC).timestamp() * 1e6
    text = one(["2024-01-01", "later", None], moments)
    assert (text.n, text.other, text.null) == (1, 1, 1)
    assert one([], moments).n == one(np.array([], dtype=str), moments).n == 0
    dates = one([date(2024, 1, 1), None], moments)
    assert (dates.n, dates.null, dates.mean) == (1, 1, text.mean)
    numbers = one([1.0, None], moments)
    assert (numbers.other, numbers.null) == (1, 1)
    assert one(moments, [1.0]).other == 2


def test_missing_and_extra_columns():
    spec = learn_specs({"a": [1, 2], "b": ["x", "y"]})
    seen = profile({"a": [1, 2, 3], "d": [1, 2, 3], "c": [0, 0, 0]}, spec)
    assert seen.rows == 3
    assert (seen["b"].null, seen["b"].rows) == (3, 3)
    assert seen.extra_columns == ("c", "d")


@pytest.mark.parametrize("rows", [0, 1, SEARCH_BELOW - 1, SEARCH_BELOW, 3 * SEARCH_BELOW + 5])
def test_both_ways_to_count_agree_with_a_plain_one(rows):
    rng = np.random.default_rng(rows)
    reference = np.round(rng.normal(size=2_000), 1)
    spec = learn_specs({"x": reference})["x"]
    special = [spec.low, spec.high, np.inf, -np.inf, *spec.edges, *np.nextafter(spec.edges, -np.inf)]
    values = np.concatenate([np.round(rng.normal(scale=2, size=rows), 1), special])[: max(rows, 0)]
    rng.shuffle(values)
    bounds = [spec.low, *spec.edges]
    expected = [int(np.sum(values < spec.low))]
    for low, high in zip(bounds, [*spec.edges, np.inf], strict=True):
        expected.append(int(np.sum((values >= low) & (values < high) & (values <= spec.high))))
    expected.append(int(np.sum(values > spec.high)))
    assert count_cells(values, spec) == expected


def test_large_and_small_batches_give_one_profile():
    values = np.random.default_rng(5).normal(size=3 * SEARCH_BELOW)
    spec = learn_specs({"x": values[:1_000]})
    whole = profile({"x": values}, spec)
    parts = [profile({"x": piece}, spec) for piece in np.array_split(values, 7)]
    total = parts[0]
    for part in parts[1:]:
        total = merge(total, part)
    assert to_bytes(total) == to_bytes(whole)


def test_distinct_of_a_numeric_column():
    assert one(np.arange(20_000) % 300).distinct == pytest.approx(300, rel=0.15)

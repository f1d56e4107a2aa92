"""What is learned from reference data: kinds, bins, levels."""

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.profiles import ColumnSpec, TableSpec, learn_specs, profile


def spec_of(values, **options):
    return learn_specs({"x": values}, **options)["x"]


def counts_of(values, spec_values):
    spec = learn_specs({"x": spec_values})
    return profile({"x": values}, spec)["x"]


def test_continuous_reference_fills_32_bins_evenly():
    values = np.random.default_rng(0).normal(size=32_000)
    spec = spec_of(values)
    counts = counts_of(values, values).counts
    assert len(spec.edges) == 31
    assert max(counts) - min(counts) <= 2
    assert (spec.low, spec.high) == (values.min(), values.max())


def test_constant_column_has_one_bin_and_sees_every_change():
    spec = spec_of([5.0] * 100)
    assert (spec.edges, spec.low, spec.high) == ((), 5.0, 5.0)
    seen = counts_of([5.0, np.nextafter(5.0, 6.0), 4.0], [5.0] * 100)
    assert (seen.under, seen.counts, seen.over) == (1, (1,), 1)


def test_few_values_get_a_bin_each_and_one_for_each_gap():
    seen = counts_of([1, 2, 3, 3, 2.5, 1.5, 0, 4], [1, 2, 3] * 10)
    assert seen.counts == (1, 1, 1, 1, 2)
    assert (seen.under, seen.over) == (1, 1)


def test_as_many_values_as_bins_get_a_bin_each():
    values = list(range(32))
    spec = spec_of(values * 3)
    assert spec.edges == tuple(float(v) for v in values[1:])
    assert counts_of(values, values * 3).counts == (1,) * 32


def test_heavy_tie_is_alone_in_its_bin():
    rng = np.random.default_rng(1)
    values = np.concatenate([np.zeros(6_000), rng.lognormal(size=4_000)])
    seen = counts_of(values, values)
    assert seen.counts[0] == 6_000
    assert len(seen.spec.edges) <= 31
    assert max(seen.counts[1:]) <= 10_000 / 32 + 2


def test_heavy_tie_inside_and_at_the_top_is_alone_in_its_bin():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.uniform(0, 1, 3_000), np.full(4_000, 0.5), np.full(2_000, 1.0)])
    seen = counts_of(values, values)
    assert 4_000 in seen.counts
    assert seen.counts[-1] == 2_000


@pytest.mark.parametrize("values", [[], [None, None], [np.nan], [np.inf, -np.inf]])
def test_reference_without_finite_values_has_one_open_bin(values):
    spec = learn_specs({"x": np.array(values, dtype=float)})
    assert (spec["x"].edges, spec["x"].low, spec["x"].high) == ((), None, None)
    seen = profile({"x": [1.0, -1e300, np.inf]}, spec)["x"]
    assert (seen.under, seen.counts, seen.over, seen.n) == (0, (3,), 0, 3)


def test_edges_never_exceed_the_number_of_bins():
    rng = np.random.default_rng(3)
    for seed in range(60):
        size = int(rng.integers(1, 400))
        values = np.round(np.random.default_rng(seed).exponential(scale=seed + 1, size=size), seed % 3)
        for bins in (2, 3, 10, 32):
            spec = spec_of(values, bins=bins)
            assert len(spec.edges) <= bins - 1
            assert sum(counts_of(values, values).counts) == size


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "numeric"),
        ([1.5, None], "numeric"),
        ([Decimal("1.5")], "numeric"),
        ([True, None], "boolean"),
        (["a", None], "categorical"),
        (np.array(["a", "b"]), "categorical"),
        ([date(2024, 1, 1)], "datetime"),
        ([datetime(2024, 1, 1, tzinfo=UTC), None], "datetime"),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), "datetime"),
        (np.array([90], dtype="timedelta64[s]"), "numeric"),
        ([1, 2, "x"], "numeric"),
        (["x", "y", 1], "categorical"),
        ([[1], [2]], "categorical"),
        ([None, None], "numeric"),
    ],
)
def test_kind_follows_the_values(values, kind):
    assert spec_of(values).kind == kind


def test_kind_can_be_given():
    spec = spec_of([10, 20, 20], kinds={"x": "categorical"})
    assert (spec.kind, spec.levels) == ("categorical", ("20", "10"))


def test_levels_are_ranked_by_count_then_name_and_bounded():
    spec = spec_of(["b", "a", "c", "c", "a", "b", "d"], max_levels=3)
    assert spec.levels == ("a", "b", "c")


def test_unknown_column_in_kinds_is_refused():
    with pytest.raises(Invalid, match="zip"):
        learn_specs({"x": [1]}, kinds={"zip": "categorical"})


@pytest.mark.parametrize("options", [{"bins": 1}, {"max_levels": 0}])
def test_too_few_bins_or_levels_are_refused(options):
    with pytest.raises(Invalid):
        spec_of([1, 2], **options)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "text"},
        {"kind": "numeric", "edges": (1.0, 1.0), "low": 0.0, "high": 2.0},
        {"kind": "numeric", "edges": (0.0,), "low": 0.0, "high": 2.0},
        {"kind": "numeric", "edges": (3.0,), "low": 0.0, "high": 2.0},
        {"kind": "numeric", "edges": (1.0,)},
        {"kind": "numeric", "low": 0.0},
        {"kind": "numeric", "low": float("nan"), "high": 1.0},
        {"kind": "categorical", "levels": ("a", "a")},
    ],
)
def test_unusable_specifications_are_refused(fields):
    with pytest.raises(Invalid, match="x"):
        ColumnSpec("x", **fields)


def test_a_column_named_twice_is_refused():
    column = ColumnSpec("x", "boolean")
    with pytest.raises(Invalid, match="twice"):
        TableSpec((column, column))


def test_json_round_trip_keeps_every_bit_and_the_digest():
    rng = np.random.default_rng(4)
    spec = learn_specs(
        {
            "größe": rng.normal(size=5_000) * 1e-300,
            "land": ["ä", "日本", "", "\u0000"] * 1_250,
            "ok": [True, False] * 2_500,
            "at": np.arange(5_000).astype("datetime64[h]"),
        }
    )
    again = TableSpec.from_json(spec.to_json())
    assert again == spec
    assert again.digest == spec.digest


def test_digest_tells_specifications_apart():
    assert learn_specs({"x": [1, 2]}).digest != learn_specs({"x": [1, 3]}).digest


@pytest.mark.parametrize(
    "text", ["", "{}", '{"version": 2, "columns": []}', '{"version": 1, "columns": [{"name": 1}]}']
)
def test_broken_specification_text_is_refused(text):
    with pytest.raises(Invalid):
        TableSpec.from_json(text)


def test_missing_name_is_a_key_error():
    with pytest.raises(KeyError):
        learn_specs({"x": [1]})["y"]

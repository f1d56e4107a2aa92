"""Adding profiles."""

import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.profiles import EdgesDiffer, empty, empty_column, learn_specs, merge, merge_columns, profile

SPEC = learn_specs({"x": [1.0, 2.0, 3.0], "s": ["a", "b", "b"], "b": [True, False, True]})
LEFT = profile({"x": [1.0, None, 9.0], "s": ["a", "z", None], "b": [True, None, "no"], "extra": [1, 2, 3]}, SPEC)
RIGHT = profile({"x": [0.0, 2.5], "s": ["z", "y"], "b": [False, False]}, SPEC)


def test_every_part_adds():
    both = merge(LEFT, RIGHT)
    assert (both.rows, both.extra_columns) == (5, ("extra",))
    x = both["x"]
    assert (x.n, x.under, x.over, x.null, x.minimum, x.maximum, x.fractional) == (4, 1, 1, 1, 0.0, 9.0, 1)
    assert x.total.fraction() == 12.5
    assert {u.label: u.count for u in both["s"].unseen} == {"z": 2, "y": 1}
    assert (both["b"].counts, both["b"].other) == ((2, 1), 1)


def test_empty_changes_nothing():
    assert merge(LEFT, empty(SPEC)) == merge(empty(SPEC), LEFT) == LEFT
    assert profile([], SPEC) == empty(SPEC)


def test_profiles_of_other_bins_do_not_add():
    other = learn_specs({"x": [1.0, 2.0, 4.0], "s": ["a", "b", "b"], "b": [True, False, True]})
    with pytest.raises(EdgesDiffer) as caught:
        merge(LEFT, empty(other))
    assert isinstance(caught.value, Invalid)
    assert caught.value.code == "edges_differ"
    with pytest.raises(EdgesDiffer, match="'x'"):
        merge_columns(LEFT["x"], empty_column(other["x"]))


def test_equal_specifications_need_not_be_one_object():
    again = learn_specs({"x": [1.0, 2.0, 3.0], "s": ["a", "b", "b"], "b": [True, False, True]})
    assert merge(LEFT, profile({"x": [0.0, 2.5], "s": ["z", "y"], "b": [False, False]}, again)) == merge(LEFT, RIGHT)


def test_names_of_extra_columns_are_bounded_and_merge_exactly():
    names = [f"c{i:03}" for i in range(150)]
    a = profile({name: [1] for name in names[::2]}, SPEC)
    b = profile({name: [1] for name in names[1::2]}, SPEC)
    assert merge(a, b).extra_columns == tuple(names[:100])


def test_sums_do_not_depend_on_the_order_where_floats_would():
    values = [1e16, 1.0, -1e16, 3.0]
    spec = learn_specs({"x": values})
    parts = [profile({"x": [v]}, spec) for v in values]
    forward, backward = empty(spec), empty(spec)
    for part in parts:
        forward = merge(forward, part)
    for part in reversed(parts):
        backward = merge(backward, part)
    assert forward == backward
    assert forward["x"].mean == 1.0
    assert np.sum(values) != 4.0

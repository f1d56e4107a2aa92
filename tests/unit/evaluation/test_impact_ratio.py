import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.evaluation import Insufficient, impact_ratio


def table(**groups):
    names = [name for name, (selected, n) in groups.items() for _ in range(n)]
    decisions = [int(i < selected) for selected, n in groups.values() for i in range(n)]
    return np.array(names, dtype=object), np.array(decisions)


def ratio(group, decision, **options):
    return impact_ratio(group, decision, rng=np.random.default_rng(0), **options)


def test_lowest_over_highest_with_a_row_per_group():
    found = ratio(*table(a=(210, 500), b=(250, 500), c=(240, 500)))
    assert found.value == pytest.approx(0.84)
    assert (found.group, found.reference, found.n, found.smallest_n) == ("a", "b", 1_500, 500)
    assert {row.group: row.ratio for row in found.groups} == pytest.approx({"a": 0.84, "b": 1.0, "c": 0.96})
    assert found.method == "bootstrap-multinomial"
    assert found.low < 0.84 < found.high
    row = found.groups[0]
    assert row.low < row.rate < row.high


def test_the_interval_is_that_of_a_ratio_of_proportions():
    found = ratio(*table(a=(400, 2_000), b=(600, 2_000)), draws=20_000)
    # Katz log interval: exp(ln r +- z sqrt(1/x1 - 1/n1 + 1/x2 - 1/n2)).
    se = np.sqrt(1 / 400 - 1 / 2_000 + 1 / 600 - 1 / 2_000)
    expected = np.exp(np.log(2 / 3) + np.array([-1.96, 1.96]) * se)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.01)


def test_the_order_of_rows_does_not_matter():
    group, decision = table(a=(30, 100), b=(50, 120))
    order = np.random.default_rng(1).permutation(220)
    assert ratio(group, decision) == ratio(group[order], decision[order])


def test_nobody_selected_in_a_group_keeps_a_width():
    found = ratio(*table(a=(0, 40), b=(200, 400)))
    assert (found.value, found.low, found.method) == (0.0, 0.0, "wilson-mover")
    assert 0.1 < found.high < 0.3
    everybody = ratio(*table(a=(40, 40), b=(400, 400)))
    assert everybody.value == 1.0
    assert 0.8 < everybody.low < 1.0 < everybody.high


def test_rows_without_a_group_are_counted_but_not_compared():
    group, decision = table(a=(40, 100), b=(50, 100))
    found = ratio(np.append(group, [None, np.nan]), np.append(decision, [1, 1]))
    missing = {row.group: row for row in found.groups}["(missing)"]
    assert (missing.n, missing.rate, missing.ratio) == (2, 1.0, None)
    assert (found.n, found.value) == (200, pytest.approx(0.8))


def test_a_reference_group_may_be_named():
    found = ratio(*table(a=(210, 500), b=(250, 500), c=(240, 500)), reference="c")
    assert (found.group, found.reference) == ("a", "c")
    assert found.value == pytest.approx(0.42 / 0.48)
    above = ratio(*table(a=(210, 500), b=(250, 500)), reference="a")
    assert above.value > 1


def test_without_two_groups_or_a_selection_there_is_no_ratio():
    assert isinstance(ratio([], []), Insufficient)
    assert "two are needed" in ratio(*table(a=(1, 3))).reason
    assert "nobody was selected" in ratio(*table(a=(0, 30), b=(0, 30))).reason
    assert "nobody was selected" in ratio(*table(a=(0, 30), b=(9, 30)), reference="a").reason


@pytest.mark.parametrize(
    ("group", "decision", "options"),
    [
        (["a", "b"], [1], {}),
        (["a", "b"], [1, 2], {}),
        (["a", "b"], [1, np.nan], {}),
        (["a", "b"], [1, 0], {"reference": "c"}),
    ],
)
def test_wrong_input_is_an_error(group, decision, options):
    with pytest.raises(Invalid):
        ratio(group, decision, **options)

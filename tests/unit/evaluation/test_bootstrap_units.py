import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.evaluation import bootstrap
from modelyard.evaluation.bootstrap import Units


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "units",
    [
        Units.of_rows(12),
        Units.of(12, block=5),
        Units.of(12, block=1),
        Units.of(12, cluster=list("aabbbcddddef")),
        Units.of(12, cluster=np.array([None, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 4], dtype=object)),
    ],
)
def test_totals_of_units_and_weights_of_rows_agree(units):
    rows = rng().normal(size=(12, 3))
    weights = next(bootstrap.unit_weights(units, rng=rng(1), draws=7))
    assert weights.shape == (7, units.count)
    assert (weights.sum(axis=1) == units.picks).all()
    assert weights @ units.totals(rows) == pytest.approx(units.row_weights(weights) @ rows)


def test_chunks_add_up_to_the_draws():
    units = Units.of_rows(1_000_000)
    sizes = [len(chunk) for chunk in bootstrap.unit_weights(units, rng=rng(), draws=9)]
    assert sum(sizes) == 9
    assert len(sizes) > 1


def test_cells_resample_like_their_rows():
    cells = np.array([[0.0], [1.0], [5.0]])
    counts = np.array([30, 50, 20])
    by_cell = bootstrap.mean_draws(cells, Units.of_cells(counts), rng=rng(), draws=20_000)[:, 0]
    by_row = bootstrap.mean_draws(np.repeat(cells, counts, axis=0), Units.of_rows(100), rng=rng(), draws=20_000)
    assert by_cell.mean() == pytest.approx(1.5, abs=0.01)
    assert by_cell.std() == pytest.approx(by_row.std(), rel=0.03)


def test_the_normal_limit_has_the_bootstraps_moments():
    rows = rng(3).exponential(size=(bootstrap.NORMAL_FROM, 2))
    rows[:, 1] += rows[:, 0]
    many = bootstrap.mean_draws(rows, Units.of_rows(len(rows)), rng=rng(), draws=20_000)
    expected = np.cov(rows, rowvar=False) / len(rows)
    assert np.cov(many, rowvar=False) == pytest.approx(expected, rel=0.05)


def test_clusters_and_blocks_widen_what_repeats():
    entity = np.repeat(np.arange(100), 10)
    rows = np.repeat(rng(4).normal(size=100), 10)[:, None]
    by_row = bootstrap.mean_draws(rows, Units.of_rows(1000), rng=rng()).std()
    by_entity = bootstrap.mean_draws(rows, Units.of(1000, cluster=entity), rng=rng()).std()
    by_block = bootstrap.mean_draws(rows, Units.of(1000, block=50), rng=rng()).std()
    assert by_entity == pytest.approx(np.sqrt(10) * by_row, rel=0.1)
    assert by_block > 2 * by_row


def test_units_that_do_not_fit_are_refused():
    with pytest.raises(Invalid, match="not both"):
        Units.of(3, cluster=[1, 2, 3], block=2)
    with pytest.raises(Invalid, match="do not fit"):
        Units.of(3, cluster=[1, 2])
    with pytest.raises(Invalid, match="does not fit"):
        Units.of(3, block=4)


def test_no_bca_interval_where_all_draws_are_on_one_side():
    assert bootstrap.bca_interval(np.ones(9), 0.0, np.arange(9.0)) is None


def test_the_basic_interval_holds_the_estimate():
    biased = rng().normal(0.5, 0.1, size=2_000)
    low, high = bootstrap.basic_interval(biased, 0.1)
    assert low < 0.1 <= high

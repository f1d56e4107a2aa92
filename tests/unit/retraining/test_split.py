"""The holdout is newer than what is learnt from, and no entity or moment is on both sides."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from modelyard.errors import Invalid
from modelyard.retraining.split import MOST, split

START = datetime(2026, 1, 1, tzinfo=UTC)


def _table(rows, **more):
    times = [START + timedelta(hours=n // 3) for n in range(rows)]
    return pa.table({"y": [n % 2 for n in range(rows)], "at": times, "id": [n // 4 for n in range(rows)], **more})


def test_newest_fifth_is_held_out():
    result = split(_table(301), label="y", key=None, time="at")
    assert result.holdout.num_rows in range(60, 64)
    assert result.train.num_rows + result.holdout.num_rows == 301
    newest = max(result.train["at"].to_pylist())
    assert result.trained_until == newest.isoformat()
    assert newest < min(result.holdout["at"].to_pylist())


def test_at_most_ten_thousand_rows_are_held_out():
    assert split(_table(90_000), label="y", key=None, time="at").holdout.num_rows <= MOST + 3


def test_without_time_an_entity_is_on_one_side():
    result = split(_table(4000), label="y", key="id", time=None)
    assert not set(result.train["id"].to_pylist()) & set(result.holdout["id"].to_pylist())
    assert 0.15 < result.holdout.num_rows / 4000 < 0.25
    assert result.trained_until is None


def test_rows_without_a_label_are_left_out():
    table = _table(100).set_column(0, "y", pa.array([None, 1] * 50))
    result = split(table, label="y", key=None, time="at")
    assert result.train.num_rows + result.holdout.num_rows == 50


def test_too_little_is_named():
    with pytest.raises(Invalid, match="at least 20"):
        split(_table(19), label="y", key=None, time="at")
    flat = pa.table({"y": [0, 1] * 20, "at": [START] * 40})
    with pytest.raises(Invalid, match="same 'at'"):
        split(flat, label="y", key=None, time="at")

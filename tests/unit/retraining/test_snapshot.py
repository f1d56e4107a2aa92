"""A snapshot holds each row once, from the source and from serving, within its window."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.errors import Invalid
from modelyard.retraining import snapshot
from modelyard.tracking.sources import Csv, Parquet

START = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = Parquet("rows.parquet", label="y", key="id", time="at")


def _table(rows, start=0):
    numbers = range(start, start + rows)
    return pa.table(
        {
            "x": [float(n) for n in numbers],
            "z": ["a"] * rows,
            "y": [n % 2 for n in numbers],
            "id": [f"c{n}" for n in numbers],
            "at": [START + timedelta(hours=n) for n in numbers],
        }
    )


def _run(folder, *, served=None, since=None, source=SOURCE):
    (folder / "out").mkdir(exist_ok=True)
    if served is not None:
        pq.write_table(served, folder / "served.parquet")
    payload = {
        "source": source.to_json(),
        "root": str(folder),
        "served": None if served is None else str(folder / "served.parquet"),
        "since": since,
        "output": str(folder / "out"),
    }
    found = snapshot.run(payload)
    return found, *(pq.read_table(folder / "out" / f"{name}.parquet") for name in ("train", "holdout"))


def test_the_newest_rows_are_held_out_and_everything_is_said(tmp_path):
    pq.write_table(_table(200), tmp_path / "rows.parquet")
    found, train, holdout = _run(tmp_path)
    assert (train.num_rows, holdout.num_rows) == (160, 40)
    assert found["features"] == ["x", "z"]
    assert found["trained_until"] == (START + timedelta(hours=159)).isoformat()
    assert (found["source_rows"], found["served_rows"]) == (200, 0)
    assert _run(tmp_path)[0] == found


def test_served_rows_are_added_once_and_may_lack_columns(tmp_path):
    pq.write_table(_table(200), tmp_path / "rows.parquet")
    served = _table(100, start=150).drop_columns(["z"])
    served = served.set_column(1, "y", served["y"].cast(pa.float64()))
    found, train, holdout = _run(tmp_path, served=served)
    whole = pa.concat_tables([train, holdout])
    assert (found["source_rows"], found["served_rows"], whole.num_rows) == (200, 50, 250)
    assert len(set(whole["id"].to_pylist())) == 250
    assert whole["z"].null_count == 50


def test_served_values_that_do_not_fit_are_refused(tmp_path):
    pq.write_table(_table(200), tmp_path / "rows.parquet")
    served = _table(5, start=300).set_column(0, "x", pa.array(["high"] * 5))
    with pytest.raises(Invalid, match="'x' do not fit"):
        _run(tmp_path, served=served)


def test_a_window_takes_the_newest_rows_only(tmp_path):
    pq.write_table(_table(200), tmp_path / "rows.parquet")
    since = snapshot.window_start(timedelta(hours=49), START + timedelta(hours=199))
    _, train, holdout = _run(tmp_path, since=since)
    assert train.num_rows + holdout.num_rows == 50
    with pytest.raises(Invalid, match="time column"):
        _run(tmp_path, since=since, source=Parquet("rows.parquet", label="y"))


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Paris"), pa.timestamp("ms"), pa.date32(), pa.string()],
)
def test_boundaries_survive_json_in_every_type_of_time(tmp_path, kind):
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(100)]
    column = pa.array([day.isoformat() for day in days]) if pa.types.is_string(kind) else pa.array(days).cast(kind)
    pq.write_table(_table(100).set_column(4, "at", column), tmp_path / "rows.parquet")
    found, train, holdout = _run(tmp_path)
    boundary = snapshot.edge(found["trained_until"], train["at"].type)
    assert max(train["at"].to_pylist()) == boundary.as_py() < min(holdout["at"].to_pylist())


def test_rows_are_counted_without_reading_them(tmp_path):
    for n in range(3):
        pq.write_table(_table(10), tmp_path / f"part{n}.parquet")
        (tmp_path / f"part{n}.csv").write_text("x,y\n" + "1,2\n" * 10)
    assert snapshot.count_rows(Parquet("part*.parquet", label="y"), tmp_path) == 30
    assert snapshot.count_rows(Csv("part*.csv", label="y"), tmp_path) == 30

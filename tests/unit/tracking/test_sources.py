"""Data sources read what they name, and say what is wrong with what they are given."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.errors import Invalid, NotFound
from modelyard.tracking.sources import Csv, Parquet, source_from_json


@pytest.fixture
def root(tmp_path):
    for number in (2, 1):
        table = pa.table({"id": [number], "left": [number % 2], "age": [30.0 + number]})
        pq.write_table(table, tmp_path / f"part{number}.parquet")
    (tmp_path / "rows.csv").write_text("id,left,age\n1,0,NA\n2,1,4.5\n")
    return tmp_path


def test_files_are_read_in_the_order_of_their_names(root):
    source = Parquet("part*.parquet", label="left", key="id")
    table = source.read(root)
    assert table["id"].to_pylist() == [1, 2]
    assert source.features(table) == ["age"]
    assert Parquet(str(root / "part1.parquet"), label="left").read(None).num_rows == 1


def test_csv_knows_missing_values(root):
    table = Csv("rows.csv", label="left").read(root)
    assert table["age"].to_pylist() == [None, 4.5]


def test_what_is_missing_is_named(root):
    with pytest.raises(NotFound, match="Did you mean 'left'"):
        Parquet("part1.parquet", label="lefd").read(root)
    with pytest.raises(NotFound, match="nothing"):
        Parquet("nothing*.parquet", label="left").read(root)
    with pytest.raises(Invalid, match="no project folder"):
        Parquet("part1.parquet", label="left").read(None)
    (root / "bad.csv").write_text("a,b\n1,2,3\n")
    with pytest.raises(Invalid, match=r"bad\.csv"):
        Csv("bad.csv", label="a").read(root)


def test_json_form_round_trips_and_names_mistakes():
    source = Csv("x.csv", label="y", key="k", time="t", columns=("a", "b"))
    assert source_from_json(source.to_json()) == source
    with pytest.raises(Invalid, match="csv or parquet"):
        source_from_json({"kind": "exel", "path": "x", "label": "y"})
    with pytest.raises(Invalid, match="Did you mean 'label'"):
        source_from_json({"kind": "csv", "path": "x", "labell": "y"})

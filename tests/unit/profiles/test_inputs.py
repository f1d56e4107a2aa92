"""Every table type gives one profile."""

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from modelyard.errors import Invalid
from modelyard.profiles import learn_specs, profile, read_columns, to_bytes

ROWS = [
    {"n": 1, "f": 0.5, "s": "a", "b": True, "t": datetime(2024, 1, 1, tzinfo=UTC)},
    {"n": 2, "f": None, "s": None, "b": None, "t": None},
    {"n": None, "f": 2.5, "s": "ü", "b": False, "t": datetime(2025, 1, 1, 12, 30, tzinfo=UTC)},
    {"n": 4, "f": 3.5, "s": "a", "b": True, "t": datetime(2023, 1, 1, tzinfo=UTC)},
]
LISTS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
SPEC = learn_specs(ROWS)


def tables():
    arrow = pa.table(LISTS)
    frame = pd.DataFrame(LISTS)
    yield "rows", ROWS
    yield "lists", LISTS
    yield "arrow", arrow
    yield "arrow chunks", pa.concat_tables([arrow.slice(0, 1), arrow.slice(1)])
    yield "arrow batch", arrow.to_batches()[0]
    yield "arrow dictionary", arrow.set_column(2, "s", arrow["s"].combine_chunks().dictionary_encode())
    yield "arrow view", arrow.set_column(2, "s", arrow["s"].cast(pa.string_view()))
    yield "arrow arrays", {name: arrow[name] for name in LISTS}
    yield "pandas", frame
    yield "pandas nullable", frame.convert_dtypes()
    yield "pandas arrow", frame.convert_dtypes(dtype_backend="pyarrow")
    yield "pandas category", frame.astype({"s": "category"})
    yield "pandas series", {name: frame[name] for name in LISTS}
    yield "polars", pl.DataFrame(LISTS)
    yield "polars categorical", pl.DataFrame(LISTS).with_columns(pl.col("s").cast(pl.Categorical))
    yield "polars series", {name: pl.Series(LISTS[name]) for name in LISTS}
    yield "object arrays", {name: np.array(LISTS[name], dtype=object) for name in LISTS}
    yield "columns", read_columns(LISTS)
    yield "absent keys", [{k: v for k, v in row.items() if v is not None} for row in ROWS]


TABLES = dict(tables())


def test_the_sample_is_what_it_seems():
    seen = profile(ROWS, SPEC)
    assert [column.kind for column in SPEC] == ["numeric", "numeric", "categorical", "boolean", "datetime"]
    assert [column.null for column in seen.columns.values()] == [1, 1, 1, 1, 1]
    assert seen["s"].spec.levels == ("a", "ü")


@pytest.mark.parametrize("name", TABLES)
def test_every_table_type_gives_the_same_bytes(name):
    assert to_bytes(profile(TABLES[name], SPEC)) == to_bytes(profile(ROWS, SPEC))


@pytest.mark.parametrize("name", [n for n in TABLES if n != "absent keys"])
def test_every_table_type_teaches_the_same_specification(name):
    assert learn_specs(TABLES[name]) == SPEC


def test_numpy_forms():
    structured = np.array([(1, 2.5), (3, np.nan)], dtype=[("a", "i4"), ("b", "f4")])
    spec = learn_specs(structured)
    assert profile(structured, spec)["b"].null == 1
    masked = np.ma.MaskedArray([1, 2, 3], mask=[False, True, False])
    assert profile({"a": masked, "b": [1, 2, 3]}, spec)["a"].null == 1
    text = np.ma.MaskedArray(["x", "y"], mask=[True, False])
    assert profile({"s": text}, learn_specs({"s": ["y"]}))["s"].null == 1
    big_endian = np.array([1, 2], dtype=">i8")
    assert profile({"a": big_endian}, spec)["a"].total.fraction() == 3
    assert read_columns({"d": np.array([90, 30], dtype="timedelta64[m]")}).columns["d"].values.tolist() == [
        5400,
        1800,
    ]


def test_arrow_types():
    table = pa.table(
        {
            "decimal": pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)),
            "half": pa.array(np.array([1.5, 2.5], dtype=np.float16)),
            "small": pa.array([1, None], pa.int8()),
            "wide": pa.array([2**63, None], pa.uint64()),
            "date": pa.array([date(2024, 1, 1), None], pa.date32()),
            "nanos": pa.array([1_704_067_200_000_000_001, None], pa.timestamp("ns")),
            "span": pa.array([1_500, None], pa.duration("ms")),
            "none": pa.nulls(2),
            "list": pa.array([[1], None], pa.list_(pa.int64())),
            "clock": pa.array([1, None], pa.time32("s")),
        }
    )
    spec = learn_specs(table)
    seen = profile(table, spec)
    assert {c.name: c.kind for c in spec} == {
        "decimal": "numeric",
        "half": "numeric",
        "small": "numeric",
        "wide": "numeric",
        "date": "datetime",
        "nanos": "datetime",
        "span": "numeric",
        "none": "numeric",
        "list": "categorical",
        "clock": "categorical",
    }
    assert seen["date"].mean == seen["nanos"].mean == 1_704_067_200e6
    assert (seen["decimal"].mean, seen["span"].mean, seen["wide"].mean) == (1.25, 1.5, 2.0**63)
    assert [c.null for c in seen.columns.values()] == [1, 0, 1, 1, 1, 1, 1, 2, 1, 1]


def test_missing_value_behind_a_dictionary_code():
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, None]), pa.array(["a", None]))
    seen = profile({"s": array}, learn_specs({"s": ["a"]}))["s"]
    assert (seen.counts, seen.null) == ((1,), 3)


def test_numeric_categories_stay_categories():
    frame = pd.DataFrame({"c": pd.Categorical([3, 1, 3, None])})
    spec = learn_specs(frame)
    assert spec["c"].levels == ("3", "1")
    assert profile(frame, spec)["c"].null == 1


def test_pandas_values_of_mixed_types():
    frame = pd.DataFrame({"x": [1, "two", pd.NA, pd.NaT, pd.Timestamp("2024-01-01")]})
    seen = profile(frame, learn_specs({"x": [1.0]}))["x"]
    assert (seen.n, seen.other, seen.null) == (1, 2, 2)
    periods = pd.DataFrame({"x": pd.period_range("2024-01", periods=3, freq="M")})
    assert profile(periods, learn_specs({"x": ["2024-01"]}))["x"].n == 3


def test_timestamps_and_not_a_time_in_a_list():
    seen = profile({"t": [pd.Timestamp("2024-01-01", tz="Europe/Berlin"), pd.NaT]}, SPEC)["t"]
    assert (seen.n, seen.null, seen.mean) == (1, 1, 1_704_063_600e6)


def test_tables_without_rows_or_columns():
    for table in ([], {}, pa.table({}), pl.DataFrame()):
        seen = profile(table, SPEC)
        assert (seen.rows, seen["n"].rows) == (0, 0)
    empty = pa.table({"n": pa.chunked_array([], pa.int64()), "s": pa.chunked_array([], pa.string())})
    assert profile(empty, SPEC)["s"].rows == 0
    assert learn_specs(empty)["s"].levels == ()


def test_column_names_become_text():
    assert [c.name for c in learn_specs(pd.DataFrame([[1, 2]]))] == ["0", "1"]


@pytest.mark.parametrize(
    "table",
    [
        42,
        "text",
        [1, 2],
        None,
        {"a": [1, 2], "b": [1]},
        {"a": np.zeros((2, 2))},
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]),
    ],
)
def test_what_is_no_table_is_refused(table):
    with pytest.raises(Invalid):
        learn_specs(table)

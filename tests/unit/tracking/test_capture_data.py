"""Content digests depend on content alone; schema and profile come with them."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import Invalid
from modelyard.tracking.capture import (
    content_digest,
    describe,
    pack_profile,
    profile_of,
    read_code,
    read_environment,
    to_table,
    unpack_profile,
)
from modelyard.tracking.capture.code import without_secrets, without_user

COLUMNS = {
    "age": [31.5, None, -0.0, 7.0],
    "city": ["Oslo", "Rome", None, "Oslo"],
    "count": [1, 2, 3, 4],
    "known": [True, False, True, True],
}


def test_libraries_agree_on_one_content():
    frame = pd.DataFrame(COLUMNS)
    expected = content_digest(frame)
    assert content_digest(pl.DataFrame(COLUMNS)) == expected
    assert content_digest(pa.table(COLUMNS)) == expected
    assert content_digest(COLUMNS) == expected
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    assert content_digest(rows) == expected
    assert content_digest(frame.assign(city=frame["city"].astype("category"))) == expected
    assert content_digest(pl.DataFrame(COLUMNS).cast({"city": pl.Categorical})) == expected
    assert content_digest(frame.astype({"count": "int32"})) == expected
    assert content_digest(pa.table(COLUMNS).to_batches()[0]) == expected
    chunks = pa.concat_tables([pa.table(COLUMNS).slice(0, 1), pa.table(COLUMNS).slice(1)])
    assert content_digest(chunks) == expected


def test_order_of_rows_and_columns_does_not_matter_and_everything_else_does():
    frame = pd.DataFrame(COLUMNS)
    expected = content_digest(frame)
    assert content_digest(frame.iloc[[2, 0, 3, 1]]) == expected
    assert content_digest(frame[["known", "city", "age", "count"]]) == expected
    assert content_digest(frame.assign(age=[31.5, None, 0.0, 7.0])) == expected
    different = [
        frame.iloc[:3],
        pd.concat([frame, frame.iloc[:1]]),
        frame.assign(age=[31.5, 0.0, 0.0, 7.0]),
        frame.assign(age=[31.5, None, 0.0, 7.000001]),
        frame.assign(city=["Oslo", "Rome", "", "Oslo"]),
        frame.assign(count=[2, 1, 3, 4]),
        frame.assign(count=[1.0, 2.0, 3.0, 4.0]),
        frame.rename(columns={"age": "count", "count": "age"}),
        frame.drop(columns="known"),
        frame.assign(extra=None),
    ]
    digests = [content_digest(each) for each in different]
    assert expected not in digests
    assert len(set(digests)) == len(digests)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(allow_nan=True), st.text(max_size=3), st.integers(-3, 3)), max_size=8), st.randoms()
)
def test_any_permutation_has_the_same_digest(rows, random):
    def digest(some):
        return content_digest({name: pa.array([row[i] for row in some], kind) for i, (name, kind) in enumerate(kinds)})

    kinds = [("a", pa.float64()), ("b", pa.string()), ("c", pa.int64())]
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert digest(shuffled) == digest(rows)
    assert digest([*rows, (1.0, "x", 0)]) != digest(rows)


def test_repeated_rows_do_not_cancel_out():
    assert content_digest({"a": [1, 1]}) != content_digest({"a": [2, 2]})
    assert content_digest({"a": [1, 1, 2]}) != content_digest({"a": [1, 2, 2]})
    assert content_digest({"a": [1], "b": [2]}) != content_digest({"a": [2], "b": [1]})


def test_times_agree_whatever_their_unit():
    stamps = pd.to_datetime(["2013-01-01 05:00", "2013-01-02 06:00"])
    digests = {
        content_digest(pd.DataFrame({"t": stamps.astype(f"datetime64[{unit}]")})) for unit in ("s", "ms", "us", "ns")
    }
    assert len(digests) == 1
    fine = pa.array([1_000_000_000_000_000_001, 0], pa.timestamp("ns"))
    coarse = pa.array([1_000_000_000_000_000, 0], pa.timestamp("us"))
    assert content_digest({"t": fine}) != content_digest({"t": coarse})
    assert content_digest({"t": pa.array([None, 0], pa.timestamp("us"))}) != content_digest({"t": coarse})
    days = pa.array([15706, 15707], pa.date32())
    assert content_digest({"t": days}) == content_digest({"t": days.cast(pa.timestamp("us"))})


def test_odd_types_are_digested():
    for values in (
        pa.array([[1, 2], None, [3]]),
        pa.array([b"a", None, b"b"]),
        pa.array([{"x": 1}, {"x": 2}, None]),
        pa.array([None, None, None]),
        pa.array([2**64 - 1, 0, None], pa.uint64()),
    ):
        column = pa.table({"v": values})
        assert content_digest(column) == content_digest(column.take([2, 0, 1]))
        assert content_digest(column) != content_digest(column.slice(1))
    mixed = pd.DataFrame({"m": [1, "a", None]})
    assert content_digest(mixed) == content_digest(mixed.iloc[::-1])


def test_arrays_and_sparse_matrices_are_tables():
    dense = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert content_digest(dense) == content_digest(dense[::-1])
    assert content_digest(sp.csr_matrix(dense)) == content_digest(dense)
    assert content_digest(dense.tolist()) == content_digest(dense)
    assert to_table(np.arange(3)).column_names == ["x0"]
    structured = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    assert to_table(structured).column_names == ["a", "b"]
    for bad in (np.zeros((2, 2, 2)), 5, "text", object()):
        with pytest.raises(Invalid):
            to_table(bad)


def test_labels_become_a_column():
    table = to_table(np.zeros((2, 2)), target=np.array([0, 1]))
    assert table.column_names == ["x0", "x1", "label"]
    frame = pd.DataFrame({"label": [1, 2]})
    assert to_table(frame, target=pd.Series([0, 1], name="left")).column_names == ["label", "left"]
    assert to_table(frame, target=[0, 1]).column_names == ["label", "label_"]
    assert to_table(frame, target=pl.Series([0, 1])).column_names == ["label", "label_"]
    with pytest.raises(Invalid, match="1 labels for 2 rows"):
        to_table(frame, target=[1])


def test_description_and_profile_come_with_the_data():
    table = to_table(COLUMNS)
    dataset = describe(table, name="people", context="evaluation")
    schema = json.loads(dataset.schema)
    assert schema["rows"] == 4
    assert [column["type"] for column in schema["columns"]] == ["float", "string", "integer", "boolean"]
    assert dataset.digest == content_digest(COLUMNS)
    profile = profile_of(table)
    assert unpack_profile(pack_profile(profile)) == profile


def test_environment_names_packages_without_opening_them(tmp_path):
    (tmp_path / "Foo_Bar-1.2.3.dist-info").mkdir()
    (tmp_path / "other.egg-info").mkdir()
    found = read_environment(path=[str(tmp_path), str(tmp_path / "missing")])
    assert dict(found.packages) == {"foo-bar": "1.2.3"}
    assert found.requirements == "foo-bar==1.2.3\n"
    assert found.digest == read_environment(path=[str(tmp_path)]).digest
    (tmp_path / "new-1.dist-info").mkdir()
    assert read_environment(path=[str(tmp_path)]).digest != found.digest
    assert found.cpus >= 1
    assert read_environment().packages["numpy"] == np.__version__


def test_code_names_commit_and_what_differs_from_it(tmp_path):
    import subprocess

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    script = tmp_path / "train.py"
    script.write_text("print(1)\n")
    outside = read_code(script=script, arguments=["train.py"])
    assert (outside.commit, outside.dirty, outside.script) == (None, False, "train.py")
    git("init", "-q", "-b", "work")
    git("add", "train.py")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one")
    git("remote", "add", "origin", "https://ada:secret@example.com/x.git")
    clean = read_code(script=script, arguments=["train.py", "--password", "hunter2"])
    assert len(clean.commit) == 40
    assert (clean.dirty, clean.branch, clean.remote) == (False, "work", "https://example.com/x.git")
    assert clean.entry_point == ("train.py", "--password", "***")
    assert clean.source == b"print(1)\n"
    script.write_text("print(2)\n")
    dirty = read_code(script=script, arguments=[])
    assert b"+print(2)" in dirty.diff
    assert dirty.digest != clean.digest


def test_secrets_stay_out_of_the_record():
    given_ = ["--api-key=abc", "--token", "abc", "--token", "--depth=3", "-p", "x", "password=plain"]
    assert without_secrets(given_) == (
        "--api-key=***",
        "--token",
        "***",
        "--token",
        "--depth=3",
        "-p",
        "x",
        "password=plain",
    )
    assert without_user("git@example.com:x.git") == "git@example.com:x.git"

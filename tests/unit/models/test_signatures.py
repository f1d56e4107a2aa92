import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from modelyard.errors import Invalid
from modelyard.models import ColumnSpec, Signature, infer_signature, to_columns, to_pandas

FRAME = pd.DataFrame(
    {
        "age": [31, 40, 52],
        "income": [1.5, None, 3.0],
        "ratio": np.array([0.1, 0.2, 0.3], dtype=np.float32),
        "small": np.array([1, 2, 3], dtype=np.int16),
        "member": [True, False, True],
        "city": ["Oslo", "Rome", None],
        "plan": pd.Categorical([2, 1, 2], categories=[1, 2, 3], ordered=True),
        "since": pd.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01"]),
    }
)


def test_types_nulls_levels_and_ranges_are_read_off_a_frame():
    by_name = {c.name: c for c in infer_signature(FRAME).inputs}
    assert {name: c.type for name, c in by_name.items()} == {
        "age": "long",
        "income": "double",
        "ratio": "float",
        "small": "integer",
        "member": "boolean",
        "city": "string",
        "plan": "long",
        "since": "datetime",
    }
    assert [name for name, c in by_name.items() if c.nullable] == ["income", "city"]
    assert [name for name, c in by_name.items() if not c.required] == ["income", "city"]
    assert by_name["city"].levels == ("Oslo", "Rome")
    assert by_name["plan"] == ColumnSpec(
        "plan", "long", levels=(1, 2, 3), categorical=True, ordered=True, dtype="category"
    )
    assert (by_name["age"].minimum, by_name["age"].maximum) == (31.0, 52.0)


def test_our_json_keeps_everything():
    signature = infer_signature(FRAME, np.array([0.5, 0.2, 0.1]))
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature


def test_mlflow_form_is_json_strings_of_column_specs():
    document = infer_signature(FRAME[["age", "income"]], np.array([1, 0, 1])).to_mlflow()
    assert json.loads(document["inputs"]) == [
        {"type": "long", "name": "age", "required": True},
        {"type": "double", "name": "income", "required": False},
    ]
    assert json.loads(document["outputs"]) == [{"type": "long", "required": True}]
    back = Signature.from_mlflow(document)
    assert [(c.name, c.type, c.nullable) for c in back.inputs] == [
        ("age", "long", False),
        ("income", "double", True),
    ]


def test_an_array_gives_mlflow_a_tensor():
    document = infer_signature(np.zeros((4, 3))).to_mlflow()
    assert json.loads(document["inputs"]) == [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]
    back = Signature.from_mlflow(document)
    assert back.names == ("x0", "x1", "x2")
    assert back.positional


@pytest.mark.parametrize(
    "inputs",
    [
        '[{"type": "array", "name": "x", "required": true}]',
        '[{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 8, 8]}}]',
    ],
)
def test_what_is_no_flat_table_has_no_signature(inputs):
    assert Signature.from_mlflow({"inputs": inputs}) is None


@pytest.mark.parametrize("text", ["{", "[1"])
def test_a_damaged_mlflow_signature_is_refused(text):
    with pytest.raises(Invalid, match="not JSON"):
        Signature.from_mlflow({"inputs": text})


def test_many_levels_are_free_text():
    words = {"word": [f"w{i}" for i in range(101)]}
    assert infer_signature(words).inputs[0].levels is None


def test_a_column_of_lists_is_refused_by_name():
    with pytest.raises(Invalid, match="'bag' holds values of list"):
        infer_signature({"bag": [[1], [2]]})


def test_an_empty_table_is_refused():
    with pytest.raises(Invalid, match="at least one column and one row"):
        infer_signature({"a": []})


def test_every_kind_of_table_gives_the_same_columns():
    data = {"n": [1, 2, 3], "x": [0.5, None, 1.5], "s": ["a", None, "c"], "b": [True, False, True]}
    tables = [data, pd.DataFrame(data), pl.DataFrame(data), pa.table(data)]
    for table in tables:
        columns = to_columns(table)
        assert columns["n"].tolist() == [1, 2, 3]
        np.testing.assert_array_equal(columns["x"], [0.5, np.nan, 1.5])
        assert columns["s"].tolist() == ["a", None, "c"]
        assert columns["b"].tolist() == [True, False, True]


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(Invalid, match="differ in length"):
        to_columns({"a": [1], "b": [1, 2]})


def test_something_else_is_no_table():
    with pytest.raises(Invalid, match="A table is expected"):
        to_columns(7)


def test_the_frame_of_training_is_rebuilt_with_its_dtypes():
    signature = infer_signature(FRAME)
    rebuilt = to_pandas(to_columns(FRAME), signature)
    pd.testing.assert_frame_equal(rebuilt, FRAME)


def test_an_unknown_category_becomes_null_in_the_frame():
    signature = infer_signature(FRAME[["plan"]])
    rebuilt = to_pandas({"plan": np.array([1, 9])}, signature)
    assert rebuilt["plan"].isna().tolist() == [False, True]
    assert rebuilt["plan"].cat.categories.tolist() == [1, 2, 3]

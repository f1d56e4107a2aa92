import math

import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.models import (
    ColumnSpec,
    Decoder,
    MissingColumn,
    NullNotAllowed,
    Signature,
    UnexpectedColumn,
    WrongType,
)

SIGNATURE = Signature(
    (
        ColumnSpec("age", "long"),
        ColumnSpec("income", "double"),
        ColumnSpec("debt", "double", required=False, nullable=True),
        ColumnSpec("member", "boolean"),
        ColumnSpec("city", "string", levels=("Oslo", "Rome")),
        ColumnSpec("since", "datetime", required=False, nullable=True),
    )
)
GOOD = {"age": 31, "income": 2.5, "debt": 1, "member": True, "city": "Oslo", "since": "2024-05-01T10:00:00Z"}


@pytest.fixture
def decoder():
    return Decoder(SIGNATURE)


def test_rows_become_typed_columns(decoder):
    frame = decoder.frame([GOOD, {**GOOD, "debt": None, "since": None}])
    assert frame.rows == 2
    assert frame.warnings == ()
    assert {name: values.dtype.str[1:] for name, values in frame.columns.items()} == {
        "age": "i8",
        "income": "f8",
        "debt": "f8",
        "member": "b1",
        "city": "O",
        "since": "M8[ns]",
    }
    np.testing.assert_array_equal(frame.columns["debt"], [1.0, np.nan])
    assert frame.columns["since"][0] == np.datetime64("2024-05-01T10:00:00")
    assert np.isnat(frame.columns["since"][1])


def test_no_rows_give_empty_columns(decoder):
    frame = decoder.frame([])
    assert frame.rows == 0
    assert all(len(values) == 0 for values in frame.columns.values())


def test_the_remembered_shape_of_a_good_row_lets_no_bad_row_through(decoder):
    decoder.rows([GOOD] * 3)
    with pytest.raises(WrongType):
        decoder.rows([{**GOOD, "income": "2.5"}])
    with pytest.raises(NullNotAllowed):
        decoder.rows([{**GOOD, "income": None}])
    with pytest.raises(UnexpectedColumn):
        decoder.rows([{**GOOD, "extra": 1}])


def test_a_missing_column_names_row_and_the_likely_typo(decoder):
    row = {name: value for name, value in GOOD.items() if name != "income"}
    with pytest.raises(MissingColumn) as caught:
        decoder.rows([GOOD, {**row, "incomme": 2.0}])
    assert caught.value.facts == {"column": "income", "row": 1, "near": "incomme"}
    assert "Did you mean it by 'incomme'?" in str(caught.value)


def test_an_unexpected_column_names_the_nearest(decoder):
    with pytest.raises(UnexpectedColumn, match="Did you mean 'city'") as caught:
        decoder.rows([{**GOOD, "citty": "Oslo"}])
    assert caught.value.facts["column"] == "citty"


def test_ignored_columns_are_dropped(decoder):
    values, _ = decoder.rows([{**GOOD, "customer_id": "c1"}], ignore=("customer_id",))
    assert len(values[0]) == len(SIGNATURE.inputs)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("age", 1.5, "a whole number"),
        ("age", True, "a whole number"),
        ("age", "31", "a whole number"),
        ("income", "2.5", "a number"),
        ("income", True, "a number"),
        ("income", [2.5], "a number"),
        ("member", "yes", "true or false"),
        ("member", 2, "true or false"),
        ("city", 7, "text"),
        ("since", "yesterday", "an ISO 8601 time"),
    ],
)
def test_a_wrong_type_says_row_column_expected_and_got(decoder, column, value, expected):
    with pytest.raises(WrongType) as caught:
        decoder.rows([GOOD, {**GOOD, column: value}])
    facts = caught.value.facts
    assert (facts["row"], facts["column"], facts["expected"]) == (1, column, expected)
    assert facts["got"] == f"{type(value).__name__} {value!r}"
    assert isinstance(caught.value, Invalid)


def test_a_number_too_large_for_its_column_is_a_wrong_type(decoder):
    with pytest.raises(WrongType, match="64-bit"):
        decoder.frame([GOOD, {**GOOD, "age": 2**63}])


@pytest.mark.parametrize("null", [None, math.nan, np.nan, np.float64("nan")])
def test_a_null_where_training_saw_none_is_refused(decoder, null):
    with pytest.raises(NullNotAllowed, match="training saw no null") as caught:
        decoder.frame([GOOD, {**GOOD, "income": null}])
    assert caught.value.facts["column"] == "income"
    assert caught.value.facts["row"] == 1


def test_whole_floats_numpy_scalars_and_zero_one_are_taken_for_what_they_mean(decoder):
    row = {**GOOD, "age": 31.0, "income": np.float32(0.5), "member": 1, "debt": np.int64(3)}
    values, warnings = decoder.rows([row])
    assert values[0][:4] == (31, 0.5, 3, True)
    assert warnings == []


def test_an_unknown_category_is_a_warning(decoder):
    _, warnings = decoder.rows([GOOD, {**GOOD, "city": "Atlantis"}])
    assert [(w.code, w.column, w.row, w.got) for w in warnings] == [("unknown_category", "city", 1, "Atlantis")]


def test_an_absent_optional_column_counts_as_null_and_says_so(decoder):
    row = {name: value for name, value in GOOD.items() if name != "debt"}
    frame = decoder.frame([row])
    assert np.isnan(frame.columns["debt"][0])
    assert [(w.code, w.column) for w in frame.warnings] == [("absent_column", "debt")]


def test_a_row_may_be_a_list_in_signature_order(decoder):
    listed, _ = decoder.rows([list(GOOD.values())])
    named, _ = decoder.rows([GOOD])
    assert listed == named
    with pytest.raises(Invalid, match="5 values for 6 columns"):
        decoder.rows([list(GOOD.values())[:5]])


@pytest.mark.parametrize("row", [7, "text", None])
def test_a_row_that_is_neither_is_refused(decoder, row):
    with pytest.raises(WrongType, match="an object or a list"):
        decoder.rows([row])


def test_columns_are_checked_like_rows(decoder):
    columns = {name: [value, value] for name, value in GOOD.items()}
    assert decoder.frame(columns).rows == 2
    with pytest.raises(WrongType) as caught:
        decoder.frame({**columns, "income": [1.0, "x"]})
    assert caught.value.facts["row"] == 1
    with pytest.raises(NullNotAllowed):
        decoder.frame({**columns, "income": np.array([1.0, np.nan])})
    with pytest.raises(MissingColumn):
        decoder.frame({name: values for name, values in columns.items() if name != "age"})
    with pytest.raises(UnexpectedColumn):
        decoder.frame({**columns, "agee": [1, 2]})


def test_one_column_alone_works():
    decoder = Decoder(Signature((ColumnSpec("x", "double"),)))
    assert decoder.frame([{"x": 1.0}, {"x": 2.0}]).columns["x"].tolist() == [1.0, 2.0]


def test_random_types_cannot_fill_the_memory_of_good_shapes():
    names = [f"c{i}" for i in range(16)]
    decoder = Decoder(Signature(tuple(ColumnSpec(name, "double") for name in names)))
    for bits in range(6000):
        decoder.rows([{name: 1 if bits >> i & 1 else 1.0 for i, name in enumerate(names)}])
    assert len(decoder._good) == 4096

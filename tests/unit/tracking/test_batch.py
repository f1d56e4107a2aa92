"""Batches: their text form, their summaries, and delivery in halves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import Invalid, Unavailable
from modelyard.tracking import Artifact, Batch, DatasetInput, Ending, Points, Start, decode, encode
from modelyard.tracking.batch import as_number
from modelyard.tracking.delivery import deliver
from modelyard.tracking.summary import from_us, merge, summarise, to_us

_VALUES = st.floats(allow_nan=True)
_ROWS = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 5), _VALUES), min_size=1, max_size=12)


def _points(rows):
    return Points(*[list(column) for column in zip(*rows, strict=True)])


def _same(left, right):
    return left == right or (math.isnan(left) and math.isnan(right))


def test_batch_survives_its_text_form():
    batch = Batch(
        "b",
        "r",
        start=Start("e", "default", "n", 5, "parent"),
        metrics={"m": Points([1, 2], [3, 4], [0.1, -math.inf])},
        params={"a": "ü\n"},
        tags={"t": ""},
        inputs=[DatasetInput("d", "x", tags={"a": "b"})],
        artifacts=[Artifact("a/b", "0" * 64, 3)],
        ending=Ending("failed", 7, "why"),
    )
    assert decode(encode(batch)) == batch
    assert "\n" not in encode(batch)
    nan = decode(encode(Batch("b", "r", metrics={"m": Points([1], [1], [math.nan])})))
    assert math.isnan(nan.metrics["m"].values[0])


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "null", '{"id": 1}', '{"id": "a"}', "[" * 5000, '{"id":"a","run_id":"b","metrics":3}']
)
def test_what_is_no_batch_is_refused(line):
    with pytest.raises(Invalid):
        decode(line)


@given(_ROWS)
def test_summary_is_that_of_the_points(rows):
    found = summarise("m", _points(rows))
    finite = [value for _, _, value in rows if not math.isnan(value)]
    assert found.count == len(rows)
    assert _same(found.minimum, min(finite, default=math.nan))
    assert _same(found.maximum, max(finite, default=math.nan))
    assert found.last_step == max(row[0] for row in rows)
    latest = max((row[0], row[1]) for row in rows)
    assert to_us(found.last_at) == latest[1]
    assert any(_same(found.last, row[2]) for row in rows if row[:2] == latest)


@given(_ROWS, _ROWS)
def test_merging_summaries_is_summarising_all_points(first, second):
    merged = merge(merge(None, summarise("m", _points(first))), summarise("m", _points(second)))
    whole = summarise("m", _points(first + second))
    for name in ("count", "last_step", "last_at"):
        assert getattr(merged, name) == getattr(whole, name)
    for name in ("last", "minimum", "maximum"):
        assert _same(getattr(merged, name), getattr(whole, name))


def test_times_outside_the_calendar_do_not_raise():
    assert from_us(2**62).year == 9999
    assert from_us(-(2**62)).year == 1
    assert to_us(from_us(123)) == 123


def test_parameters_are_numbers_where_they_can_be():
    assert as_number("0.5") == 0.5
    assert as_number("deep") is None
    assert as_number(None) is None


def test_refused_part_stands_alone_and_the_rest_arrives():
    batch = Batch(
        "b",
        "r",
        start=Start("e", "default", "n", 5),
        params={"good": "1", "bad": "2"},
        tags={"t": "1"},
        metrics={str(n): Points([1], [1], [1.0]) for n in range(20)},
        inputs=[DatasetInput("d", "x")],
        artifacts=[Artifact("a", "0" * 64, 1)],
        ending=Ending("finished", 9),
    )
    arrived, refused = [], []

    def send(part):
        if "bad" in part.params:
            raise Invalid("no")
        arrived.append(part)

    deliver(batch, send, lambda part, error: refused.append((part, error.code)))
    assert [(dict(part.params), code) for part, code in refused] == [({"bad": "2"}, "invalid")]
    assert not refused[0][0].metrics
    assert arrived[0].start == batch.start
    assert arrived[-1].ending == batch.ending
    assert {key for part in arrived for key in part.metrics} == set(batch.metrics)
    assert [tag for part in arrived for tag in part.tags] == ["t"]
    assert len({part.id for part in arrived}) == len(arrived)
    assert sum(len(part.inputs) + len(part.artifacts) for part in arrived) == 2


def test_what_may_come_back_is_not_halved():
    calls = []

    def send(part):
        calls.append(part)
        raise Unavailable("later")

    with pytest.raises(Unavailable):
        deliver(Batch("b", "r", params={"a": "1", "b": "2"}), send, lambda *_: None)
    assert len(calls) == 1

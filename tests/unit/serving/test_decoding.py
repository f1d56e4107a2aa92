import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from modelyard.errors import Invalid
from modelyard.serving.capture import (
    NATIVE,
    OIP,
    Descriptor,
    Record,
    VariantDescription,
    _encode,
    decode_record,
    read_descriptor,
    write_descriptor,
)
from modelyard.serving.decoding import Decoded, event_time_us, feature, table_of
from modelyard.storage.predictions import PREDICTION_SCHEMA

NOW_US = 1_800_000_000_000_000
VARIANTS = (VariantDescription("control", "control", "m", 3), VariantDescription("next", "canary", "m", 4))


def descriptor(**given):
    fields = {
        "endpoint": "churn",
        "project": "default",
        "entity_key": "k",
        "time_column": "at",
        "redact": (),
        "variants": VARIANTS,
        "columns": (("a", "double"), ("n", "long"), ("s", "string"), ("b", "boolean"), ("d", "datetime")),
        "order": ("a", "n", "s", "b", "d"),
    }
    return Descriptor(**{**fields, **given})


def record(body, count=1, **given):
    fields = {
        "descriptor": b"d" * 16,
        "protocol": NATIVE,
        "request_id": "r",
        "time_us": NOW_US,
        "latency_us": 70,
        "body": body if isinstance(body, bytes) else json.dumps(body).encode(),
        "ids": [f"p{i}" for i in range(count)],
        "variants": [0] * count,
        "scores": [0.5] * count,
    }
    return Record(**{**fields, **given})


def one(*records, **given):
    return table_of(records, descriptor(**given)).to_pylist()


FULL = {"a": 0.5, "n": 2, "s": "x", "b": True, "d": "2026-01-02T03:04:05", "k": 7, "at": "2026-05-06T00:00:00+02:00"}


def test_a_row_has_every_column():
    table = table_of([record(FULL, variants=[1], labels=["yes"])], descriptor())
    assert table.schema.names == [*PREDICTION_SCHEMA.names, "f.a", "f.n", "f.s", "f.b", "f.d"]
    assert table.schema.field("f.n").type == pa.int64()
    assert table.to_pylist() == [
        {
            "prediction_id": "p0",
            "request_id": "r",
            "project": "default",
            "endpoint": "churn",
            "model": "m",
            "version": 4,
            "variant": "next",
            "role": "canary",
            "time": datetime(2026, 5, 5, 22, tzinfo=UTC),
            "recorded_at": datetime.fromtimestamp(NOW_US / 1e6, UTC),
            "entity_key": "7",
            "score": 0.5,
            "answer": '{"score":0.5,"label":"yes"}',
            "label": "yes",
            "latency_us": 70,
            "status": "ok",
            "warnings": None,
            "f.a": 0.5,
            "f.n": 2,
            "f.s": "x",
            "f.b": True,
            "f.d": datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 - a signature's times have no zone
        }
    ]


def test_lists_get_their_names_and_tensors_too():
    rows = one(record([[1, 2, "x", False, None], [3, 4, "y", True, None]], 2))
    assert [(row["f.a"], row["f.n"], row["f.s"]) for row in rows] == [(1.0, 2, "x"), (3.0, 4, "y")]
    tensors = [
        {"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]},
        {"name": "k", "shape": [2], "datatype": "BYTES", "data": ["u", "v"]},
    ]
    found = table_of(
        [record({"inputs": tensors}, 2, protocol=OIP)],
        descriptor(columns=(("a", "double"), ("n", "double")), order=("a", "n")),
    ).to_pylist()
    assert [(row["f.a"], row["f.n"], row["entity_key"]) for row in found] == [(1.0, 2.0, "u"), (3.0, 4.0, "v")]


def test_a_copy_is_about_its_rows_only():
    body = {"rows": [{"a": float(i), "k": f"c{i}"} for i in range(5)]}
    rows = one(record(body, 2, rows=[1, 4], variants=[1, 1]))
    assert [(row["f.a"], row["entity_key"]) for row in rows] == [(1.0, "c1"), (4.0, "c4")]


def test_failed_rows_have_no_answer():
    rows = one(record({"rows": [FULL, FULL]}, 2, statuses=["ok", "model_failed"], scores=[0.5, None]))
    assert [(row["status"], row["score"], row["answer"] is None) for row in rows] == [
        ("ok", 0.5, False),
        ("model_failed", None, True),
    ]


@pytest.mark.parametrize(("label", "text"), [("a", "a"), (1, "1"), (True, "true"), (1.5, "1.5")])
def test_labels_are_text(label, text):
    assert one(record(FULL, labels=[label]))[0]["label"] == text


def test_several_outputs_stand_in_the_answer():
    row = one(record(FULL, scores=[None], outputs=[[0.2, 0.8]], labels=["b"]))[0]
    assert (row["score"], json.loads(row["answer"])) == (None, {"outputs": [0.2, 0.8], "label": "b"})


def test_a_version_that_the_client_chose_is_no_random_sample():
    assert one(record(FULL, pinned=True, variants=[1]))[0]["role"] == "pinned"


@pytest.mark.parametrize("value", [None, "yesterday", True, [], "0000-00-00", 1e300])
def test_an_event_time_that_cannot_be_read_is_the_wall_clock_with_a_warning(value):
    row = one(record({**FULL, "at": value}, warnings=[[{"code": "unknown_category"}]]))[0]
    assert row["time"] == row["recorded_at"]
    assert [item["code"] for item in json.loads(row["warnings"])] == ["unknown_category", "event_time"]


def test_redacted_columns_are_empty():
    row = one(record(FULL), redact=("a", "k", "at"))[0]
    assert (row["f.a"], row["entity_key"], row["time"], row["warnings"]) == (None, None, row["recorded_at"], None)


def test_a_body_that_cannot_be_read_again_still_gives_its_rows():
    rows = one(record(b"{", 2))
    assert [(row["prediction_id"], row["f.a"]) for row in rows] == [("p0", None), ("p1", None)]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("double", [1, 0.5, None], [1.0, 0.5, None]),
        ("double", [2**60, True, "x", 10**400], [float(2**60), None, None, None]),
        ("long", [1, None], [1, None]),
        ("long", [1.0, 1.5, 2**63, "1", float("inf")], [1, None, None, None, None]),
        ("string", ["a", 1], ["a", None]),
        ("boolean", [True, 1, 0.0, 2, "x"], [True, True, False, None, None]),
        ("datetime", ["2026-01-01", 7, "x"], [datetime(2026, 1, 1), None, None]),  # noqa: DTZ001
    ],
)
def test_values_that_do_not_fit_their_column_become_null(kind, values, expected):
    assert feature(values, kind).to_pylist() == expected


def test_milliseconds_are_told_from_seconds():
    assert event_time_us(1_800_000_000) == event_time_us(1_800_000_000_000) == NOW_US
    assert event_time_us(-5) == -5_000_000


def test_records_survive_their_encoding():
    given = record(FULL, labels=[True], statuses=["ok"], warnings=[[{"code": "c", "got": 1}]], rows=[0], pinned=True)
    assert decode_record(_encode(given)) == given
    with pytest.raises(Invalid):
        decode_record(b"\x93\x01")


def test_a_descriptor_is_written_once_and_found_by_its_digest(tmp_path):
    digest = write_descriptor(tmp_path, descriptor())
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    assert write_descriptor(tmp_path, descriptor()) == digest
    assert path.stat().st_mtime_ns == before
    assert read_descriptor(tmp_path, digest) == descriptor()
    with pytest.raises(Invalid, match="descriptor"):
        read_descriptor(tmp_path, b"x" * 16)


def test_unreadable_records_are_counted_and_the_rest_kept(tmp_path, caplog):
    digest = write_descriptor(tmp_path, descriptor())
    good, orphan = record(FULL, descriptor=digest), record(FULL, descriptor=b"x" * 16)
    payloads = [_encode(good), b"garbage", _encode(orphan), _encode(good)]
    decoded = Decoded(payloads, lambda d: read_descriptor(tmp_path, d))
    assert (decoded.unreadable, [table.num_rows for table in decoded.tables]) == (2, [2])
    assert "lost" in caplog.text

"""Sealing and retention leave one event each, with the digests of the files concerned."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from modelyard.errors import Unavailable
from modelyard.events import EventLog, EventTimeClock
from modelyard.serving.upkeep import LogUpkeep
from modelyard.storage.predictions import PredictionStore

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def _rows(count):
    return pa.table(
        {
            "prediction_id": [f"01{n:024d}" for n in range(count)],
            "request_id": ["r"] * count,
            "project": ["default"] * count,
            "endpoint": ["churn"] * count,
            "model": ["churn"] * count,
            "version": pa.array([1] * count, pa.int32()),
            "variant": ["control"] * count,
            "role": ["control"] * count,
            "time": pa.array([AT] * count, pa.timestamp("us", tz="UTC")),
            "recorded_at": pa.array([AT] * count, pa.timestamp("us", tz="UTC")),
            "entity_key": pa.array([None] * count, pa.string()),
            "score": [0.5] * count,
            "answer": ["0.5"] * count,
            "label": pa.array([None] * count, pa.string()),
            "latency_us": pa.array([1] * count, pa.int32()),
            "status": ["ok"] * count,
            "warnings": pa.array([None] * count, pa.string()),
            "f.x": [1.0] * count,
        }
    )


@pytest.fixture
def kept(database, tmp_path):
    predictions = PredictionStore(database, tmp_path / "predictions", now=lambda: AT)
    with database.transaction() as tx:
        predictions.write(tx, _rows(10))
    clock, log = EventTimeClock(AT), EventLog(database)
    # What was written by the wall clock of 2026 is hours old for a store that lives in 2100.
    later = PredictionStore(database, tmp_path / "predictions", now=lambda: LATER)
    return LogUpkeep(later, log, clock, keep=timedelta(days=30)), log, clock, later


def test_a_sealed_batch_is_one_event_with_digests(kept):
    upkeep, log, _, _ = kept
    assert upkeep.seal() == 1
    assert upkeep.seal() == 0
    (row,) = log.read()
    assert (row.event.kind, row.event.subject, row.event.data["rows"]) == ("predictions.sealed", "endpoint:churn", 10)
    (file,) = row.event.after["files"]
    assert len(file["sha256"]) == 64


def test_retention_counts_event_time(kept):
    upkeep, log, clock, predictions = kept
    upkeep.seal()
    clock.advance(AT + timedelta(days=29))
    assert upkeep.retain() == 0
    clock.advance(AT + timedelta(days=31))
    assert upkeep.retain() == 1
    assert log.read()[-1].event.kind == "predictions.retired"
    assert predictions.count("churn") == 0


def test_lost_files_are_said_aloud(kept, tmp_path):
    upkeep, _, _, predictions = kept
    upkeep.seal()
    upkeep.sweep()
    (file,) = predictions.files("churn")
    predictions.path(file).unlink()
    with pytest.raises(Unavailable, match="1 files of the prediction log are gone"):
        upkeep.sweep()

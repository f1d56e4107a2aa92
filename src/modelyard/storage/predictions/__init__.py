"""The inference log: append files that outlive the process, Parquet files that outlive the append files.

``AppendWriter`` and ``AppendReader`` need nothing but the standard library, so a serving worker can write
without loading Arrow; everything else is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelyard.storage.predictions.append import AppendWriter
from modelyard.storage.predictions.reader import AppendReader
from modelyard.storage.predictions.segment import START, Position

if TYPE_CHECKING:
    from modelyard.storage.predictions.manifest import Advance, StoredFile
    from modelyard.storage.predictions.schema import FEATURE_PREFIX, PREDICTION_SCHEMA
    from modelyard.storage.predictions.sealing import FileChange
    from modelyard.storage.predictions.store import PredictionStore, Record
    from modelyard.storage.predictions.sweeping import SweepReport

_HOMES = {
    "Advance": "manifest",
    "FEATURE_PREFIX": "schema",
    "FileChange": "sealing",
    "PREDICTION_SCHEMA": "schema",
    "PredictionStore": "store",
    "Record": "store",
    "StoredFile": "manifest",
    "SweepReport": "sweeping",
}

__all__ = [
    "FEATURE_PREFIX",
    "PREDICTION_SCHEMA",
    "START",
    "Advance",
    "AppendReader",
    "AppendWriter",
    "FileChange",
    "Position",
    "PredictionStore",
    "Record",
    "StoredFile",
    "SweepReport",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Tracking: experiments, runs, parameters, metrics, dataset inputs and artifacts.

``Tracking`` is the service; ``RunRecorder`` is what training code logs through; ``capture`` records unasked.
"""

from modelyard.tracking.batch import Batch, Ending, Points, Start, decode, encode
from modelyard.tracking.keys import check_text, clean_name, relative_key
from modelyard.tracking.model import (
    Artifact,
    ArtifactEntry,
    DatasetInput,
    Experiment,
    LifecycleStage,
    MetricPoint,
    MetricSummary,
    ParameterChanged,
    Run,
    RunData,
    RunPage,
    RunStatus,
)
from modelyard.tracking.recorder import Flushed, RunRecorder
from modelyard.tracking.service import Tracking, default_name
from modelyard.tracking.spool import Replayed, replay_folder
from modelyard.tracking.transport import Transport

__all__ = [
    "Artifact",
    "ArtifactEntry",
    "Batch",
    "DatasetInput",
    "Ending",
    "Experiment",
    "Flushed",
    "LifecycleStage",
    "MetricPoint",
    "MetricSummary",
    "ParameterChanged",
    "Points",
    "Replayed",
    "Run",
    "RunData",
    "RunPage",
    "RunRecorder",
    "RunStatus",
    "Start",
    "Tracking",
    "Transport",
    "check_text",
    "clean_name",
    "decode",
    "default_name",
    "encode",
    "relative_key",
    "replay_folder",
]

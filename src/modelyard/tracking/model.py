"""What tracking records: experiments, runs, metric summaries, dataset inputs and artifacts.

The words and limits are MLflow's where it has them, so that its protocol is a translation and not a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from modelyard.errors import Conflict

RunStatus = Literal["scheduled", "running", "finished", "failed", "killed"]
LifecycleStage = Literal["active", "deleted"]
ENDED: frozenset[RunStatus] = frozenset({"finished", "failed", "killed"})
STATUSES: frozenset[RunStatus] = ENDED | {"scheduled", "running"}

# Limits of mlflow 3.17.2, utils/validation.py and store/*/__init__.py.
MAX_BATCH_METRICS = 1000
MAX_BATCH_PARAMS = 100
MAX_BATCH_TAGS = 100
MAX_BATCH_ENTITIES = 1000
MAX_ENTITY_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_RUN_TAG_VALUE = 8000
MAX_EXPERIMENT_NAME = 500
MAX_EXPERIMENT_TAG_VALUE = 20_000
MAX_DATASET_NAME = 500
MAX_DATASET_SCHEMA = 1 << 20
MAX_DATASET_PROFILE = 16 << 20
MAX_PAGE = 50_000
MAX_HISTORY_PAGE = 25_000
# MLflow's digest is at most 36 characters; ours is a SHA-256 in hex.
MAX_DATASET_DIGEST = 64
# No limit of MLflow's: a run name is a tag there, an error text is ours.
MAX_RUN_NAME = 500
MAX_ERROR = 16_000


class ParameterChanged(Conflict):
    """A parameter was logged again with another value."""

    code = "parameter_changed"

    def __init__(self, run_id: str, key: str, *, before: str, after: str) -> None:
        super().__init__(
            f"Parameter {key!r} of run {run_id} is {before!r} and cannot become {after!r}: parameters are "
            "written once. Use a tag or a metric for a value that changes.",
            run_id=run_id,
            key=key,
        )


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs.

    Attributes:
        id: Unique id; ``"0"`` is the first project's ``Default``.
        lifecycle_stage: ``deleted`` experiments are in the bin and keep their name.
    """

    id: str
    project: str
    name: str
    lifecycle_stage: LifecycleStage
    created_by: str
    created_at: datetime
    updated_at: datetime
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of training or evaluation code.

    Attributes:
        parent_id: The run that this one is nested in, if any.
        error: Why it failed or was killed; None otherwise.
    """

    id: str
    project: str
    experiment_id: str
    name: str
    status: RunStatus
    lifecycle_stage: LifecycleStage
    created_by: str
    started_at: datetime
    ended_at: datetime | None
    updated_at: datetime
    parent_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """What is known of a metric without reading its history.

    Attributes:
        count: Points logged.
        last: Value of the point with the greatest (step, time, value); may be NaN or infinite.
        minimum: Smallest value; NaN only if every value is NaN.
        maximum: Largest value; NaN only if every value is NaN.
    """

    key: str
    count: int
    last: float
    last_step: int
    last_at: datetime
    minimum: float
    minimum_step: int
    maximum: float
    maximum_step: int


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One point of a metric's history."""

    step: int
    at: datetime
    value: float


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """Data that a run has read.

    Attributes:
        digest: Content digest; equal content gives an equal digest whatever the order of its rows.
        context: What it was used for: ``training``, ``evaluation``, any word, or empty.
        source_type: Kind of source (``local``, ``s3``, ``code``, …), as MLflow has it.
        source: Description of the source, text or JSON; never opened by the server.
        schema: Columns and types, JSON text.
        profile: MLflow's free summary, JSON text.
        profile_digest: Object that holds the statistical profile, if there is one.
    """

    name: str
    digest: str
    context: str = ""
    source_type: str = "code"
    source: str = ""
    schema: str | None = None
    profile: str | None = None
    profile_digest: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run: a relative key and the content's digest.

    Attributes:
        path: Relative key with ``/`` between segments.
        digest: Hex SHA-256 of the bytes in the object store.
    """

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArtifactEntry:
    """An entry of a listed folder; ``artifact`` is None for a folder."""

    path: str
    artifact: Artifact | None = None


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run has logged, without histories."""

    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, MetricSummary] = field(default_factory=dict)
    inputs: tuple[DatasetInput, ...] = ()


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of runs, newest first; ``cursor`` continues after it, None at the end."""

    runs: tuple[Run, ...]
    cursor: str | None


def facts(run: Run) -> dict[str, Any]:
    """Return the fields of a run that an event carries."""
    return {"status": run.status, "lifecycle_stage": run.lifecycle_stage, "name": run.name, "error": run.error}

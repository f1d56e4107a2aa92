"""A batch: what a run has to say, in one piece that is applied once however often it arrives.

The same form is queued in the training process, spooled as one JSON line, sent over HTTP and applied by the
service. Its id makes it idempotent; everything in it, the run's start and end included, shares that id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from modelyard.errors import Invalid, TooLarge
from modelyard.tracking import model
from modelyard.tracking.keys import check_text, clean_name, relative_key
from modelyard.tracking.model import Artifact, DatasetInput, RunStatus

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Points:
    """Points of one metric, three columns of equal length.

    Attributes:
        steps: Training steps, int64.
        times_us: Microseconds since 1970, int64.
        values: Values; NaN and infinities are kept.
    """

    steps: list[int]
    times_us: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Start:
    """The beginning of a run, when it is created by the batch that brings its first data."""

    experiment: str
    project: str
    name: str
    started_us: int
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a run: ``finished``, ``failed`` or ``killed``."""

    status: RunStatus
    ended_us: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that is applied in one transaction, once.

    Attributes:
        id: Chosen by the client; the same id for the same run is applied once.
        artifacts: Files whose bytes are already in the object store.
    """

    id: str
    run_id: str
    start: Start | None = None
    metrics: dict[str, Points] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    inputs: list[DatasetInput] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    ending: Ending | None = None


def encode(batch: Batch) -> str:
    """Return the batch as one line of JSON; NaN and infinities are written as Python's ``json`` writes them."""
    return json.dumps(msgspec.to_builtins(batch), separators=(",", ":"))


def decode(line: str | bytes) -> Batch:
    """Read what ``encode`` wrote.

    Raises:
        Invalid: If the text is not JSON or not a batch.
    """
    try:
        return msgspec.convert(json.loads(line), Batch)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise Invalid(f"This is not a batch of run data: {error}") from error


def check(batch: Batch) -> Batch:
    """Return the batch if all its names, values and counts are within the limits.

    Raises:
        Invalid: If a name or number cannot be stored.
        TooLarge: If a limit is exceeded.
    """
    clean_name("batch id", batch.id, limit=model.MAX_ENTITY_KEY)
    clean_name("run id", batch.run_id, limit=64)
    points = sum(len(series.steps) for series in batch.metrics.values())
    _at_most("metric points", points, model.MAX_BATCH_METRICS)
    _at_most("parameters", len(batch.params), model.MAX_BATCH_PARAMS)
    _at_most("tags", len(batch.tags), model.MAX_BATCH_TAGS)
    entities = points + len(batch.params) + len(batch.tags)
    _at_most("entities", entities, model.MAX_BATCH_ENTITIES)
    for key, series in batch.metrics.items():
        clean_name("metric name", key, limit=model.MAX_ENTITY_KEY)
        _check_points(key, series)
    _check_texts("parameter", batch.params, limit=model.MAX_PARAM_VALUE)
    _check_texts("tag", batch.tags, limit=model.MAX_RUN_TAG_VALUE)
    for dataset in batch.inputs:
        check_dataset(dataset)
    for artifact in batch.artifacts:
        relative_key(artifact.path)
    if batch.start is not None:
        clean_name("experiment name", batch.start.experiment, limit=model.MAX_EXPERIMENT_NAME)
        clean_name("run name", batch.start.name, limit=model.MAX_RUN_NAME)
    if batch.ending is not None and batch.ending.status not in model.ENDED:
        raise Invalid(f"A run ends finished, failed or killed, not {batch.ending.status!r}.")
    return batch


def check_dataset(dataset: DatasetInput) -> DatasetInput:
    """Return the dataset if its fields are within the limits, which it raises otherwise."""
    clean_name("dataset name", dataset.name, limit=model.MAX_DATASET_NAME)
    clean_name("dataset digest", dataset.digest, limit=model.MAX_DATASET_DIGEST)
    check_text("dataset context", dataset.context, limit=model.MAX_ENTITY_KEY)
    check_text("dataset source type", dataset.source_type, limit=model.MAX_ENTITY_KEY)
    check_text("dataset source", dataset.source, limit=model.MAX_DATASET_SCHEMA)
    check_text("dataset schema", dataset.schema or "", limit=model.MAX_DATASET_SCHEMA)
    check_text("dataset profile", dataset.profile or "", limit=model.MAX_DATASET_PROFILE)
    _check_texts("dataset tag", dataset.tags, limit=model.MAX_RUN_TAG_VALUE)
    return dataset


def _check_points(key: str, points: Points) -> None:
    lengths = {len(points.steps), len(points.times_us), len(points.values)}
    if len(lengths) != 1 or 0 in lengths:
        raise Invalid(f"Metric {key!r} needs steps, times and values of one length above 0.", key=key)
    if not all(map(_is_int64, [*points.steps, *points.times_us])):
        raise Invalid(f"Metric {key!r} has a step or time that is not a 64-bit integer.", key=key)


def _is_int64(number: object) -> bool:
    return isinstance(number, int) and _INT64_MIN <= number <= _INT64_MAX


def _check_texts(kind: str, texts: Mapping[str, str], *, limit: int) -> None:
    for key, value in texts.items():
        clean_name(f"{kind} name", key, limit=model.MAX_ENTITY_KEY)
        check_text(f"value of {kind} {key!r}", value, limit=limit)


def _at_most(items: str, size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge("A batch", size=size, limit=limit, unit=items)


def as_number(value: Any) -> float | None:
    """Return a parameter's value as a float, for numeric search, or None if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None

"""Tables and queries of tracking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from modelyard.storage import Json, Transaction, UtcTime, metadata
from modelyard.tracking import model
from modelyard.tracking.batch import as_number
from modelyard.tracking.model import Artifact, DatasetInput, Experiment, MetricSummary, Run, RunData

_ID = sa.String(64)
_KEY = sa.String(model.MAX_ENTITY_KEY)

experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("project", sa.String(250), nullable=False),
    sa.Column("name", sa.String(model.MAX_EXPERIMENT_NAME), nullable=False),
    sa.Column("lifecycle_stage", sa.String(16), nullable=False),
    sa.Column("created_by", sa.String(250), nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.UniqueConstraint("project", "name"),
)
experiment_tags = sa.Table(
    "experiment_tags",
    metadata,
    sa.Column("experiment_id", _ID, sa.ForeignKey("experiments.id"), primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("project", sa.String(250), nullable=False),
    sa.Column("experiment_id", _ID, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("name", sa.String(model.MAX_RUN_NAME), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("lifecycle_stage", sa.String(16), nullable=False),
    sa.Column("created_by", sa.String(250), nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("parent_id", _ID),
    sa.Column("error", sa.Text),
    sa.Index("ix_runs_newest", "project", "lifecycle_stage", "started_at", "id"),
    sa.Index("ix_runs_newest_of_experiment", "experiment_id", "lifecycle_stage", "started_at", "id"),
    sa.Index("ix_runs_parent", "parent_id"),
)
params = sa.Table(
    "run_params",
    metadata,
    sa.Column("run_id", _ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("number", sa.Double),
    sa.Index("ix_run_params_number", "key", "number", "run_id"),
)
tags = sa.Table(
    "run_tags",
    metadata,
    sa.Column("run_id", _ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
# NaN is stored as NULL: SQLite has no NaN, and no comparison with NULL or NaN is true.
metrics = sa.Table(
    "run_metrics",
    metadata,
    sa.Column("run_id", _ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("last", sa.Double),
    sa.Column("last_step", sa.BigInteger, nullable=False),
    sa.Column("last_at", UtcTime, nullable=False),
    sa.Column("minimum", sa.Double),
    sa.Column("minimum_step", sa.BigInteger, nullable=False),
    sa.Column("maximum", sa.Double),
    sa.Column("maximum_step", sa.BigInteger, nullable=False),
    sa.Index("ix_run_metrics_last", "key", "last", "run_id"),
)
batches = sa.Table(
    "run_batches",
    metadata,
    sa.Column("run_id", _ID, primary_key=True),
    sa.Column("batch_id", _KEY, primary_key=True),
)
datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("project", sa.String(250), nullable=False),
    sa.Column("name", sa.String(model.MAX_DATASET_NAME), nullable=False),
    sa.Column("digest", sa.String(model.MAX_DATASET_DIGEST), nullable=False),
    sa.Column("source_type", sa.String(250), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("schema", sa.Text),
    sa.Column("profile", sa.Text),
    sa.Column("profile_digest", sa.String(64)),
    sa.UniqueConstraint("project", "name", "digest"),
    sa.Index("ix_datasets_digest", "digest"),
)
dataset_inputs = sa.Table(
    "run_inputs",
    metadata,
    sa.Column("run_id", _ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("dataset_id", _ID, sa.ForeignKey("datasets.id"), primary_key=True),
    sa.Column("context", sa.String(250), primary_key=True),
    sa.Column("tags", Json, nullable=False),
    sa.Index("ix_run_inputs_dataset_id", "dataset_id"),
)
artifacts = sa.Table(
    "run_artifacts",
    metadata,
    sa.Column("run_id", _ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("path", sa.String(1000), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Index("ix_run_artifacts_digest", "digest"),
)


def experiment_of(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Experiment | None:
    """Return the one experiment that the condition names, with its tags."""
    row = connection.execute(sa.select(experiments).where(where)).one_or_none()
    return None if row is None else _experiments(connection, [row])[0]


def experiment_page(
    connection: sa.Connection, *, project: str, stage: str | None, after: str, limit: int
) -> list[Experiment]:
    """Return experiments in the order of their names, after a name."""
    query = sa.select(experiments).where(experiments.c.project == project, experiments.c.name > after)
    if stage is not None:
        query = query.where(experiments.c.lifecycle_stage == stage)
    rows = connection.execute(query.order_by(experiments.c.name).limit(limit)).all()
    return _experiments(connection, rows)


def _experiments(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[Experiment]:
    found = _texts(connection, experiment_tags, experiment_tags.c.experiment_id, [row.id for row in rows])
    return [Experiment(**row._mapping, tags=found.get(row.id, {})) for row in rows]


def run_of(connection: sa.Connection, run_id: str, *, lock: bool = False) -> Run | None:
    """Return a run, holding its row until the end of the transaction if asked."""
    query = sa.select(runs).where(runs.c.id == run_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else Run(**row._mapping)


def run_page(
    connection: sa.Connection,
    *,
    conditions: Iterable[sa.ColumnElement[bool]],
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Run]:
    """Return runs newest first, those before a (start, id) pair."""
    query = sa.select(runs).where(*conditions)
    if before is not None:
        # Bound by the start alone first: SQLite and PostgreSQL both seek the index on it.
        at, run_id = before
        query = query.where(runs.c.started_at <= at, sa.or_(runs.c.started_at < at, runs.c.id < run_id))
    query = query.order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
    return [Run(**row._mapping) for row in connection.execute(query)]


def set_run(tx: Transaction, run_id: str, **values: Any) -> None:
    """Overwrite columns of a run."""
    tx.execute(sa.update(runs).where(runs.c.id == run_id).values(**values))


def data_of(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, RunData]:
    """Return what each of these runs has logged, in a fixed number of queries."""
    found_params = _texts(connection, params, params.c.run_id, run_ids)
    found_tags = _texts(connection, tags, tags.c.run_id, run_ids)
    found_metrics = summaries(connection, metrics.c.run_id.in_(run_ids))
    found_inputs = inputs_of(connection, run_ids)
    return {
        run_id: RunData(
            found_params.get(run_id, {}),
            found_tags.get(run_id, {}),
            found_metrics.get(run_id, {}),
            tuple(found_inputs.get(run_id, ())),
        )
        for run_id in run_ids
    }


def params_of(connection: sa.Connection, run_id: str, keys: Iterable[str]) -> dict[str, str]:
    """Return those of the parameters that the run has."""
    query = sa.select(params.c.key, params.c.value).where(params.c.run_id == run_id, params.c.key.in_(keys))
    return {row.key: row.value for row in connection.execute(query)}


def add_params(tx: Transaction, run_id: str, values: Mapping[str, str]) -> None:
    """Insert parameters that the run does not have yet."""
    rows = [{"run_id": run_id, "key": key, "value": value, "number": as_number(value)} for key, value in values.items()]
    if rows:
        tx.execute(sa.insert(params), rows)


def set_tags(tx: Transaction, run_id: str, values: Mapping[str, str]) -> None:
    """Write tags, the last value wins."""
    for key, value in values.items():
        tx.upsert(tags, {"run_id": run_id, "key": key, "value": value})


def summaries(connection: sa.Connection, where: sa.ColumnElement[bool]) -> dict[str, dict[str, MetricSummary]]:
    """Return metric summaries by run and key."""
    found: dict[str, dict[str, MetricSummary]] = {}
    for row in connection.execute(sa.select(metrics).where(where)):
        values = dict(row._mapping)
        run_id = values.pop("run_id")
        for name in ("last", "minimum", "maximum"):
            values[name] = math.nan if values[name] is None else values[name]
        found.setdefault(run_id, {})[row.key] = MetricSummary(**values)
    return found


def set_summary(tx: Transaction, run_id: str, summary: MetricSummary) -> None:
    """Write a metric's summary."""
    values: dict[str, Any] = {name: getattr(summary, name) for name in MetricSummary.__slots__}
    for name in ("last", "minimum", "maximum"):
        values[name] = None if math.isnan(values[name]) else values[name]
    tx.upsert(metrics, {"run_id": run_id, **values})


def add_input(tx: Transaction, run: Run, dataset: DatasetInput, *, dataset_id: str) -> None:
    """Say that a run has read a dataset, which is stored once per project, name and digest."""
    own = {name: getattr(dataset, name) for name in DatasetInput.__slots__ if name not in {"context", "tags"}}
    tx.insert_if_absent(datasets, {"id": dataset_id, "project": run.project, **own})
    key = (datasets.c.project, datasets.c.name, datasets.c.digest)
    stored = tx.execute(
        sa.select(datasets.c.id).where(sa.tuple_(*key) == sa.tuple_(run.project, dataset.name, dataset.digest))
    ).scalar_one()
    row = {"run_id": run.id, "dataset_id": stored, "context": dataset.context, "tags": dataset.tags}
    tx.upsert(dataset_inputs, row)


def inputs_of(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, list[DatasetInput]]:
    """Return the dataset inputs of each run."""
    query = (
        sa.select(dataset_inputs, datasets)
        .join(datasets, datasets.c.id == dataset_inputs.c.dataset_id)
        .where(dataset_inputs.c.run_id.in_(run_ids))
        .order_by(datasets.c.name, dataset_inputs.c.context)
    )
    found: dict[str, list[DatasetInput]] = {}
    for row in connection.execute(query):
        fields = {name: row._mapping[name] for name in DatasetInput.__slots__}
        found.setdefault(row.run_id, []).append(DatasetInput(**fields))
    return found


def artifacts_of(connection: sa.Connection, run_id: str, *, below: str, after: str, limit: int) -> list[Artifact]:
    """Return a run's artifacts whose path starts with ``below``, in the order of their paths."""
    columns = (artifacts.c.path, artifacts.c.digest, artifacts.c.size_bytes)
    query = sa.select(*columns).where(artifacts.c.run_id == run_id, artifacts.c.path > after)
    if below:
        # Not LIKE, which ignores case on SQLite; not a range, which depends on PostgreSQL's collation.
        folder = f"{below}/"
        query = query.where(sa.func.substr(artifacts.c.path, 1, len(folder)) == folder)
    rows = connection.execute(query.order_by(artifacts.c.path).limit(limit))
    return [Artifact(*row) for row in rows]


def artifact_of(connection: sa.Connection, run_id: str, path: str) -> Artifact | None:
    """Return one artifact of a run."""
    columns = (artifacts.c.path, artifacts.c.digest, artifacts.c.size_bytes)
    query = sa.select(*columns).where(artifacts.c.run_id == run_id, artifacts.c.path == path)
    row = connection.execute(query).one_or_none()
    return None if row is None else Artifact(*row)


def set_artifact(tx: Transaction, run_id: str, artifact: Artifact) -> None:
    """Write an artifact, the last one under a path wins."""
    row = {name: getattr(artifact, name) for name in Artifact.__slots__}
    tx.upsert(artifacts, {"run_id": run_id, **row})


def counts(connection: sa.Connection, run_id: str) -> dict[str, int]:
    """Return how much a run has logged of each kind."""
    tables = {"params": params, "tags": tags, "inputs": dataset_inputs, "artifacts": artifacts}
    found = {
        name: int(
            connection.execute(
                sa.select(sa.func.count()).select_from(table).where(table.c.run_id == run_id)
            ).scalar_one()
        )
        for name, table in tables.items()
    }
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(metrics.c.count), 0))
    row = connection.execute(query.where(metrics.c.run_id == run_id)).one()
    return {**found, "metrics": int(row[0]), "points": int(row[1])}


def _texts(
    connection: sa.Connection, table: sa.Table, owner: sa.Column[str], ids: Sequence[str]
) -> dict[str, dict[str, str]]:
    query = sa.select(owner.label("owner"), table.c.key, table.c.value).where(owner.in_(ids))
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute(query.order_by(table.c.key)):
        found.setdefault(row.owner, {})[row.key] = row.value
    return found

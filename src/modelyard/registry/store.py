"""Tables and queries of the registry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from modelyard.registry.model import (
    AliasChange,
    Approval,
    Edge,
    FileRef,
    RegisteredModel,
    StageChange,
    StandingDecision,
    Version,
    VersionId,
    VersionLike,
    Vote,
)
from modelyard.storage import Json, Transaction, UtcTime, metadata

_NAME = sa.String(250)
_DIGEST = sa.String(64)
# SQLite numbers rows by itself only in a column that it calls INTEGER.
_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _model_key() -> list[sa.Column[Any]]:
    return [sa.Column("project", _NAME, primary_key=True), sa.Column("model", _NAME, primary_key=True)]


def _version_key() -> list[sa.Column[Any]]:
    return [*_model_key(), sa.Column("number", sa.Integer, primary_key=True, autoincrement=False)]


models = sa.Table(
    "registered_models",
    metadata,
    sa.Column("project", _NAME, primary_key=True),
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("owner", _NAME, nullable=False),
    sa.Column("last_number", sa.Integer, nullable=False),
    sa.Column("created_by", _NAME, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("deleted_at", UtcTime),
)
model_tags = sa.Table(
    "model_tags",
    metadata,
    *_model_key(),
    sa.Column("key", _NAME, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
versions = sa.Table(
    "model_versions",
    metadata,
    *_version_key(),
    sa.Column("content_digest", _DIGEST, nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("signature", Json),
    sa.Column("lineage", Json, nullable=False),
    sa.Column("run_id", sa.String(64)),
    sa.Column("trained_by", _NAME),
    sa.Column("created_by", _NAME, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("profile_digest", _DIGEST),
    sa.Column("engine", Json),
    sa.Column("deleted_at", UtcTime),
    sa.ForeignKeyConstraint(["project", "model"], ["registered_models.project", "registered_models.name"]),
    # The database itself holds that a model has at most one version in production.
    sa.Index(
        "uq_model_versions_production",
        "project",
        "model",
        unique=True,
        sqlite_where=sa.text("stage = 'production'"),
        postgresql_where=sa.text("stage = 'production'"),
    ),
    sa.Index("ix_model_versions_run_id", "run_id"),
    sa.Index("ix_model_versions_content_digest", "content_digest"),
    sa.Index("ix_model_versions_stage", "project", "stage", "model"),
)
_OF_VERSION = (
    ["project", "model", "number"],
    ["model_versions.project", "model_versions.model", "model_versions.number"],
)
files = sa.Table(
    "version_files",
    metadata,
    *_version_key(),
    sa.Column("path", sa.String(1000), primary_key=True),
    sa.Column("digest", _DIGEST, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(*_OF_VERSION),
    sa.Index("ix_version_files_digest", "digest"),
)
metrics = sa.Table(
    "version_metrics",
    metadata,
    *_version_key(),
    sa.Column("key", _NAME, primary_key=True),
    sa.Column("value", sa.Double),
    sa.ForeignKeyConstraint(*_OF_VERSION),
    sa.Index("ix_version_metrics_value", "key", "value"),
)
version_tags = sa.Table(
    "version_tags",
    metadata,
    *_version_key(),
    sa.Column("key", _NAME, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(*_OF_VERSION),
)
aliases = sa.Table(
    "model_aliases",
    metadata,
    *_model_key(),
    sa.Column("alias", sa.String(255), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
)
alias_changes = sa.Table(
    "model_alias_changes",
    metadata,
    sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("project", _NAME, nullable=False),
    sa.Column("model", _NAME, nullable=False),
    sa.Column("alias", sa.String(255), nullable=False),
    sa.Column("number", sa.Integer),
    sa.Column("actor", _NAME, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Index("ix_model_alias_changes_model", "project", "model", "id"),
)
stage_changes = sa.Table(
    "version_stage_changes",
    metadata,
    sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("project", _NAME, nullable=False),
    sa.Column("model", _NAME, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("before", sa.String(16)),
    sa.Column("after", sa.String(16), nullable=False),
    sa.Column("actor", _NAME, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("via", sa.String(250)),
    sa.Column("evidence", Json),
    sa.Index("ix_version_stage_changes_model", "project", "model", "id"),
)
endpoints = sa.Table(
    "model_endpoints",
    metadata,
    *_model_key(),
    sa.Column("endpoint", _NAME, primary_key=True),
)
rules = sa.Table(
    "promotion_rules",
    metadata,
    *_model_key(),
    sa.Column("stage", sa.String(16), primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("created_by", _NAME, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
)
approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("project", _NAME, nullable=False),
    sa.Column("model", _NAME, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("action", _NAME, nullable=False),
    sa.Column("label", _NAME, nullable=False),
    sa.Column("quorum", sa.Integer, nullable=False),
    sa.Column("content_digest", _DIGEST, nullable=False),
    sa.Column("digest", _DIGEST, nullable=False),
    sa.Column("evidence", Json, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("requested_by", _NAME, nullable=False),
    sa.Column("requested_at", UtcTime, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("expires_at", UtcTime),
    sa.Column("on_timeout", sa.String(16), nullable=False),
    sa.Column("valid_until", UtcTime),
    sa.Column("settled_at", UtcTime),
    sa.ForeignKeyConstraint(*_OF_VERSION),
    sa.Index("ix_approvals_version", "project", "model", "number"),
    sa.Index("ix_approvals_status", "project", "status", "id"),
    sa.Index("ix_approvals_expires_at", "status", "expires_at"),
    sa.Index("ix_approvals_valid_until", "status", "valid_until"),
)
votes = sa.Table(
    "approval_votes",
    metadata,
    sa.Column("approval_id", sa.String(64), sa.ForeignKey("approvals.id"), primary_key=True),
    sa.Column("person", _NAME, primary_key=True),
    sa.Column("granted", sa.Boolean, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
)
decisions = sa.Table(
    "standing_decisions",
    metadata,
    *_version_key(),
    sa.Column("action", _NAME, primary_key=True),
    sa.Column("allowed", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", Json, nullable=False),
    sa.Column("content_digest", _DIGEST, nullable=False),
    sa.Column("decided_by", _NAME, nullable=False),
    sa.Column("decided_at", UtcTime, nullable=False),
    sa.Column("valid_until", UtcTime),
    sa.ForeignKeyConstraint(*_OF_VERSION),
)
# Model "*" stands for every model of the project.
demands = sa.Table(
    "decision_demands",
    metadata,
    *_model_key(),
    sa.Column("action", _NAME, primary_key=True),
    sa.Column("demanded_by", _NAME, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
)
edges = sa.Table(
    "lineage_edges",
    metadata,
    sa.Column("project", _NAME, primary_key=True),
    sa.Column("source", sa.String(600), primary_key=True),
    sa.Column("target", sa.String(600), primary_key=True),
    sa.Column("relation", sa.String(64), primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Index("ix_lineage_edges_target", "project", "target"),
)

_LISTED = [column for column in versions.c if column.name != "deleted_at"]


def of_model(table: sa.Table, project: str, model: str) -> sa.ColumnElement[bool]:
    """Return the condition that a row belongs to a model."""
    return sa.and_(table.c.project == project, table.c.model == model)


def of_version(table: sa.Table, version: VersionLike) -> sa.ColumnElement[bool]:
    """Return the condition that a row belongs to a version."""
    return sa.and_(of_model(table, version.project, version.model), table.c.number == version.number)


def key_of(version: VersionLike) -> dict[str, Any]:
    """Return the key columns of a version."""
    return {"project": version.project, "model": version.model, "number": version.number}


def model_of(connection: sa.Connection, project: str, name: str, *, lock: bool = False) -> RegisteredModel | None:
    """Return a model that is not deleted, holding its row until the end of the transaction if asked."""
    condition = sa.and_(models.c.project == project, models.c.name == name, models.c.deleted_at.is_(None))
    found = _models(connection, sa.select(models).where(condition), lock=lock)
    return found[0] if found else None


def model_page(connection: sa.Connection, project: str, *, after: str, limit: int) -> list[RegisteredModel]:
    """Return models in the order of their names, after a name."""
    condition = sa.and_(models.c.project == project, models.c.name > after, models.c.deleted_at.is_(None))
    return _models(connection, sa.select(models).where(condition).order_by(models.c.name).limit(limit))


def _models(connection: sa.Connection, query: sa.Select[Any], *, lock: bool = False) -> list[RegisteredModel]:
    rows = [dict(row._mapping) for row in connection.execute(query.with_for_update() if lock else query)]
    if not rows:
        return []
    tags: dict[str, dict[str, str]] = {}
    names = [row["name"] for row in rows]
    condition = sa.and_(model_tags.c.project == rows[0]["project"], model_tags.c.model.in_(names))
    for row in connection.execute(sa.select(model_tags).where(condition).order_by(model_tags.c.key)):
        tags.setdefault(row.model, {})[row.key] = row.value
    for each in rows:
        del each["deleted_at"]
    return [RegisteredModel(**row, tags=tags.get(row["name"], {})) for row in rows]


def next_number(tx: Transaction, project: str, model: str, now: Any) -> int:
    """Take the next version number of a model; others wait for the transaction's end."""
    statement = (
        sa.update(models)
        .where(models.c.project == project, models.c.name == model)
        .values(last_number=models.c.last_number + 1, updated_at=now)
        .returning(models.c.last_number)
    )
    return int(tx.execute(statement).scalar_one())


def versions_where(
    connection: sa.Connection,
    *conditions: sa.ColumnElement[bool],
    limit: int,
    lock: bool = False,
    with_files: bool = False,
) -> list[Version]:
    """Return versions that are not deleted, newest first, with metrics, tags and aliases."""
    query = sa.select(*_LISTED).where(versions.c.deleted_at.is_(None), *conditions)
    query = query.order_by(versions.c.model, versions.c.number.desc()).limit(limit)
    if lock:
        query = query.with_for_update()
    rows = [dict(row._mapping) for row in connection.execute(query)]
    if not rows:
        return []
    project = rows[0]["project"]
    numbers = _among(project, rows)
    found_metrics = {
        at: {key: math.nan if value is None else value for key, value in pairs.items()}
        for at, pairs in _pairs(connection, metrics, numbers(metrics)).items()
    }
    found_tags = _pairs(connection, version_tags, numbers(version_tags))
    named: dict[tuple[str, int], list[str]] = {}
    for row in connection.execute(sa.select(aliases).where(numbers(aliases)).order_by(aliases.c.alias)):
        named.setdefault((row.model, row.number), []).append(row.alias)
    result = []
    for each in rows:
        at = (each["model"], each["number"])
        result.append(
            Version(
                **each,
                files=files_of(connection, VersionId(*at, project)) if with_files else (),
                metrics=found_metrics.get(at, {}),
                tags=found_tags.get(at, {}),
                aliases=tuple(named.get(at, ())),
            )
        )
    return result


def _among(project: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    by_model: dict[str, list[int]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row["number"])

    def condition(table: sa.Table) -> sa.ColumnElement[bool]:
        parts = [sa.and_(table.c.model == model, table.c.number.in_(numbers)) for model, numbers in by_model.items()]
        return sa.and_(table.c.project == project, sa.or_(*parts))

    return condition


def _pairs(
    connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]
) -> dict[tuple[str, int], dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in connection.execute(sa.select(table).where(condition).order_by(table.c.key)):
        found.setdefault((row.model, row.number), {})[row.key] = row.value
    return found


def files_of(connection: sa.Connection, version: VersionLike) -> tuple[FileRef, ...]:
    """Return the files of a version, sorted by path as bytes."""
    query = sa.select(files.c.path, files.c.digest, files.c.size_bytes).where(of_version(files, version))
    found = [FileRef(*row) for row in connection.execute(query)]
    return tuple(sorted(found, key=lambda file: file.path))


def pinned(connection: sa.Connection) -> Iterable[str]:
    """Yield every digest that a version refers to, deleted ones included."""
    columns = (files.c.digest, versions.c.profile_digest)
    for column in columns:
        for (digest,) in connection.execute(sa.select(column).where(column.is_not(None)).distinct()):
            yield str(digest)


def set_version(tx: Transaction, version: VersionLike, **values: Any) -> None:
    """Overwrite columns of a version."""
    tx.execute(sa.update(versions).where(of_version(versions, version)).values(**values))


def set_metrics(tx: Transaction, version: VersionLike, values: Mapping[str, float]) -> None:
    """Write metrics of a version; NaN is stored as NULL."""
    for key, value in values.items():
        number = None if math.isnan(value) else float(value)
        tx.upsert(metrics, {**key_of(version), "key": key, "value": number})


def stage_history(connection: sa.Connection, *conditions: sa.ColumnElement[bool], limit: int) -> list[StageChange]:
    """Return moves between stages, newest first by sequence."""
    hidden = {"id", "project"}
    columns = [column for column in stage_changes.c if column.name not in hidden]
    query = sa.select(*columns).where(*conditions).order_by(stage_changes.c.id.desc()).limit(limit)
    return [StageChange(**row._mapping) for row in connection.execute(query)]


def alias_history(connection: sa.Connection, project: str, model: str, *, limit: int) -> list[AliasChange]:
    """Return changes of a model's aliases, newest first."""
    table = alias_changes.c
    query = sa.select(table.alias, table.number, table.actor, table.at)
    query = query.where(of_model(alias_changes, project, model)).order_by(table.id.desc()).limit(limit)
    return [AliasChange(*row) for row in connection.execute(query)]


def approvals_where(
    connection: sa.Connection, *conditions: sa.ColumnElement[bool], limit: int, lock: bool = False
) -> list[Approval]:
    """Return requests for approval with their votes, oldest first."""
    query = sa.select(approvals).where(*conditions).order_by(approvals.c.id).limit(limit)
    rows = [dict(row._mapping) for row in connection.execute(query.with_for_update() if lock else query)]
    cast: dict[str, list[Vote]] = {}
    ids = [row["id"] for row in rows]
    condition = votes.c.approval_id.in_(ids)
    for row in connection.execute(sa.select(votes).where(condition).order_by(votes.c.at, votes.c.person)):
        cast.setdefault(row.approval_id, []).append(Vote(row.person, row.granted, row.at, row.comment))
    return [
        Approval(
            version=VersionId(row.pop("model"), row.pop("number"), row.pop("project")),
            votes=tuple(cast.get(row["id"], ())),
            **row,
        )
        for row in rows
    ]


def decision_of(connection: sa.Connection, version: VersionLike, action: str) -> StandingDecision | None:
    """Return the standing decision on an action, expired or not."""
    query = sa.select(decisions).where(of_version(decisions, version), decisions.c.action == action)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    fields = {key: value for key, value in row._mapping.items() if key not in {"project", "model", "number"}}
    return StandingDecision(version=VersionId(row.model, row.number, row.project), **fields)


def demanded(connection: sa.Connection, project: str, model: str, action: str) -> list[str]:
    """Return who demands a decision before an action."""
    query = sa.select(demands.c.demanded_by).where(
        demands.c.project == project, demands.c.model.in_([model, "*"]), demands.c.action == action
    )
    return [str(row.demanded_by) for row in connection.execute(query)]


def edges_at(connection: sa.Connection, project: str, subjects: Sequence[str], *, end: str, limit: int) -> list[Edge]:
    """Return edges whose ``end`` (``source`` or ``target``) is one of the subjects."""
    columns = (edges.c.source, edges.c.target, edges.c.relation, edges.c.at)
    query = sa.select(*columns).where(edges.c.project == project, edges.c[end].in_(subjects))
    query = query.order_by(edges.c.source, edges.c.target, edges.c.relation).limit(limit)
    return [Edge(*row) for row in connection.execute(query)]

"""Tables and queries of retraining."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from modelyard.retraining.model import Recipe, Release, TriggerDecision, TriggerEvent
from modelyard.storage import Json, Transaction, UtcTime, metadata

_NAME = sa.String(250)
_ID = sa.String(64)
_WORD = sa.String(20)

recipes = sa.Table(
    "recipes",
    metadata,
    sa.Column("project", _NAME, primary_key=True),
    sa.Column("model", _NAME, primary_key=True),
    sa.Column("endpoint", _NAME, nullable=False),
    sa.Column("recipe", Json, nullable=False),
    sa.Column("code_digest", sa.String(64), nullable=False),
    sa.Column("root", sa.Text),
    sa.Column("declared_by", _NAME, nullable=False),
    sa.Column("declared_at", UtcTime, nullable=False),
    # Moments of the schedule up to here are done or were before it was declared.
    sa.Column("scheduled_at", UtcTime, nullable=False),
    sa.Index("ix_recipes_endpoint", "project", "endpoint"),
)

trigger_events = sa.Table(
    "trigger_events",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("project", _NAME, nullable=False),
    sa.Column("model", _NAME, nullable=False),
    sa.Column("source", _WORD, nullable=False),
    sa.Column("dedup_key", sa.String(500), nullable=False),
    sa.Column("payload", Json, nullable=False),
    sa.Column("actor", _NAME, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("decision", _WORD, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("due_at", UtcTime),
    # When it was started, which may be later than when it asked.
    sa.Column("started_at", UtcTime),
    sa.Column("workflow_id", sa.String(200)),
    sa.UniqueConstraint("project", "model", "dedup_key"),
    sa.Index("ix_trigger_events_started", "project", "model", "started_at"),
    sa.Index("ix_trigger_events_due", "decision", "due_at"),
    sa.Index("ix_trigger_events_page", "project", "model", "id"),
)

releases = sa.Table(
    "releases",
    metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("project", _NAME, nullable=False),
    sa.Column("model", _NAME, nullable=False),
    sa.Column("endpoint", _NAME, nullable=False),
    sa.Column("state", _WORD, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("trigger_id", _ID),
    sa.Column("run_id", _ID),
    sa.Column("version", sa.Integer),
    sa.Column("champion", sa.Integer),
    sa.Column("rollout_id", sa.String(250)),
    sa.Column("source_rows", sa.BigInteger),
    sa.Column("verdict", _WORD),
    sa.Column("sentence", sa.Text),
    sa.Column("evidence", Json),
    sa.Column("concluded_at", UtcTime),
    sa.Index("ix_releases_model", "project", "model", "started_at", "id"),
    sa.Index("ix_releases_version", "project", "model", "version"),
    sa.Index("ix_releases_state", "state", "id"),
    sa.Index("ix_releases_concluded", "project", "model", "concluded_at"),
)


def recipe_row(connection: sa.Connection, project: str, model: str, *, lock: bool = False) -> sa.Row[Any] | None:
    """Return a recipe's row, held until the transaction ends if ``lock``."""
    query = sa.select(recipes).where(recipes.c.project == project, recipes.c.model == model)
    return connection.execute(query.with_for_update() if lock else query).first()


def recipe_rows(
    connection: sa.Connection, *conditions: sa.ColumnElement[bool], after: tuple[str, str] = ("", ""), limit: int
) -> list[sa.Row[Any]]:
    """Return recipes by project and model, those after a pair of names."""
    key = sa.tuple_(recipes.c.project, recipes.c.model)
    query = sa.select(recipes).where(key > sa.tuple_(*map(sa.literal, after)), *conditions)
    return list(connection.execute(query.order_by(recipes.c.project, recipes.c.model).limit(limit)))


def recipe_of(row: sa.Row[Any]) -> Recipe:
    """Build a recipe from its row."""
    return Recipe.from_json(row.recipe)


def trigger_row(connection: sa.Connection, project: str, model: str, dedup_key: str) -> TriggerEvent | None:
    """Return the trigger with this key."""
    table = trigger_events.c
    query = sa.select(trigger_events).where(
        table.project == project, table.model == model, table.dedup_key == dedup_key
    )
    row = connection.execute(query).first()
    return None if row is None else trigger_of(row)


def triggers_where(connection: sa.Connection, *conditions: sa.ColumnElement[bool], limit: int) -> list[TriggerEvent]:
    """Return triggers, newest first."""
    query = sa.select(trigger_events).where(*conditions).order_by(trigger_events.c.id.desc()).limit(limit)
    return [trigger_of(row) for row in connection.execute(query)]


def due_triggers(connection: sa.Connection, now: datetime, *, limit: int) -> list[TriggerEvent]:
    """Return deferred triggers whose time has come, the oldest first."""
    table = trigger_events.c
    query = sa.select(trigger_events).where(table.decision == "deferred", table.due_at <= now)
    return [trigger_of(row) for row in connection.execute(query.order_by(table.due_at, table.id).limit(limit))]


def started_times(connection: sa.Connection, project: str, model: str, *, limit: int) -> tuple[datetime, ...]:
    """Return the times of the last automatic and manual starts, oldest first."""
    table = trigger_events.c
    query = (
        sa.select(table.started_at)
        .where(table.project == project, table.model == model, table.started_at.is_not(None))
        .order_by(table.started_at.desc())
        .limit(limit)
    )
    return tuple(reversed(connection.execute(query).scalars().all()))


def set_decision(tx: Transaction, trigger_id: str, **values: Any) -> bool:
    """Change a deferred trigger's decision; False if somebody else was faster."""
    table = trigger_events.c
    statement = sa.update(trigger_events).where(table.id == trigger_id, table.decision == "deferred")
    return tx.execute(statement.values(**values)).rowcount > 0


def release_row(connection: sa.Connection, release_id: str, *, lock: bool = False) -> Release | None:
    """Return a release, held until the transaction ends if ``lock``."""
    query = sa.select(releases).where(releases.c.id == release_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else release_of(row)


def releases_where(connection: sa.Connection, *conditions: sa.ColumnElement[bool], limit: int) -> list[Release]:
    """Return releases, newest first."""
    query = sa.select(releases).where(*conditions)
    query = query.order_by(releases.c.started_at.desc(), releases.c.id.desc()).limit(limit)
    return [release_of(row) for row in connection.execute(query)]


def last_concluded(connection: sa.Connection, project: str, model: str) -> datetime | None:
    """Return when a release of this model ended last."""
    query = sa.select(sa.func.max(releases.c.concluded_at))
    query = query.where(releases.c.project == project, releases.c.model == model)
    found: datetime | None = connection.execute(query).scalar()
    return found


def update_release(tx: Transaction, release_id: str, **values: Any) -> None:
    """Change a release that has not ended."""
    condition = sa.and_(releases.c.id == release_id, releases.c.verdict.is_(None))
    tx.execute(sa.update(releases).where(condition).values(**values))


def trigger_of(row: sa.Row[Any]) -> TriggerEvent:
    """Build a trigger from its row."""
    return TriggerEvent(
        id=row.id,
        project=row.project,
        model=row.model,
        source=row.source,
        dedup_key=row.dedup_key,
        payload=row.payload,
        actor=row.actor,
        at=row.at,
        decision=TriggerDecision(row.decision, row.reason, row.due_at),
        workflow_id=row.workflow_id,
    )


def release_of(row: sa.Row[Any]) -> Release:
    """Build a release from its row."""
    return Release(**row._mapping)

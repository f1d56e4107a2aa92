"""Tables and queries of endpoints and rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from modelyard.deployment.exposure import Exposure
from modelyard.deployment.guard import Guard
from modelyard.deployment.model import ACTIVE, Canary, Check, Endpoint, Rollout, RolloutState
from modelyard.storage import Json, Transaction, UtcTime, metadata

_NAME = sa.String(250)
_DIGEST = sa.String(64)
_IS_ACTIVE = sa.text("state in ('running', 'held')")

endpoints = sa.Table(
    "endpoints",
    metadata,
    # Unique over all projects: it is the address.
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("project", _NAME, nullable=False),
    sa.Column("model", _NAME, nullable=False),
    sa.Column("salt", sa.String(64), nullable=False),
    sa.Column("entity_key", _NAME),
    sa.Column("time_column", _NAME),
    sa.Column("champion", sa.Integer, nullable=False),
    sa.Column("champion_digest", _DIGEST, nullable=False),
    sa.Column("standby", sa.Integer),
    sa.Column("standby_digest", _DIGEST),
    sa.Column("standby_until", UtcTime),
    sa.Column("settings", Json, nullable=False),
    sa.Column("created_by", _NAME, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Index("ix_endpoints_project", "project", "name"),
    sa.Index("ix_endpoints_model", "project", "model"),
)
rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("endpoint", _NAME, sa.ForeignKey("endpoints.name"), nullable=False),
    sa.Column("project", _NAME, nullable=False),
    sa.Column("model", _NAME, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", _DIGEST, nullable=False),
    sa.Column("control", sa.Integer),
    sa.Column("canary", Json, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("step_started_at", UtcTime),
    sa.Column("answers", sa.BigInteger, nullable=False),
    sa.Column("control_answers", sa.BigInteger, nullable=False),
    sa.Column("exposure", Json, nullable=False),
    sa.Column("guard", Json, nullable=False),
    sa.Column("checks", Json, nullable=False),
    sa.Column("first_file", sa.BigInteger, nullable=False),
    sa.Column("cursor_file", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("workflow", sa.String(200)),
    sa.Column("waits_for", sa.String(80)),
    sa.Column("started_by", _NAME, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    # When its version became the champion; stays if it was taken back later.
    sa.Column("crowned_at", UtcTime),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Index("ix_rollouts_endpoint", "endpoint", "id"),
    # The database itself holds that an endpoint has at most one rollout at a time.
    sa.Index(
        "uq_rollouts_active",
        "endpoint",
        unique=True,
        sqlite_where=_IS_ACTIVE,
        postgresql_where=_IS_ACTIVE,
    ),
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A rollout with everything that watching it needs.

    Attributes:
        rollout: The rollout.
        exposure: Its leases.
        guard: Its guard.
        first_file: Number of the last prediction file before it began.
        cursor_file: Number of the last prediction file that the guard has seen.
        waits_for: What its workflow waits for.
        revision: Grows with each write.
    """

    rollout: Rollout
    exposure: Exposure
    guard: Guard
    first_file: int
    cursor_file: int
    waits_for: str | None
    revision: int


def endpoint_of(connection: sa.Connection, name: str, *, lock: bool = False) -> Endpoint | None:
    """Return an endpoint; with ``lock``, nobody else changes it until the transaction ends."""
    query = sa.select(endpoints).where(endpoints.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _endpoint(row)


def endpoint_page(connection: sa.Connection, *, project: str | None, after: str, limit: int) -> list[Endpoint]:
    """Return at most ``limit`` endpoints by name, of one project or of all."""
    query = sa.select(endpoints).where(endpoints.c.name > after).order_by(endpoints.c.name).limit(limit)
    if project is not None:
        query = query.where(endpoints.c.project == project)
    return [_endpoint(row) for row in connection.execute(query)]


def insert_endpoint(tx: Transaction, endpoint: Endpoint) -> None:
    """Add an endpoint."""
    values = {name: getattr(endpoint, name) for name in Endpoint.__slots__ if name not in {"sample", "redact"}}
    settings = {"sample": endpoint.sample, "redact": list(endpoint.redact)}
    tx.execute(sa.insert(endpoints).values(**values, settings=settings))


def set_endpoint(tx: Transaction, name: str, **values: Any) -> None:
    """Change columns of an endpoint."""
    tx.execute(sa.update(endpoints).where(endpoints.c.name == name).values(**values))


def delete_endpoint(tx: Transaction, name: str) -> None:
    """Remove an endpoint and its rollouts; their events stay."""
    tx.execute(sa.delete(rollouts).where(rollouts.c.endpoint == name))
    tx.execute(sa.delete(endpoints).where(endpoints.c.name == name))


def standbys_due(connection: sa.Connection, now: datetime) -> list[Endpoint]:
    """Return the endpoints whose version before need not be kept loaded any longer."""
    query = sa.select(endpoints).where(endpoints.c.standby.is_not(None), endpoints.c.standby_until <= now)
    return [_endpoint(row) for row in connection.execute(query.order_by(endpoints.c.name))]


def insert_rollout(tx: Transaction, watched: Watched) -> None:
    """Add a rollout."""
    rollout = watched.rollout
    values = {name: getattr(rollout, name) for name in Rollout.__slots__}
    values |= {"canary": rollout.canary.to_json(), "checks": [check.to_json() for check in rollout.checks]}
    values |= {"exposure": watched.exposure.to_json(), "guard": watched.guard.to_json()}
    values |= {"first_file": watched.first_file, "cursor_file": watched.cursor_file}
    values |= {"waits_for": watched.waits_for, "updated_at": rollout.started_at, "revision": watched.revision}
    tx.execute(sa.insert(rollouts).values(**values))


def set_rollout(tx: Transaction, rollout_id: str, **values: Any) -> None:
    """Change columns of a rollout; its revision grows."""
    for name in ("exposure", "guard"):
        if name in values:
            values[name] = values[name].to_json()
    if "checks" in values:
        values["checks"] = [check.to_json() for check in values["checks"]]
    change = sa.update(rollouts).where(rollouts.c.id == rollout_id)
    tx.execute(change.values(**values, revision=rollouts.c.revision + 1))


def watched_of(connection: sa.Connection, rollout_id: str, *, lock: bool = False) -> Watched | None:
    """Return a rollout with its guard; with ``lock``, nobody else changes it until the transaction ends."""
    query = sa.select(rollouts).where(rollouts.c.id == rollout_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _watched(row)


def active_rollouts(connection: sa.Connection, *, endpoint: str | None = None, lock: bool = False) -> list[Watched]:
    """Return the rollouts that are running or held, of one endpoint or of all, oldest first."""
    query = sa.select(rollouts).where(rollouts.c.state.in_(ACTIVE)).order_by(rollouts.c.id)
    if endpoint is not None:
        query = query.where(rollouts.c.endpoint == endpoint)
    return [_watched(row) for row in connection.execute(query.with_for_update() if lock else query)]


def rollout_page(connection: sa.Connection, *, endpoint: str, before: str | None, limit: int) -> list[Rollout]:
    """Return at most ``limit`` rollouts of an endpoint, newest first, those before an id."""
    query = sa.select(rollouts).where(rollouts.c.endpoint == endpoint).order_by(rollouts.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(rollouts.c.id < before)
    return [_rollout(row) for row in connection.execute(query)]


def last_finished(connection: sa.Connection, *, endpoint: str, version: int) -> Rollout | None:
    """Return the newest finished rollout that made a version the champion of an endpoint."""
    finished = sa.and_(
        rollouts.c.endpoint == endpoint,
        rollouts.c.version == version,
        rollouts.c.state == RolloutState.FINISHED,
    )
    query = sa.select(rollouts).where(finished).order_by(rollouts.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _rollout(row)


def was_champion(connection: sa.Connection, endpoint: str, version: int) -> bool:
    """Say whether a version has ever been the champion of an endpoint."""
    query = sa.select(rollouts.c.id).where(
        rollouts.c.endpoint == endpoint,
        rollouts.c.version == version,
        rollouts.c.crowned_at.is_not(None),
    )
    return connection.execute(query.limit(1)).first() is not None


def _endpoint(row: sa.Row[Any]) -> Endpoint:
    values = dict(row._mapping)
    settings = values.pop("settings")
    return Endpoint(**values, sample=settings["sample"], redact=tuple(settings["redact"]))


def _rollout(row: sa.Row[Any]) -> Rollout:
    values = {name: row._mapping[name] for name in Rollout.__slots__}
    values["canary"] = Canary.from_json(values["canary"])
    values["state"] = RolloutState(values["state"])
    values["checks"] = tuple(Check.from_json(each) for each in values["checks"])
    values["exposure"] = Exposure.from_json(values["exposure"]).bound
    return Rollout(**values)


def _watched(row: sa.Row[Any]) -> Watched:
    return Watched(
        _rollout(row),
        Exposure.from_json(row.exposure),
        Guard.from_json(row.guard),
        row.first_file,
        row.cursor_file,
        row.waits_for,
        row.revision,
    )

"""Tables of runs, steps, waits, early signals and executors: the only SQL of this piece.

These rows, not the engine's, are what the product shows and decides by: they are readable without the engine,
and each changes together with its event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from modelyard.storage import Json, Transaction, UtcTime, metadata
from modelyard.workflows.model import OpenWait, Run, Status, StepRun, StepStatus

runs = sa.Table(
    "workflow_runs",
    metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("project", sa.String(250), nullable=False),
    sa.Column("subject", sa.String(600)),
    sa.Column("queue_key", sa.String(250)),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("input", Json, nullable=False),
    sa.Column("output", Json),
    sa.Column("error", sa.Text),
    sa.Column("forked_from", sa.String(200)),
    sa.Column("started_by", sa.String(250), nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    # A run is a chain of segments, each one engine workflow; `position` is where the current one begins, and
    # `dispatched` says whether the engine has it (this table is the outbox to the engine's own database).
    sa.Column("segment", sa.Integer, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("dispatched", sa.Boolean, nullable=False),
    sa.Index("ix_workflow_runs_project", "project", "started_at", "id"),
    sa.Index("ix_workflow_runs_project_status", "project", "status", "started_at", "id"),
    sa.Index("ix_workflow_runs_project_name", "project", "name", "started_at", "id"),
    sa.Index("ix_workflow_runs_project_subject", "project", "subject", "started_at", "id"),
    sa.Index("ix_workflow_runs_status_dispatched", "status", "dispatched"),
)

steps = sa.Table(
    "workflow_steps",
    metadata,
    sa.Column("run_id", sa.String(200), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("visit", sa.Integer, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("starts", sa.Integer, nullable=False, default=0),
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    sa.Column("executor", sa.String(120)),
    sa.Column("started_at", UtcTime),
    sa.Column("ended_at", UtcTime),
    sa.Column("output", Json),
    sa.Column("error", sa.Text),
    sa.Column("wake", Json),
    sa.Column("copied", sa.Boolean, nullable=False, default=False),
)

waits = sa.Table(
    "workflow_waits",
    metadata,
    sa.Column("run_id", sa.String(200), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),  # open, signalled, expired, cancelled
    sa.Column("since", UtcTime, nullable=False),
    sa.Column("deadline", UtcTime),
    sa.Column("on_timeout", sa.String(10), nullable=False),
    sa.Index("ix_workflow_waits_state_deadline", "state", "deadline"),
)

early_signals = sa.Table(
    "workflow_early_signals",
    metadata,
    sa.Column("run_id", sa.String(200), primary_key=True),
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("payload", Json),
    sa.Column("actor", sa.String(250), nullable=False),
)

executors = sa.Table(
    "workflow_executors",
    metadata,
    sa.Column("id", sa.String(120), primary_key=True),
    sa.Column("beat_at", UtcTime, nullable=False),
    sa.Column("adopted_by", sa.String(120)),
    sa.Column("adopted_at", UtcTime),
)


def run_row(tx: sa.Connection, run_id: str, *, lock: bool = False) -> sa.Row[Any] | None:
    """Return a run's row; ``lock`` keeps others from changing it until the transaction ends."""
    query = sa.select(runs).where(runs.c.id == run_id)
    return tx.execute(query.with_for_update() if lock else query).one_or_none()


def update_run(tx: Transaction, run_id: str, **values: Any) -> None:
    """Change a run's row, which the transaction holds locked."""
    tx.execute(sa.update(runs).where(runs.c.id == run_id).values(**values))


def set_dispatched(tx: Transaction, run_id: str, *, segment: int) -> None:
    """Note that the engine has this segment, unless the run has moved on."""
    where = (runs.c.id == run_id, runs.c.segment == segment)
    tx.execute(sa.update(runs).where(*where).values(dispatched=True))


def undispatched(tx: sa.Connection, *, names: Sequence[str], limit: int) -> Sequence[sa.Row[Any]]:
    """Return running runs of these definitions whose segment the engine does not have yet."""
    query = sa.select(runs).where(runs.c.status == Status.RUNNING, runs.c.dispatched.is_(False), runs.c.name.in_(names))
    return tx.execute(query.order_by(runs.c.started_at).limit(limit)).all()


def dispatched_segments(tx: sa.Connection, *, after: str, limit: int) -> list[tuple[str, int]]:
    """Return id and segment of running runs that the engine should have, by id."""
    query = sa.select(runs.c.id, runs.c.segment).where(
        runs.c.status == Status.RUNNING, runs.c.dispatched.is_(True), runs.c.id > after
    )
    return [(row.id, row.segment) for row in tx.execute(query.order_by(runs.c.id).limit(limit))]


def list_runs(
    tx: sa.Connection,
    *,
    project: str,
    equal: Mapping[str, Any],
    before: tuple[datetime, str] | None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Return a project's runs, newest first, whose named columns equal the values."""
    query = sa.select(runs).where(runs.c.project == project)
    for column, value in equal.items():
        query = query.where(runs.c[column] == value)
    if before is not None:
        bound = sa.tuple_(sa.literal(before[0], UtcTime), sa.literal(before[1], sa.String))
        query = query.where(sa.tuple_(runs.c.started_at, runs.c.id) < bound)
    return tx.execute(query.order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)).all()


def step_row(tx: sa.Connection, run_id: str, position: int) -> sa.Row[Any] | None:
    """Return one step's row."""
    query = sa.select(steps).where(steps.c.run_id == run_id, steps.c.position == position)
    return tx.execute(query).one_or_none()


def step_rows(tx: sa.Connection, run_id: str) -> Sequence[sa.Row[Any]]:
    """Return all steps of a run in order."""
    return tx.execute(sa.select(steps).where(steps.c.run_id == run_id).order_by(steps.c.position)).all()


def count_visits(tx: Transaction, run_id: str, name: str) -> int:
    """Return how often a run has come to a step so far."""
    query = sa.select(sa.func.count()).where(steps.c.run_id == run_id, steps.c.name == name)
    return int(tx.execute(query).scalar_one())


def insert_step(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Add a step that a run has come to."""
    tx.execute(sa.insert(steps).values(**values))


def update_step(tx: Transaction, run_id: str, position: int, **values: Any) -> None:
    """Change a step's row."""
    where = (steps.c.run_id == run_id, steps.c.position == position)
    tx.execute(sa.update(steps).where(*where).values(**values))


def cancel_steps(tx: Transaction, run_id: str, *, at: datetime) -> None:
    """Mark a run's unfinished steps as cancelled."""
    unfinished = steps.c.status.in_([StepStatus.PENDING, StepStatus.RUNNING])
    statement = sa.update(steps).where(steps.c.run_id == run_id, unfinished)
    tx.execute(statement.values(status=StepStatus.CANCELLED, ended_at=at))


def open_wait(tx: sa.Connection, run_id: str) -> sa.Row[Any] | None:
    """Return the wait that a run is in."""
    query = sa.select(waits).where(waits.c.run_id == run_id, waits.c.state == "open")
    return tx.execute(query).one_or_none()


def wait_exists(tx: Transaction, run_id: str, name: str) -> bool:
    """Return whether a run has ever come to a wait of this name."""
    query = sa.select(waits.c.name).where(waits.c.run_id == run_id, waits.c.name == name).limit(1)
    return tx.execute(query).first() is not None


def insert_wait(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Add an open wait."""
    tx.execute(sa.insert(waits).values(state="open", **values))


def close_wait(tx: Transaction, run_id: str, *, state: str) -> bool:
    """End a run's open wait; return whether it was still open."""
    statement = sa.update(waits).where(waits.c.run_id == run_id, waits.c.state == "open")
    return tx.execute(statement.values(state=state)).rowcount > 0


def due_waits(tx: sa.Connection, *, now: datetime, limit: int) -> Sequence[sa.Row[Any]]:
    """Return open waits whose deadline has come, the oldest first."""
    query = sa.select(waits).where(waits.c.state == "open", waits.c.deadline <= now)
    return tx.execute(query.order_by(waits.c.deadline).limit(limit)).all()


def keep_early_signal(tx: Transaction, values: Mapping[str, Any]) -> bool:
    """Keep a signal that came before its wait; the first one counts."""
    return tx.insert_if_absent(early_signals, values)


def take_early_signal(tx: Transaction, run_id: str, name: str) -> sa.Row[Any] | None:
    """Return and forget the signal that came before this wait."""
    where = (early_signals.c.run_id == run_id, early_signals.c.name == name)
    row = tx.execute(sa.select(early_signals).where(*where)).one_or_none()
    if row is not None:
        tx.execute(sa.delete(early_signals).where(*where))
    return row


def drop_early_signals(tx: Transaction, run_id: str) -> None:
    """Forget the signals that a finished run never waited for."""
    tx.execute(sa.delete(early_signals).where(early_signals.c.run_id == run_id))


def beat(tx: Transaction, executor: str, *, at: datetime) -> None:
    """Note that an executor is alive, also one that others took for dead."""
    tx.upsert(executors, {"id": executor, "beat_at": at, "adopted_by": None, "adopted_at": None})


def silent_executors(tx: sa.Connection, *, since: datetime, limit: int) -> Sequence[str]:
    """Return executors that have not been heard of since this time and that nobody is taking over."""
    query = sa.select(executors.c.id).where(_silent(since)).order_by(executors.c.beat_at).limit(limit)
    return tx.execute(query).scalars().all()


def claim_executor(tx: Transaction, executor: str, *, by: str, at: datetime, since: datetime) -> bool:
    """Take over a silent executor's work; return False if it spoke or somebody else was faster."""
    statement = sa.update(executors).where(executors.c.id == executor, _silent(since))
    return tx.execute(statement.values(adopted_by=by, adopted_at=at)).rowcount > 0


def forget_executor(tx: Transaction, executor: str, *, by: str) -> None:
    """Drop an executor whose work ``by`` has taken over, unless it spoke meanwhile."""
    tx.execute(sa.delete(executors).where(executors.c.id == executor, executors.c.adopted_by == by))


def _silent(since: datetime) -> sa.ColumnElement[bool]:
    # An adopter that died before it finished loses its claim after the same time.
    unclaimed = sa.or_(executors.c.adopted_at.is_(None), executors.c.adopted_at < since)
    return sa.and_(executors.c.beat_at < since, unclaimed)


def run_of(row: sa.Row[Any], *, steps: tuple[StepRun, ...] = (), wait: OpenWait | None = None) -> Run:
    """Build a run from its row."""
    return Run(
        id=row.id,
        name=row.name,
        project=row.project,
        subject=row.subject,
        queue_key=row.queue_key,
        status=Status(row.status),
        input=row.input,
        output=row.output,
        error=row.error,
        forked_from=row.forked_from,
        started_by=row.started_by,
        started_at=row.started_at,
        ended_at=row.ended_at,
        steps=steps,
        wait=wait,
    )


def step_of(row: sa.Row[Any]) -> StepRun:
    """Build a step from its row."""
    return StepRun(
        position=row.position,
        name=row.name,
        status=StepStatus(row.status),
        starts=row.starts,
        failures=row.failures,
        executor=row.executor,
        started_at=row.started_at,
        ended_at=row.ended_at,
        output=row.output,
        error=row.error,
        copied=row.copied,
    )


def wait_of(row: sa.Row[Any]) -> OpenWait:
    """Build an open wait from its row."""
    return OpenWait(row.name, row.since, row.deadline, row.on_timeout)

"""The tracking service: runs and what they log."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from modelyard.errors import Conflict, Invalid, ModelyardError, NotFound
from modelyard.events import DEFAULT_PROJECT, Actor, canonical
from modelyard.storage import Transaction
from modelyard.storage.series import points
from modelyard.tracking import model, store
from modelyard.tracking.artifacts import Artifacts
from modelyard.tracking.batch import Batch, Ending, Start, check, check_dataset
from modelyard.tracking.experiments import Experiments
from modelyard.tracking.keys import clean_name
from modelyard.tracking.model import (
    DatasetInput,
    LifecycleStage,
    MetricPoint,
    ParameterChanged,
    Run,
    RunData,
    RunPage,
    RunStatus,
    facts,
)
from modelyard.tracking.summary import from_us, merge, summarise, to_us
from modelyard.tracking.transport import Transport

# Points of one metric that are merged when its run ends; more would hold the writer up.
_SETTLED_AT_END = 20_000
_RUNS_AT_ONCE = 1000


class Tracking(Experiments, Artifacts):
    """Experiments, runs and artifacts; see ``Parts`` for what it is built from."""

    def create_run(
        self,
        experiment_id: str,
        *,
        actor: Actor,
        name: str | None = None,
        run_id: str | None = None,
        parent_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        started_at: datetime | None = None,
    ) -> Run:
        """Create a running run.

        Raises:
            NotFound: If there is no such experiment.
            Conflict: If the experiment is in the bin.
        """
        experiment = self.get_experiment(experiment_id)
        run_id = run_id or self._new_id()
        start = Start(
            experiment=experiment.name,
            project=experiment.project,
            name=name or default_name(run_id),
            started_us=to_us(started_at or self._clock.now()),
            parent_id=parent_id,
        )
        self.log_batch(Batch(self._new_id(), run_id, start=start, tags=dict(tags or {})), actor=actor)
        return self.get_run(run_id)

    def get_run(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            NotFound: If there is none.
        """
        with self.database.reading() as connection:
            run = store.run_of(connection, run_id)
        if run is None:
            raise NotFound("run", run_id)
        return run

    def run_data(self, *run_ids: str) -> dict[str, RunData]:
        """Return parameters, tags, metric summaries and inputs of these runs, in a few queries a thousand runs."""
        found: dict[str, RunData] = {}
        with self.database.reading() as connection:
            # Databases bound the number of parameters of a statement.
            for start in range(0, len(run_ids), _RUNS_AT_ONCE):
                found |= store.data_of(connection, run_ids[start : start + _RUNS_AT_ONCE])
        return found

    def log_batch(self, batch: Batch, *, actor: Actor) -> bool:
        """Apply a batch once.

        Returns:
            True if it was applied now, False if it had been before.

        Raises:
            NotFound: If the run does not exist and the batch does not start it.
            ParameterChanged: If a parameter has another value already.
            Invalid, TooLarge: If something in it is not usable or over a limit.
        """
        (outcome,) = self.log_batches([batch], actor=actor)
        if isinstance(outcome, ModelyardError):
            raise outcome
        return outcome

    def log_batches(self, batches: Sequence[Batch], *, actor: Actor) -> list[bool | ModelyardError]:
        """Apply many clients' batches in one transaction (group commit).

        A batch that is refused changes nothing and does not touch the others.

        Returns:
            For each batch in order: True applied, False applied before, or why it was refused.
        """
        outcomes: list[bool | ModelyardError] = [False] * len(batches)
        # One order for all writers, so that two of them never wait for each other's rows.
        order = sorted(range(len(batches)), key=lambda index: batches[index].run_id)
        with self.database.transaction() as tx:
            for index in order:
                try:
                    outcomes[index] = self._apply(tx, check(batches[index]), actor=actor)
                except ModelyardError as refusal:
                    outcomes[index] = refusal
        return outcomes

    def log_inputs(self, run_id: str, inputs: Iterable[DatasetInput], *, actor: Actor) -> None:
        """Say that a run has read these datasets.

        Raises:
            NotFound: If there is no such run.
            Invalid, TooLarge: If a field is not usable or over a limit.
        """
        checked = [check_dataset(dataset) for dataset in inputs]
        self.log_batch(Batch(self._new_id(), run_id, inputs=checked), actor=actor)

    def set_status(self, run_id: str, status: RunStatus, *, actor: Actor, error: str | None = None) -> Run:
        """Move a run to another status; ``finished``, ``failed`` and ``killed`` end it.

        Raises:
            Invalid: If the status is not known.
            NotFound: If there is no such run.
        """
        if status in model.ENDED:
            ending = Ending(status, to_us(self._clock.now()), error)
            self.log_batch(Batch(self._new_id(), run_id, ending=ending), actor=actor)
            return self.get_run(run_id)
        if status not in model.STATUSES:
            known = ", ".join(sorted(model.STATUSES))
            raise Invalid(f"{status!r} is not a status of a run; expected one of {known}.", status=status)
        kind = "run.resumed" if status == "running" else "run.scheduled"
        return self._change(run_id, kind, actor=actor, status=status, ended_at=None, error=None)

    def finish(self, run_id: str, *, actor: Actor) -> Run:
        """End a run well."""
        return self.set_status(run_id, "finished", actor=actor)

    def rename_run(self, run_id: str, name: str, *, actor: Actor) -> Run:
        """Give a run another name."""
        clean_name("run name", name, limit=model.MAX_RUN_NAME)
        return self._change(run_id, "run.renamed", actor=actor, name=name)

    def delete_run(self, run_id: str, *, actor: Actor) -> Run:
        """Put a run in the bin."""
        return self._change(run_id, "run.deleted", actor=actor, lifecycle_stage="deleted")

    def restore_run(self, run_id: str, *, actor: Actor) -> Run:
        """Take a run out of the bin."""
        return self._change(run_id, "run.restored", actor=actor, lifecycle_stage="active")

    def delete_tag(self, run_id: str, key: str, *, actor: Actor) -> None:
        """Take a tag off a run.

        Raises:
            NotFound: If the run has no such tag.
        """
        with self.database.transaction() as tx:
            run = self._active_run(tx, run_id)
            condition = sa.and_(store.tags.c.run_id == run_id, store.tags.c.key == key)
            value = tx.execute(sa.select(store.tags.c.value).where(condition)).scalar()
            if value is None:
                raise NotFound(f"tag of run {run_id}", key)
            tx.execute(sa.delete(store.tags).where(condition))
            self._record(
                tx,
                "run.tag_deleted",
                f"run:{run_id}",
                actor=actor,
                project=run.project,
                before={"key": key, "value": value},
            )

    def metric_history(
        self,
        run_id: str,
        key: str,
        *,
        start_step: int | None = None,
        offset: int = 0,
        limit: int = model.MAX_HISTORY_PAGE,
    ) -> list[MetricPoint]:
        """Return at most ``limit`` points of a metric in the order of their steps.

        Args:
            run_id: The run; an unknown one has no points.
            key: Name of the metric.
            start_step: Smallest step.
            offset: Points to skip from there; pages a metric that logs everything at one step.
            limit: Most points.
        """
        found = self._series.read(
            series_id(run_id, key), start_step=start_step, offset=offset, limit=min(limit, model.MAX_HISTORY_PAGE)
        )
        columns = (found.steps.tolist(), found.times.tolist(), found.values.tolist())
        return [MetricPoint(step, from_us(time), value) for step, time, value in zip(*columns, strict=True)]

    def compact_histories(self, *, limit: int = 100) -> int:
        """Merge the small chunks of metric histories that have many; for a scheduled upkeep.

        Returns:
            How many histories were looked at; call again while it is ``limit``.
        """
        due = self._series.due(limit=limit)
        for each in due:
            with suppress(Conflict), self.database.transaction() as tx:
                self._series.compact(tx, each)
        return len(due)

    def list_runs(
        self,
        *,
        project: str = DEFAULT_PROJECT,
        experiment_ids: Sequence[str] = (),
        lifecycle_stage: LifecycleStage | None = "active",
        status: RunStatus | None = None,
        cursor: str | None = None,
        limit: int = 1000,
    ) -> RunPage:
        """Return a page of runs, newest first.

        Raises:
            Invalid: If the cursor is not one that this method has given.
        """
        table = store.runs.c
        limit = min(limit, model.MAX_PAGE)
        conditions = [table.experiment_id.in_(experiment_ids) if experiment_ids else table.project == project]
        if lifecycle_stage is not None:
            conditions.append(table.lifecycle_stage == lifecycle_stage)
        if status is not None:
            conditions.append(table.status == status)
        before = None if cursor is None else _read_cursor(cursor)
        with self.database.reading() as connection:
            found = store.run_page(connection, conditions=conditions, before=before, limit=limit + 1)
        more = len(found) > limit
        page = tuple(found[:limit])
        return RunPage(page, _cursor(page[-1]) if more else None)

    def transport(self, actor: Actor) -> Transport:
        """Return the way in for a recorder in this process, logging as ``actor``."""

        def send(batch: Batch) -> None:
            self.log_batch(batch, actor=actor)

        def upload(content: bytes | Path) -> str:
            return self.objects.put(content)

        return Transport(send, upload)

    def _apply(self, tx: Transaction, batch: Batch, *, actor: Actor) -> bool:
        for artifact in batch.artifacts:
            if not self.objects.exists(artifact.digest):
                raise NotFound("object", artifact.digest, hint="Upload the bytes before naming them.")
        if batch.start is not None:
            self._start(tx, batch.run_id, batch.start, actor=actor)
        run = self._active_run(tx, batch.run_id)
        known = store.params_of(tx.connection, run.id, batch.params)
        for key, value in known.items():
            if batch.params[key] != value:
                raise ParameterChanged(run.id, key, before=value, after=batch.params[key])
        if not tx.insert_if_absent(store.batches, {"run_id": run.id, "batch_id": batch.id}):
            return False
        new_params = {key: value for key, value in batch.params.items() if key not in known}
        store.add_params(tx, run.id, new_params)
        store.set_tags(tx, run.id, batch.tags)
        self._add_points(tx, batch)
        for dataset in batch.inputs:
            store.add_input(tx, run, dataset, dataset_id=self._new_id())
        for artifact in batch.artifacts:
            store.set_artifact(tx, run.id, artifact)
        self._close(tx, run, batch, actor=actor)
        return True

    def _start(self, tx: Transaction, run_id: str, start: Start, *, actor: Actor) -> None:
        known = store.run_of(tx.connection, run_id)
        if known is not None and known.project == start.project:
            return
        if known is not None:
            raise Conflict(f"Run {run_id} exists already, in another project.", run_id=run_id)
        experiment = self._ensure_experiment(tx, start.experiment, actor=actor, project=start.project)
        run = Run(
            id=run_id,
            project=experiment.project,
            experiment_id=experiment.id,
            name=start.name,
            status="running",
            lifecycle_stage="active",
            created_by=actor.name,
            started_at=from_us(start.started_us),
            ended_at=None,
            updated_at=self._clock.now(),
            parent_id=start.parent_id,
        )
        if tx.insert_if_absent(store.runs, {name: getattr(run, name) for name in Run.__slots__}):
            after = {**facts(run), "experiment": experiment.name, "parent_id": run.parent_id}
            self._record(tx, "run.started", f"run:{run_id}", actor=actor, project=run.project, after=after)

    def _add_points(self, tx: Transaction, batch: Batch) -> None:
        table = store.metrics.c
        keys = list(batch.metrics)
        where = sa.and_(table.run_id == batch.run_id, table.key.in_(keys))
        known = store.summaries(tx.connection, where).get(batch.run_id, {}) if keys else {}
        histories = []
        for key, new in batch.metrics.items():
            histories.append((series_id(batch.run_id, key), points(new.steps, new.times_us, new.values)))
            store.set_summary(tx, batch.run_id, merge(known.get(key), summarise(key, new)))
        self._series.append_many(tx, histories)

    def _close(self, tx: Transaction, run: Run, batch: Batch, *, actor: Actor) -> None:
        """Write the run's end, or say in the log that an ended run has got more data."""
        now = self._clock.now()
        ending = batch.ending
        if ending is None and run.status not in model.ENDED:
            store.set_run(tx, run.id, updated_at=now)
            return
        change: dict[str, object] = {"updated_at": now}
        kind, at = "run.amended", now
        if ending is not None:
            kind, at = f"run.{ending.status}", from_us(ending.ended_us)
            error = ending.error[: model.MAX_ERROR].replace("\0", "") if ending.error else None
            change |= {"status": ending.status, "ended_at": at, "error": error}
        store.set_run(tx, run.id, **change)
        after = store.run_of(tx.connection, run.id) or run
        self._record(
            tx,
            kind,
            f"run:{run.id}",
            actor=actor,
            project=run.project,
            at=at,
            before=facts(run),
            after=facts(after),
            data={"counts": store.counts(tx.connection, run.id), "digest": _seal(tx, run.id)},
        )
        tx.after_commit.append(lambda: self._settle_histories(run.id))

    def _settle_histories(self, run_id: str) -> None:
        """Merge the small chunks of an ended run; what is large or contended waits for ``compact_histories``."""
        with self.database.reading() as connection:
            found = store.summaries(connection, store.metrics.c.run_id == run_id).get(run_id, {})
        small = [key for key, each in found.items() if 1 < each.count <= _SETTLED_AT_END]
        with suppress(Conflict), self.database.transaction() as tx:
            for key in small:
                self._series.compact(tx, series_id(run_id, key), finished=True)

    def _change(self, run_id: str, kind: str, *, actor: Actor, **values: object) -> Run:
        with self.database.transaction() as tx:
            before = store.run_of(tx.connection, run_id, lock=True)
            if before is None:
                raise NotFound("run", run_id)
            store.set_run(tx, run_id, updated_at=self._clock.now(), **values)
            after = store.run_of(tx.connection, run_id) or before
            self._record(
                tx,
                kind,
                f"run:{run_id}",
                actor=actor,
                project=before.project,
                before=facts(before),
                after=facts(after),
            )
            return after


def series_id(run_id: str, key: str) -> str:
    """Return the name of a metric's history in the series store: 32 hex digits, however long the key is."""
    return hashlib.blake2b(f"{run_id}/{key}".encode(), digest_size=16).hexdigest()


def default_name(run_id: str) -> str:
    """Return a run's name when nobody has given one."""
    return f"run-{run_id[-6:].lower()}"


def _seal(tx: Transaction, run_id: str) -> str:
    """Return a digest over everything that the run has logged but the points between first and last."""
    data = store.data_of(tx.connection, [run_id])[run_id]
    files = store.artifacts_of(tx.connection, run_id, below="", after="", limit=model.MAX_PAGE)
    content = {
        "params": dict(data.params),
        "tags": dict(data.tags),
        "metrics": {key: [each.count, each.last, each.last_step] for key, each in data.metrics.items()},
        "inputs": sorted([each.name, each.digest, each.context] for each in data.inputs),
        "artifacts": {each.path: each.digest for each in files},
    }
    return hashlib.sha256(canonical(content)).hexdigest()


def _cursor(run: Run) -> str:
    return base64.urlsafe_b64encode(f"{to_us(run.started_at)}:{run.id}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        time, _, run_id = base64.urlsafe_b64decode(cursor).decode().partition(":")
        return from_us(int(time)), run_id
    except ValueError as error:
        raise Invalid("This page cursor was not given by this server. Start from the first page.") from error

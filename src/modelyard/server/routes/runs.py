"""Experiments and runs over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Header, Query
from pydantic import BaseModel, ConfigDict, Field

from modelyard.errors import Invalid, NotFound
from modelyard.server.access import Caller, Routes, needs
from modelyard.server.routes.asking import (
    Body,
    By,
    Cursor,
    Key,
    Limit,
    check_project,
    id_of,
    plain,
    takes_bytes,
)
from modelyard.server.routes.group_commit import GroupCommit
from modelyard.tracking import Batch, Run, RunData, RunStatus, Tracking, decode

_JSON, _MSGPACK = "application/json", "application/octet-stream"


class NewRun(BaseModel):
    """A run to create."""

    model_config = ConfigDict(extra="forbid")
    experiment: str = "Default"
    name: str | None = None
    run_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    parent_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    tags: dict[str, str] = Field(default_factory=dict)


class RunEnd(BaseModel):
    """How a run ended."""

    model_config = ConfigDict(extra="forbid")
    status: RunStatus = "finished"
    error: str | None = None


def run_routes(tracking: Tracking) -> Routes:
    """Build the routes of experiments and runs."""
    routes = Routes(tags=["runs"])

    @routes.get("/experiments", openapi_extra=needs("read"))
    def list_experiments(caller: By, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """List experiments by name."""
        found = tracking.list_experiments(project=caller.project, after=cursor or "", limit=limit)
        return {"experiments": plain(found), "cursor": found[-1].name if len(found) == limit else None}

    @routes.post("/runs", status_code=201, openapi_extra=needs("run:write"))
    def create_run(new: NewRun, caller: By, key: Key = None) -> dict[str, Any]:
        """Create a running run, and its experiment if there is none of this name."""
        experiment = tracking.ensure_experiment(new.experiment, actor=caller.actor, project=caller.project)
        run = tracking.create_run(
            experiment.id,
            actor=caller.actor,
            name=new.name,
            run_id=new.run_id or (id_of(key, caller) if key else None),
            parent_id=new.parent_id,
            tags=new.tags,
        )
        return _run(run)

    @routes.get("/runs", openapi_extra=needs("read"))
    def list_runs(
        caller: By,
        experiment: Annotated[str | None, Query(max_length=500)] = None,
        status: RunStatus | None = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        """List runs, newest first, each with its parameters and the last values of its metrics."""
        ids = [] if experiment is None else [_experiment_id(tracking, experiment, caller)]
        page = tracking.list_runs(project=caller.project, experiment_ids=ids, status=status, cursor=cursor, limit=limit)
        data = tracking.run_data(*(run.id for run in page.runs))
        rows = [{**_run(run), **_last_values(data.get(run.id, RunData()))} for run in page.runs]
        return {"runs": rows, "cursor": page.cursor}

    @routes.get("/runs/{run_id}", openapi_extra=needs("read"))
    def get_run(run_id: str, caller: By) -> dict[str, Any]:
        """Return a run with everything that it logged, histories and files apart."""
        run = own_run(tracking, run_id, caller)
        data = tracking.run_data(run_id).get(run_id, RunData())
        return {**_run(run), **plain(data)}

    @routes.post("/runs/{run_id}/finish", openapi_extra=needs("run:write"))
    def finish_run(run_id: str, end: RunEnd, caller: By) -> dict[str, Any]:
        """End a run: finished, failed or killed."""
        own_run(tracking, run_id, caller)
        return _run(tracking.set_status(run_id, end.status, actor=caller.actor, error=end.error))

    _add_logging(routes, tracking)
    return routes


def _add_logging(routes: Routes, tracking: Tracking) -> None:
    commits = GroupCommit(tracking)

    @routes.post("/runs/{run_id}/batches", openapi_extra=takes_bytes("run:write", _JSON, _MSGPACK))
    def log_batch(
        run_id: str, content: Body, caller: By, content_type: Annotated[str, Header()] = _JSON
    ) -> dict[str, Any]:
        """Apply a batch of run data once: a JSON document, or the same in msgpack as octet-stream."""
        batch = _read_batch(content, content_type)
        if batch.run_id != run_id:
            raise Invalid(f"The batch is about run {batch.run_id!r}, the address about {run_id!r}.")
        if batch.start is None:
            own_run(tracking, run_id, caller)
        elif batch.start.project != caller.project:
            raise Invalid(f"The batch starts a run of project {batch.start.project!r}, not {caller.project!r}.")
        return {"applied": commits.log(batch, actor=caller.actor)}

    @routes.get("/runs/{run_id}/metrics/{key:path}", openapi_extra=needs("read"))
    def metric_history(
        *,
        run_id: str,
        key: str,
        caller: By,
        start_step: Annotated[int | None, Query(ge=-(2**63), lt=2**63)] = None,
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=25_000)] = 1000,
    ) -> dict[str, Any]:
        """Return points of a metric in the order of their steps."""
        own_run(tracking, run_id, caller)
        found = tracking.metric_history(run_id, key, start_step=start_step, offset=offset, limit=limit)
        return {"key": key, "points": plain(found), "offset": offset + len(found) if len(found) == limit else None}


def own_run(tracking: Tracking, run_id: str, caller: Caller) -> Run:
    """Return a run of the caller's project.

    Raises:
        NotFound: If there is none of this id in the project.
    """
    run = tracking.get_run(run_id)
    check_project(caller, "run", run_id, project=run.project)
    return run


def _experiment_id(tracking: Tracking, name: str, caller: Caller) -> str:
    found = tracking.find_experiment(name, project=caller.project)
    if found is None:
        known = tracking.list_experiments(project=caller.project)
        raise NotFound("experiment", name, known=[each.name for each in known])
    return found.id


def _read_batch(content: bytes, content_type: str) -> Batch:
    if content_type.partition(";")[0].strip().lower() != _MSGPACK:
        return decode(content)
    try:
        return msgspec.msgpack.decode(content, type=Batch)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Invalid(f"This is not a batch of run data: {error}") from error


def _run(run: Run) -> dict[str, Any]:
    document: dict[str, Any] = plain(run)
    return document


def _last_values(data: RunData) -> dict[str, Any]:
    return {
        "params": dict(data.params),
        "tags": dict(data.tags),
        "metrics": {key: plain(summary.last) for key, summary in data.metrics.items()},
    }

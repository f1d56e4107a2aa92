"""Workflow runs over HTTP: what works, waits and has failed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from modelyard.server.access import Caller, Routes, needs
from modelyard.server.routes.asking import By, Cursor, check_project, plain
from modelyard.workflows import Engine, Run, Status


def workflow_routes(engine: Engine) -> Routes:
    """Build the routes of workflow runs."""
    routes = Routes(tags=["workflows"])

    @routes.get("/workflows", openapi_extra=needs("read"))
    def list_workflows(
        *,
        caller: By,
        status: Status | None = None,
        name: Annotated[str | None, Query(max_length=200)] = None,
        subject: Annotated[str | None, Query(max_length=600)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        """List runs of workflows, newest first, without their steps."""
        page = engine.list(
            project=caller.project, status=status, name=name, subject=subject, limit=limit, cursor=cursor
        )
        return {"workflows": plain(page.runs), "cursor": page.cursor}

    @routes.get("/workflows/{workflow_id:path}", openapi_extra=needs("read"))
    def get_workflow(workflow_id: str, caller: By) -> dict[str, Any]:
        """Return a run with its steps and what it waits for."""
        document: dict[str, Any] = plain(_own(engine, workflow_id, caller))
        return document

    @routes.post("/workflows/{workflow_id:path}/cancel", openapi_extra=needs("deployment:write"))
    def cancel_workflow(workflow_id: str, caller: By) -> dict[str, Any]:
        """Cancel a run: its children are killed, its wait ends, steps that are done stay done."""
        _own(engine, workflow_id, caller)
        return {"cancelled": engine.cancel(workflow_id, actor=caller.actor)}

    return routes


def _own(engine: Engine, workflow_id: str, caller: Caller) -> Run:
    run = engine.get(workflow_id)
    check_project(caller, "workflow", workflow_id, project=run.project)
    return run

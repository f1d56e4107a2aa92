"""Endpoints and rollouts over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from modelyard.deployment import Canary, Deployment, Endpoint, Rollout
from modelyard.server.access import Caller, Routes, needs
from modelyard.server.routes.asking import By, Cursor, Limit, check_project, plain


class NewDeployment(BaseModel):
    """A version to bring to an endpoint."""

    model_config = ConfigDict(extra="forbid")
    version: str = Field(description="`model/3`, `model@alias`, `model/latest` or `model/production`.")
    rollout: dict[str, Any] | None = Field(default=None, description="Settings of the canary; defaults if absent.")
    replace_running: bool = False
    entity_key: str | None = None
    time_column: str | None = None


class Return(BaseModel):
    """What to go back to, and why."""

    model_config = ConfigDict(extra="forbid")
    to: int | None = Field(default=None, ge=1, lt=2**31)
    reason: str = Field(default="", max_length=10_000)


class Reason(BaseModel):
    """Why something is done."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(default="", max_length=10_000)


class Capture(BaseModel):
    """What is captured of an endpoint's predictions; what is absent stays."""

    model_config = ConfigDict(extra="forbid")
    sample: float | None = Field(default=None, ge=0, le=1)
    redact: list[str] | None = None


def endpoint_routes(deployment: Deployment) -> Routes:
    """Build the routes of endpoints."""
    routes = Routes(tags=["endpoints"])

    @routes.get("/endpoints", openapi_extra=needs("read"))
    def list_endpoints(caller: By, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """List endpoints by name."""
        found = deployment.list_endpoints(project=caller.project, after=cursor or "", limit=limit)
        return {"endpoints": plain(found), "cursor": found[-1].name if len(found) == limit else None}

    @routes.get("/endpoints/{endpoint}", openapi_extra=needs("read"))
    def get_endpoint(endpoint: str, caller: By) -> dict[str, Any]:
        """Return an endpoint with the rollout that is under way there."""
        found = deployment.get_endpoint(endpoint, project=caller.project)
        running = deployment.running_rollout(endpoint)
        return {**_endpoint(found), "rollout": None if running is None else _rollout(running)}

    @routes.post("/endpoints/{endpoint}/deploy", status_code=201, openapi_extra=needs("deployment:write"))
    def deploy(endpoint: str, new: NewDeployment, caller: By) -> dict[str, Any]:
        """Begin to bring a version to an endpoint, which is created if there is none."""
        started = deployment.deploy(
            endpoint,
            new.version,
            actor=caller.actor,
            rollout=None if new.rollout is None else Canary.from_json(new.rollout),
            project=caller.project,
            replace_running=new.replace_running,
            entity_key=new.entity_key,
            time_column=new.time_column,
        )
        return _rollout(started)

    @routes.put("/endpoints/{endpoint}/capture", openapi_extra=needs("deployment:write"))
    def configure(endpoint: str, capture: Capture, caller: By) -> dict[str, Any]:
        """Change what is captured of an endpoint's predictions."""
        redact = None if capture.redact is None else tuple(capture.redact)
        changed = deployment.configure(
            endpoint, actor=caller.actor, project=caller.project, sample=capture.sample, redact=redact
        )
        return _endpoint(changed)

    @routes.delete("/endpoints/{endpoint}", status_code=204, openapi_extra=needs("deployment:write"))
    def delete(endpoint: str, caller: By, reason: Annotated[str, Query(max_length=10_000)] = "") -> None:
        """Stop answering at an endpoint and forget it; its events and predictions stay."""
        deployment.delete(endpoint, actor=caller.actor, reason=reason, project=caller.project)

    return routes


def rollout_routes(deployment: Deployment) -> Routes:
    """Build the routes of rollouts."""
    routes = Routes(tags=["rollouts"])

    @routes.get("/endpoints/{endpoint}/rollouts", openapi_extra=needs("read"))
    def list_rollouts(
        endpoint: str, caller: By, limit: Annotated[int, Query(ge=1, le=500)] = 50, cursor: Cursor = None
    ) -> dict[str, Any]:
        """List rollouts of an endpoint, newest first."""
        deployment.get_endpoint(endpoint, project=caller.project)
        found = deployment.list_rollouts(endpoint, before=cursor, limit=limit)
        return {
            "rollouts": [_rollout(each) for each in found],
            "cursor": found[-1].id if len(found) == limit else None,
        }

    @routes.get("/rollouts/{rollout_id}", openapi_extra=needs("read"))
    def get_rollout(rollout_id: str, caller: By) -> dict[str, Any]:
        """Return a rollout with what its guard said last."""
        return _rollout(own_rollout(deployment, rollout_id, caller))

    @routes.post("/endpoints/{endpoint}/rollback", openapi_extra=needs("deployment:write"))
    def rollback(endpoint: str, back: Return, caller: By) -> dict[str, Any]:
        """Take back what was deployed last: end the rollout under way, or return to an earlier champion."""
        ended = deployment.rollback(endpoint, back.to, actor=caller.actor, reason=back.reason, project=caller.project)
        champion = deployment.get_endpoint(endpoint, project=caller.project).champion
        return {**_rollout(ended), "champion": champion}

    @routes.post("/endpoints/{endpoint}/abort", openapi_extra=needs("deployment:write"))
    def abort(endpoint: str, why: Reason, caller: By) -> dict[str, Any]:
        """End the rollout under way; the champion answers everything again."""
        return _rollout(deployment.abort(endpoint, actor=caller.actor, reason=why.reason, project=caller.project))

    @routes.post("/endpoints/{endpoint}/hold", openapi_extra=needs("deployment:write"))
    def hold(endpoint: str, why: Reason, caller: By) -> dict[str, Any]:
        """Keep the rollout under way at its step; its guard goes on watching."""
        return _rollout(deployment.hold(endpoint, actor=caller.actor, reason=why.reason, project=caller.project))

    @routes.post("/endpoints/{endpoint}/resume", openapi_extra=needs("deployment:write"))
    def resume(endpoint: str, why: Reason, caller: By) -> dict[str, Any]:
        """Let a held rollout go on."""
        return _rollout(deployment.resume(endpoint, actor=caller.actor, reason=why.reason, project=caller.project))

    return routes


def own_rollout(deployment: Deployment, rollout_id: str, caller: Caller) -> Rollout:
    """Return a rollout of the caller's project.

    Raises:
        NotFound: If there is none of this id in the project.
    """
    found = deployment.get_rollout(rollout_id)
    check_project(caller, "rollout", rollout_id, project=found.project)
    return found


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    document: dict[str, Any] = plain(endpoint)
    return document


def _rollout(rollout: Rollout) -> dict[str, Any]:
    return {**plain(rollout), "canary": rollout.canary.to_json(), "traffic": rollout.weight / 10_000}

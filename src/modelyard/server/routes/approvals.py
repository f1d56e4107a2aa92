"""Approvals over HTTP: asked for, granted, refused, taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from modelyard.events import Actor
from modelyard.registry import Approval, ApprovalStatus, Registry, VersionId
from modelyard.server.access import Caller, Routes, needs
from modelyard.server.routes.asking import By, Cursor, Limit, check_project, plain

# Label of the operating-system user on loopback without a secret, who stands for everybody.
_EVERY_LABEL = "*"
_LONGEST_S = 10 * 366 * 86_400


class NewApproval(BaseModel):
    """A request that people approve an action on a version."""

    model_config = ConfigDict(extra="forbid")
    label: str
    action: str = "deploy"
    quorum: int = Field(default=1, ge=1, le=100)
    evidence: dict[str, Any] = Field(default_factory=dict)
    note: str = ""
    expires_after_s: float | None = Field(default=None, gt=0, le=_LONGEST_S)
    on_timeout: Literal["expire", "refuse"] = "expire"
    valid_until: datetime | None = None


class Answer(BaseModel):
    """One person's answer to a request."""

    model_config = ConfigDict(extra="forbid")
    digest: str | None = None
    comment: str = ""


class Reason(BaseModel):
    """Why an approval is taken back."""

    model_config = ConfigDict(extra="forbid")
    reason: str


def approval_routes(registry: Registry) -> Routes:
    """Build the routes of approvals."""
    routes = Routes(tags=["approvals"])

    @routes.get("/approvals", openapi_extra=needs("read"))
    def list_approvals(
        caller: By,
        status: Annotated[ApprovalStatus, Query()] = "requested",
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        """List requests in a status, oldest first."""
        found = registry.list_approvals(project=caller.project, status=status, after=cursor or "", limit=limit)
        return {"approvals": plain(found), "cursor": found[-1].id if len(found) == limit else None}

    @routes.get("/approvals/{approval_id}", openapi_extra=needs("read"))
    def get_approval(approval_id: str, caller: By) -> dict[str, Any]:
        """Return a request with its votes and the digest that a vote is bound to."""
        return _json(_own(registry, approval_id, caller))

    @routes.get("/models/{model}/versions/{number}/approvals", openapi_extra=needs("read"))
    def approvals_of(model: str, number: int, caller: By) -> dict[str, Any]:
        """Return every request about a version, oldest first."""
        version = registry.get_version(VersionId(model, number, caller.project))
        return {"approvals": plain(registry.approvals_of(version))}

    _add_decisions(routes, registry)
    return routes


def _add_decisions(routes: Routes, registry: Registry) -> None:
    @routes.post("/models/{model}/versions/{number}/approvals", status_code=201, openapi_extra=needs("model:write"))
    def request_approval(model: str, number: int, new: NewApproval, caller: By) -> dict[str, Any]:
        """Ask people with a governance label to approve an action on a version."""
        made = registry.request_approval(
            VersionId(model, number, caller.project),
            label=new.label,
            actor=caller.actor,
            action=new.action,
            quorum=new.quorum,
            evidence=new.evidence,
            note=new.note,
            expires_after=None if new.expires_after_s is None else timedelta(seconds=new.expires_after_s),
            on_timeout=new.on_timeout,
            valid_until=new.valid_until,
        )
        return _json(made)

    @routes.post("/approvals/{approval_id}/grant", openapi_extra=needs("approval:decide"))
    def grant(approval_id: str, answer: Answer, caller: By) -> dict[str, Any]:
        """Say yes; granted once enough people have."""
        approval = _own(registry, approval_id, caller)
        actor = _voter(caller, approval)
        return _json(registry.grant(approval_id, actor=actor, digest=answer.digest, comment=answer.comment))

    @routes.post("/approvals/{approval_id}/refuse", openapi_extra=needs("approval:decide"))
    def refuse(approval_id: str, answer: Answer, caller: By) -> dict[str, Any]:
        """Say no; one person's no refuses the request."""
        approval = _own(registry, approval_id, caller)
        actor = _voter(caller, approval)
        return _json(registry.refuse(approval_id, actor=actor, digest=answer.digest, comment=answer.comment))

    @routes.post("/approvals/{approval_id}/revoke", openapi_extra=needs("approval:decide"))
    def revoke(approval_id: str, why: Reason, caller: By) -> dict[str, Any]:
        """Take a granted approval back, or withdraw an open request."""
        approval = _own(registry, approval_id, caller)
        return _json(registry.revoke(approval_id, actor=_voter(caller, approval), reason=why.reason))

    @routes.delete("/approvals/{approval_id}", openapi_extra=needs("model:write"))
    def withdraw(approval_id: str, caller: By) -> dict[str, Any]:
        """Withdraw an open request of one's own."""
        _own(registry, approval_id, caller)
        return _json(registry.revoke(approval_id, actor=caller.actor, reason="withdrawn"))


def _own(registry: Registry, approval_id: str, caller: Caller) -> Approval:
    approval = registry.get_approval(approval_id)
    check_project(caller, "approval", approval_id, project=approval.version.project)
    return approval


def _voter(caller: Caller, approval: Approval) -> Actor:
    """Return who votes; the operating-system user on loopback carries whatever label is asked for."""
    actor = caller.actor
    if _EVERY_LABEL in actor.labels:
        return replace(actor, labels=actor.labels | {approval.label})
    return actor


def _json(approval: Approval) -> dict[str, Any]:
    document: dict[str, Any] = plain(approval)
    return document

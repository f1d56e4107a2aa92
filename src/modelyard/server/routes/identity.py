"""Users, tokens and projects over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field

from modelyard.server.access import Caller, Routes, current_caller, needs
from modelyard.server.identity import EVERYWHERE, Identity, Token, User

By = Annotated[Caller, Depends(current_caller)]


class NewUser(BaseModel):
    """A user to create."""

    model_config = ConfigDict(extra="forbid")
    name: str
    roles: list[str] = Field(default_factory=list)
    labels: list[str] = Field(default_factory=list)
    project: str = EVERYWHERE
    password: str | None = None


class NewRoles(BaseModel):
    """A user's access roles in one project."""

    model_config = ConfigDict(extra="forbid")
    roles: list[str]
    project: str = EVERYWHERE


class NewPassword(BaseModel):
    """A password to set."""

    model_config = ConfigDict(extra="forbid")
    password: str


class NewToken(BaseModel):
    """A token to create."""

    model_config = ConfigDict(extra="forbid")
    user: str
    name: str = ""
    permissions: list[str] = Field(default_factory=list)
    expires_at: datetime | None = None


class NewProject(BaseModel):
    """A project to create."""

    model_config = ConfigDict(extra="forbid")
    name: str
    description: str = ""


def user_routes(identity: Identity) -> Routes:
    """Build the routes of users."""
    routes = Routes(tags=["users"])

    @routes.get("/whoami", openapi_extra=needs("read"))
    def whoami(caller: By) -> dict[str, Any]:
        """Say who the caller is and what it may do."""
        return {
            "name": caller.actor.name,
            "roles": sorted(caller.actor.roles),
            "labels": sorted(caller.actor.labels),
            "permissions": sorted(caller.permissions),
            "project": caller.project,
        }

    @routes.get("/users", openapi_extra=needs("user:read"))
    def list_users() -> dict[str, Any]:
        """List all users."""
        return {"users": [_user(user) for user in identity.users()]}

    @routes.post("/users", status_code=201, openapi_extra=needs("user:write"))
    def create_user(new: NewUser, caller: By) -> dict[str, Any]:
        """Create a person or a service account."""
        user = identity.create_user(
            new.name,
            actor=caller.actor,
            roles={new.project: frozenset(new.roles)},
            labels=frozenset(new.labels),
            password=new.password,
        )
        return _user(user)

    @routes.put("/users/{name}/roles", openapi_extra=needs("user:write"))
    def set_roles(name: str, new: NewRoles, caller: By) -> dict[str, Any]:
        """Replace a user's access roles in one project."""
        return _user(identity.set_roles(name, new.project, frozenset(new.roles), actor=caller.actor))

    @routes.put("/users/{name}/password", status_code=204, openapi_extra=needs("user:write"))
    def set_password(name: str, new: NewPassword, caller: By) -> None:
        """Replace a user's password."""
        identity.set_password(name, new.password, actor=caller.actor)

    return routes


def token_routes(identity: Identity) -> Routes:
    """Build the routes of tokens."""
    routes = Routes(tags=["tokens"])

    @routes.get("/tokens", openapi_extra=needs("user:read"))
    def list_tokens() -> dict[str, Any]:
        """List all tokens; secrets are never shown again."""
        return {"tokens": [_token(token) for token in identity.tokens()]}

    @routes.post("/tokens", status_code=201, openapi_extra=needs("user:write"))
    def create_token(new: NewToken, caller: By) -> dict[str, Any]:
        """Create a token; the answer is the only place where its secret is shown."""
        token, secret = identity.create_token(
            new.user,
            new.name,
            actor=caller.actor,
            permissions=frozenset(new.permissions),
            expires_at=new.expires_at,
        )
        return {**_token(token), "secret": secret}

    @routes.delete("/tokens/{token_id}", status_code=204, openapi_extra=needs("user:write"))
    def revoke_token(token_id: str, caller: By) -> None:
        """Revoke a token at once."""
        identity.revoke_token(token_id, actor=caller.actor)

    return routes


def project_routes(identity: Identity) -> Routes:
    """Build the routes of projects."""
    routes = Routes(tags=["projects"])

    @routes.get("/projects", openapi_extra=needs("read"))
    def list_projects() -> dict[str, Any]:
        """List all projects."""
        return {"projects": [asdict(project) for project in identity.projects()]}

    @routes.post("/projects", status_code=201, openapi_extra=needs("project:write"))
    def create_project(new: NewProject, caller: By) -> dict[str, Any]:
        """Create a project."""
        return asdict(identity.create_project(new.name, actor=caller.actor, description=new.description))

    return routes


def _user(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "roles": {project: sorted(roles) for project, roles in user.roles.items()},
        "labels": sorted(user.labels),
        "created_at": user.created_at,
        "has_password": user.has_password,
        "disabled": user.disabled,
    }


def _token(token: Token) -> dict[str, Any]:
    return {**asdict(token), "permissions": sorted(token.permissions)}

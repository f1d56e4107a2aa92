"""Who asks, and whether they may: every route declares its permission through ``Routes``."""

from __future__ import annotations

import base64
import getpass
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request

from modelyard.errors import Invalid, Unauthenticated
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.server.identity import ROLES, Identity, require

PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes this request, in which project."""

    actor: Actor
    permissions: frozenset[str]
    project: str

    def require(self, permission: str) -> None:
        """Refuse unless the caller has this further permission."""
        require(self.permissions, permission, actor=self.actor)


class Access:
    """Turns a request into a caller.

    Args:
        identity: Users and tokens.
        open_to_local: True on loopback without a secret: a request without credentials then comes from the
            operating-system user, who has all roles and labels.
    """

    def __init__(self, identity: Identity, *, open_to_local: bool) -> None:
        self._identity = identity
        self._open_to_local = open_to_local

    def caller(self, request: Request) -> Caller:
        """Authenticate a request.

        Raises:
            Unauthenticated: If credentials are missing where they are needed, or wrong.
        """
        project = request.headers.get("x-modelyard-project", DEFAULT_PROJECT)
        header = request.headers.get("authorization")
        if header is None:
            if self._open_to_local:
                return Caller(local_actor(), frozenset({"*"}), project)
            raise Unauthenticated("Say who you are: send a token as Bearer, or a user name and password.")
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "bearer":
            actor, permissions = self._identity.authenticate_token(value.strip(), project=project)
        elif scheme.lower() == "basic":
            actor, permissions = self._basic(value.strip(), project)
        else:
            raise Unauthenticated("The Authorization header must be Bearer or Basic.")
        return Caller(actor, permissions, project)

    def _basic(self, value: str, project: str) -> tuple[Actor, frozenset[str]]:
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError as error:
            raise Unauthenticated("The Basic credentials are not valid base64.") from error
        # Foreign clients that know only Basic send a token as the password.
        if password.startswith("my_"):
            return self._identity.authenticate_token(password, project=project)
        return self._identity.authenticate_password(name, password, project=project)


def local_actor() -> Actor:
    """Return the operating-system user, who has every role and label on loopback without a secret."""
    return Actor(getpass.getuser(), frozenset(ROLES), frozenset({"*"}))


class Routes(APIRouter):
    """A router whose every route says which permission it needs, beside itself.

    ``route = routes.get("/runs", permission="read")``; the endpoint receives ``caller: Caller`` through
    ``current_caller``. ``PUBLIC`` marks the few routes that need none.
    """

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Register a route; refuses one without a permission.

        Raises:
            Invalid: If ``openapi_extra`` does not carry the permission.
        """
        permission = (options.get("openapi_extra") or {}).get("x-permission")
        if permission is None:
            raise Invalid(f"The route {path} declares no permission.")
        if permission != PUBLIC:
            options["dependencies"] = [*(options.get("dependencies") or ()), Depends(_checked(permission))]
        super().add_api_route(path, endpoint, **options)


def needs(permission: str) -> dict[str, str]:
    """Return the declaration that a route passes as ``openapi_extra``."""
    return {"x-permission": permission}


def current_caller(request: Request) -> Caller:
    """Return the authenticated caller of this request (a FastAPI dependency)."""
    cached = getattr(request.state, "caller", None)
    if cached is None:
        access: Access = request.app.state.access
        cached = request.state.caller = access.caller(request)
    assert isinstance(cached, Caller)  # noqa: S101  # set two lines above
    return cached


def _checked(permission: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        current_caller(request).require(permission)

    return check

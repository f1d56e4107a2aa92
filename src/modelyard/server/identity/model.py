"""People, what they may do, and the tokens that speak for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

ROLES = ("viewer", "contributor", "deployer", "approver", "admin", "auditor")

# What each access role may do; permissions are `object:verb`. `admin` may do everything.
PERMISSIONS: dict[str, frozenset[str]] = {
    "viewer": frozenset({"read"}),
    "contributor": frozenset({"read", "run:write", "model:write", "data:write", "feedback:write", "code:submit"}),
    "deployer": frozenset({"read", "deployment:write", "retraining:start", "predict", "feedback:write", "alert:write"}),
    "approver": frozenset({"read", "approval:decide"}),
    "auditor": frozenset({"read", "audit:read"}),
    "admin": frozenset({"*"}),
}


@dataclass(frozen=True, slots=True)
class User:
    """A person or a service account.

    Attributes:
        name: Unique login name.
        roles: Access roles per project; the project ``*`` stands for all.
        labels: Governance labels that an approval may ask for.
        has_password: Whether a password is set.
        disabled: Whether the account was switched off.
    """

    name: str
    roles: dict[str, frozenset[str]]
    labels: frozenset[str]
    created_at: datetime
    has_password: bool = False
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as it is listed; the secret itself is shown once, at creation.

    Attributes:
        token_id: Public part, also the prefix of the secret.
        permissions: Narrower than the user's own; empty means all that the user may do.
    """

    token_id: str
    user: str
    name: str
    permissions: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Project:
    """A name that separates one team's objects from another's."""

    name: str
    description: str
    created_at: datetime


def allows(granted: frozenset[str], permission: str) -> bool:
    """Say whether a set of permissions covers one, by itself, by its object, or by ``*``.

    >>> allows(frozenset({"predict"}), "predict:churn")
    True
    """
    return "*" in granted or permission in granted or permission.split(":", maxsplit=1)[0] in granted

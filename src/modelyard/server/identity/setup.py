"""What every home has from its first start."""

from __future__ import annotations

from modelyard.errors import Conflict, Unauthenticated
from modelyard.events import DEFAULT_PROJECT, SYSTEM
from modelyard.server.identity.service import EVERYWHERE, Identity


def ensure_project(identity: Identity, name: str) -> None:
    """Create a project if it does not exist."""
    if any(project.name == name for project in identity.projects()):
        return
    try:
        identity.create_project(name, actor=SYSTEM)
    except Conflict:  # another process of this home was faster
        return


def ensure_admin(identity: Identity, name: str, secret: str) -> None:
    """Create the administrator, or bring the password to the configured secret."""
    if all(user.name != name for user in identity.users()):
        try:
            roles = {EVERYWHERE: frozenset({"admin"})}
            identity.create_user(name, actor=SYSTEM, roles=roles, password=secret)
        except Conflict:
            return
        return
    try:
        identity.authenticate_password(name, secret, project=DEFAULT_PROJECT)
    except Unauthenticated:
        identity.set_password(name, secret, actor=SYSTEM)

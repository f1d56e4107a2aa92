"""Users, tokens, access roles and projects."""

from modelyard.server.identity.model import PERMISSIONS, ROLES, Project, Token, User, allows
from modelyard.server.identity.service import EVERYWHERE, Identity, permissions_of, require

__all__ = [
    "EVERYWHERE",
    "PERMISSIONS",
    "ROLES",
    "Identity",
    "Project",
    "Token",
    "User",
    "allows",
    "permissions_of",
    "require",
]

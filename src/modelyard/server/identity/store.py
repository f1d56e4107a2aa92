"""Tables of users, tokens and projects."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from modelyard.server.identity.model import Project, Token, User
from modelyard.storage import Json, Transaction, UtcTime, metadata

users = sa.Table(
    "users",
    metadata,
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("password_hash", sa.String(250)),
    sa.Column("roles", Json, nullable=False),
    sa.Column("labels", Json, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("token_id", sa.String(26), primary_key=True),
    sa.Column("secret_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("user", sa.String(250), sa.ForeignKey("users.name"), nullable=False, index=True),
    sa.Column("name", sa.String(250), nullable=False),
    sa.Column("permissions", Json, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime),
    sa.Column("revoked_at", UtcTime),
)

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
)


def find_user(connection: sa.Connection, name: str) -> User | None:
    """Return a user by login name."""
    row = connection.execute(sa.select(users).where(users.c.name == name)).one_or_none()
    return None if row is None else _user(row)


def list_users(connection: sa.Connection) -> list[User]:
    """Return all users by name."""
    return [_user(row) for row in connection.execute(sa.select(users).order_by(users.c.name).limit(10_000))]


def password_hash(connection: sa.Connection, name: str) -> str | None:
    """Return the stored hash of a user's password."""
    query = sa.select(users.c.password_hash).where(users.c.name == name)
    value = connection.execute(query).scalar()
    return None if value is None else str(value)


def save_user(tx: Transaction, user: User, *, password_hash: str | None) -> None:
    """Insert or overwrite a user."""
    tx.upsert(
        users,
        {
            "name": user.name,
            "password_hash": password_hash,
            "roles": {project: sorted(roles) for project, roles in user.roles.items()},
            "labels": sorted(user.labels),
            "created_at": user.created_at,
            "disabled": user.disabled,
        },
    )


def add_token(tx: Transaction, token: Token, *, secret_sha256: str) -> None:
    """Insert a token; only the digest of its secret is stored."""
    tx.execute(
        sa.insert(tokens).values(
            token_id=token.token_id,
            secret_sha256=secret_sha256,
            user=token.user,
            name=token.name,
            permissions=sorted(token.permissions),
            created_at=token.created_at,
            expires_at=token.expires_at,
            revoked_at=token.revoked_at,
        )
    )


def find_token(connection: sa.Connection, *, secret_sha256: str) -> Token | None:
    """Return the token with this digest."""
    row = connection.execute(sa.select(tokens).where(tokens.c.secret_sha256 == secret_sha256)).one_or_none()
    return None if row is None else _token(row)


def get_token(connection: sa.Connection, token_id: str) -> Token | None:
    """Return a token by its public id."""
    row = connection.execute(sa.select(tokens).where(tokens.c.token_id == token_id)).one_or_none()
    return None if row is None else _token(row)


def list_tokens(connection: sa.Connection) -> list[tuple[Token, str]]:
    """Return all tokens, newest first, each with the digest of its secret."""
    query = sa.select(tokens).order_by(tokens.c.token_id.desc()).limit(10_000)
    return [(_token(row), row.secret_sha256) for row in connection.execute(query)]


def set_revoked(tx: Transaction, token: Token) -> None:
    """Store when a token was revoked."""
    statement = sa.update(tokens).where(tokens.c.token_id == token.token_id)
    tx.execute(statement.values(revoked_at=token.revoked_at))


def add_project(tx: Transaction, project: Project) -> bool:
    """Insert a project; return False if the name is taken."""
    return tx.insert_if_absent(
        projects,
        {"name": project.name, "description": project.description, "created_at": project.created_at},
    )


def list_projects(connection: sa.Connection) -> list[Project]:
    """Return all projects by name."""
    query = sa.select(projects).order_by(projects.c.name).limit(10_000)
    return [Project(row.name, row.description, row.created_at) for row in connection.execute(query)]


def _user(row: sa.Row[Any]) -> User:
    roles = {project: frozenset(names) for project, names in row.roles.items()}
    return User(
        name=row.name,
        roles=roles,
        labels=frozenset(row.labels),
        created_at=row.created_at,
        has_password=row.password_hash is not None,
        disabled=row.disabled,
    )


def _token(row: sa.Row[Any]) -> Token:
    return Token(
        token_id=row.token_id,
        user=row.user,
        name=row.name,
        permissions=frozenset(row.permissions),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )

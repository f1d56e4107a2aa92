"""``modelyard user`` and ``modelyard token``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from modelyard.cli.session import Session, command

users = typer.Typer(help="People, their access roles and governance labels.", no_args_is_help=True)
tokens = typer.Typer(help="API tokens.", no_args_is_help=True)

_USER_COLUMNS = {"name": "NAME", "roles": "ROLES BY PROJECT", "labels": "LABELS", "created_at": "SINCE"}
_TOKEN_COLUMNS = {
    "token_id": "TOKEN",
    "user": "USER",
    "name": "NAME",
    "permissions": "ONLY FOR",
    "expires_at": "EXPIRES",
    "revoked_at": "REVOKED",
}


@command(users, "list")
def list_users(session: Session) -> None:
    """List all users."""
    session.table(
        session.client.get("/users")["users"],
        _USER_COLUMNS,
        empty="There are no users: on loopback everybody is the operating-system user.",
        next_command="modelyard user add NAME --role viewer",
    )


@command(users, "add")
def add_user(
    session: Session,
    name: Annotated[str, typer.Argument(help="Login name.")],
    role: Annotated[list[str] | None, typer.Option(help="Access role; may be repeated.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Governance label; may be repeated.")] = None,
    project: Annotated[str, typer.Option(help="Project of the roles; * stands for all.")] = "*",
    password: Annotated[str | None, typer.Option(help="Password, at least 12 characters.")] = None,
) -> None:
    """Create a person or a service account."""
    body = {
        "name": name,
        "roles": role or [],
        "labels": label or [],
        "project": project,
        "password": password,
    }
    session.answer(
        session.client.post("/users", body),
        f"Created the user {name}.",
        next_command=f"modelyard token create {name}",
    )


@command(users, "roles")
def set_roles(
    session: Session,
    name: Annotated[str, typer.Argument(help="Login name.")],
    role: Annotated[list[str] | None, typer.Option(help="Access role; may be repeated; none removes all.")] = None,
    project: Annotated[str, typer.Option(help="Project of the roles; * stands for all.")] = "*",
) -> None:
    """Replace a user's access roles in one project."""
    answer = session.client.put(f"/users/{name}/roles", {"roles": role or [], "project": project})
    session.answer(answer, f"{name} now has: {', '.join(role or []) or 'no role'}.", next_command="modelyard user list")


@command(tokens, "list")
def list_tokens(session: Session) -> None:
    """List all tokens; secrets are never shown again."""
    session.table(
        session.client.get("/tokens")["tokens"],
        _TOKEN_COLUMNS,
        empty="There are no tokens.",
        next_command="modelyard token create USER",
    )


@command(tokens, "create")
def create_token(
    session: Session,
    user: Annotated[str, typer.Argument(help="Whom the token speaks for.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    permission: Annotated[list[str] | None, typer.Option(help="Narrow it down; may be repeated.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; never by default.")] = None,
) -> None:
    """Create a token; its secret is shown this once."""
    expires = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    body = {"user": user, "name": name, "permissions": permission or [], "expires_at": expires}
    answer = session.client.post("/tokens", body)
    text = f"{answer['secret']}\nKeep it: it is not shown again."
    session.answer(answer, text, next_command="export MODELYARD_TOKEN=…")


@command(tokens, "revoke")
def revoke_token(session: Session, token: Annotated[str, typer.Argument(help="Id of the token.")]) -> None:
    """Revoke a token at once."""
    session.client.delete(f"/tokens/{token}")
    session.answer({"revoked": token}, f"Revoked {token}.", next_command="modelyard token list")

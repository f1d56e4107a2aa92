"""Use cases of identity: who is there, who is asking, and what may they do."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from modelyard.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated, nearest
from modelyard.events import Actor, Clock, Event, EventLog
from modelyard.server.identity import store
from modelyard.server.identity.model import PERMISSIONS, ROLES, Project, Token, User, allows
from modelyard.storage import Database, NewId, ulid

EVERYWHERE = "*"
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,250}")
_MIN_PASSWORD = 12
_SECRET_PREFIX = "my_"  # noqa: S105  # the visible start of every token, so that scanners recognise one


class Identity:
    """Users, tokens and projects.

    Args:
        database: Metadata database.
        events: Event log.
        clock: Wall clock: tokens expire in real time, also during a replay.
        new_id: Source of ids.
    """

    def __init__(self, database: Database, events: EventLog, clock: Clock, *, new_id: NewId = ulid) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._new_id = new_id

    def create_user(
        self,
        name: str,
        *,
        actor: Actor,
        roles: Mapping[str, frozenset[str]] | None = None,
        labels: frozenset[str] = frozenset(),
        password: str | None = None,
    ) -> User:
        """Create a person or a service account.

        Args:
            name: Unique login name, at most 250 characters, no slash or control character.
            actor: Who asks.
            roles: Access roles by project; the project ``*`` stands for all.
            labels: Governance labels such as ``risk``.
            password: At least 12 characters, or None for an account that only has tokens.

        Raises:
            Invalid: If the name, a role or the password is not acceptable.
            Conflict: If the name is taken.
        """
        _check_name("user name", name)
        granted = {project: _checked_roles(names) for project, names in (roles or {}).items()}
        user = User(name, granted, labels, self._clock.now(), has_password=password is not None)
        hashed = None if password is None else _hash(password)
        with self._database.transaction() as tx:
            if store.find_user(tx.connection, name) is not None:
                raise Conflict(f"There is a user {name!r} already.", name=name)
            store.save_user(tx, user, password_hash=hashed)
            self._events.record(tx, self._event("user.created", f"user:{name}", actor, after=_public(user)))
        return user

    def set_roles(self, name: str, project: str, roles: frozenset[str], *, actor: Actor) -> User:
        """Replace a user's access roles in one project."""
        with self._database.transaction() as tx:
            before = self._known(store.find_user(tx.connection, name), name)
            after = replace(before, roles={**before.roles, project: _checked_roles(roles)})
            store.save_user(tx, after, password_hash=store.password_hash(tx.connection, name))
            self._events.record(
                tx,
                self._event("user.changed", f"user:{name}", actor, before=_public(before), after=_public(after)),
            )
        return after

    def set_password(self, name: str, password: str, *, actor: Actor) -> None:
        """Replace a user's password; the old one is valid nowhere from the next request on."""
        hashed = _hash(password)
        with self._database.transaction() as tx:
            user = self._known(store.find_user(tx.connection, name), name)
            store.save_user(tx, user, password_hash=hashed)
            self._events.record(tx, self._event("user.password_changed", f"user:{name}", actor))

    def users(self) -> list[User]:
        """Return all users by name."""
        with self._database.reading() as connection:
            return store.list_users(connection)

    def create_token(
        self,
        user: str,
        name: str,
        *,
        actor: Actor,
        permissions: frozenset[str] = frozenset(),
        expires_at: datetime | None = None,
    ) -> tuple[Token, str]:
        """Create an API token.

        Returns:
            The token and its secret, which is stored nowhere and cannot be shown again.
        """
        token_id = self._new_id()
        secret = f"{_SECRET_PREFIX}{token_id}_{secrets.token_urlsafe(32)}"
        token = Token(token_id, user, name, permissions, self._clock.now(), expires_at, revoked_at=None)
        with self._database.transaction() as tx:
            self._known(store.find_user(tx.connection, user), user)
            store.add_token(tx, token, secret_sha256=_digest(secret))
            self._events.record(
                tx,
                self._event(
                    "token.created",
                    f"token:{token_id}",
                    actor,
                    after={"user": user, "name": name, "permissions": sorted(permissions)},
                ),
            )
        return token, secret

    def revoke_token(self, token_id: str, *, actor: Actor) -> None:
        """Revoke a token at once. Revoking twice is harmless."""
        with self._database.transaction() as tx:
            token = store.get_token(tx.connection, token_id)
            if token is None:
                raise NotFound("token", token_id)
            if token.revoked_at is not None:
                return
            store.set_revoked(tx, replace(token, revoked_at=self._clock.now()))
            self._events.record(tx, self._event("token.revoked", f"token:{token_id}", actor))

    def tokens(self) -> list[Token]:
        """Return all tokens, newest first."""
        with self._database.reading() as connection:
            return [token for token, _ in store.list_tokens(connection)]

    def authenticate_token(self, secret: str, *, project: str) -> tuple[Actor, frozenset[str]]:
        """Say who a token speaks for in a project, and what it may do there.

        Raises:
            Unauthenticated: If the token is unknown, revoked or expired, or its user is disabled.
        """
        with self._database.reading() as connection:
            token = store.find_token(connection, secret_sha256=_digest(secret))
            if token is None or token.revoked_at is not None:
                raise Unauthenticated("This token is unknown or was revoked. Create one: modelyard token create")
            if token.expires_at is not None and token.expires_at <= self._clock.now():
                raise Unauthenticated("This token has expired. Create a new one: modelyard token create")
            user = store.find_user(connection, token.user)
        return self._as_actor(user, project, narrowed_to=token.permissions)

    def authenticate_password(self, name: str, password: str, *, project: str) -> tuple[Actor, frozenset[str]]:
        """Say who a user name and password stand for in a project.

        Raises:
            Unauthenticated: If they do not match.
        """
        from argon2 import PasswordHasher
        from argon2.exceptions import Argon2Error, InvalidHashError

        with self._database.reading() as connection:
            user = store.find_user(connection, name)
            hashed = store.password_hash(connection, name)
        try:
            # A missing user costs the same time as a wrong password.
            PasswordHasher().verify(hashed or _DUMMY_HASH, password)
        except (Argon2Error, InvalidHashError) as error:
            raise Unauthenticated("The user name or the password is wrong.") from error
        return self._as_actor(user if hashed else None, project)

    def create_project(self, name: str, *, actor: Actor, description: str = "") -> Project:
        """Create a project.

        Raises:
            Conflict: If the name is taken.
        """
        _check_name("project name", name)
        project = Project(name, description, self._clock.now())
        with self._database.transaction() as tx:
            if not store.add_project(tx, project):
                raise Conflict(f"There is a project {name!r} already.", name=name)
            event = self._event("project.created", f"project:{name}", actor, after={"description": description})
            self._events.record(tx, replace(event, project=name))
        return project

    def projects(self) -> list[Project]:
        """Return all projects by name."""
        with self._database.reading() as connection:
            return store.list_projects(connection)

    def _as_actor(
        self, user: User | None, project: str, *, narrowed_to: frozenset[str] = frozenset()
    ) -> tuple[Actor, frozenset[str]]:
        if user is None or user.disabled:
            raise Unauthenticated("The account does not exist or is switched off.")
        roles = user.roles.get(EVERYWHERE, frozenset()) | user.roles.get(project, frozenset())
        granted = permissions_of(roles)
        if narrowed_to:
            granted = frozenset(item for item in narrowed_to if allows(granted, item))
        return Actor(user.name, roles, user.labels), granted

    def _event(
        self,
        kind: str,
        subject: str,
        actor: Actor,
        *,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
    ) -> Event:
        return Event(kind, subject, actor.name, self._clock.now(), before=before, after=after)

    @staticmethod
    def _known(user: User | None, name: str) -> User:
        if user is None:
            raise NotFound("user", name, hint="List them: modelyard user list")
        return user


def permissions_of(roles: frozenset[str]) -> frozenset[str]:
    """Return all permissions that these access roles grant together."""
    return frozenset().union(*(PERMISSIONS[role] for role in roles))


def require(granted: frozenset[str], permission: str, *, actor: Actor) -> None:
    """Refuse unless a permission was granted.

    Raises:
        Forbidden: Names the permission and the roles that would grant it.
    """
    if not allows(granted, permission):
        fitting = [role for role, permissions in PERMISSIONS.items() if allows(permissions, permission)]
        raise Forbidden(
            f"{actor.name!r} may not do this: it needs the permission {permission!r}, "
            f"which the roles {', '.join(fitting)} have.",
            permission=permission,
        )


def _checked_roles(roles: frozenset[str]) -> frozenset[str]:
    for role in roles:
        if role not in ROLES:
            near = nearest(role, ROLES)
            raise Invalid(
                f"There is no role {role!r}; the roles are {', '.join(ROLES)}."
                + (f" Did you mean {near!r}?" if near else "")
            )
    return frozenset(roles)


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name == EVERYWHERE:
        raise Invalid(f"A {what} has 1 to 250 characters and no slash or control character.", name=name)


def _hash(password: str) -> str:
    from argon2 import PasswordHasher

    if len(password) < _MIN_PASSWORD:
        raise Invalid(f"A password has at least {_MIN_PASSWORD} characters.")
    return PasswordHasher().hash(password)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _public(user: User) -> dict[str, object]:
    roles = {project: sorted(names) for project, names in user.roles.items()}
    return {"roles": roles, "labels": sorted(user.labels), "disabled": user.disabled}


# A valid hash of random bytes that nobody knows.
_DUMMY_HASH = "$argon2id$v=19$m=65536,t=3,p=4$/7MqbzfIFxZNexKArE5T2w$119EwHuBXcu9Sl9yhU7COSwe7HKzbFGwoZKMqyy4x14"

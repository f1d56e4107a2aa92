"""Composition root: the only module that knows every concrete class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import Invalid
from modelyard.events import Clock, EventLog, EventTimeClock, SystemClock
from modelyard.settings import Settings
from modelyard.storage import Database
from modelyard.storage.schema import open_schema

if TYPE_CHECKING:
    from modelyard.sdk.client import Client
    from modelyard.server.access import Access, Routes
    from modelyard.server.identity import Identity

ADMIN = "admin"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class App:
    """Every service of one home folder, each built when it is first asked for.

    Args:
        settings: Settings of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.wall_clock: Clock = SystemClock()

    @cached_property
    def clock(self) -> Clock:
        """The injected clock that windows, bakes, budgets and schedules read."""
        if self.settings.clock == "system":
            return self.wall_clock
        if self.settings.clock == "event":
            return EventTimeClock(_EPOCH)
        raise Invalid(f"MODELYARD_CLOCK must be system or event, not {self.settings.clock!r}.")

    @cached_property
    def database(self) -> Database:
        """The metadata database, with its schema checked."""
        if not self.settings.database_url:
            self.settings.home.mkdir(parents=True, exist_ok=True)
        database = Database(self.settings.database)
        open_schema(database)
        return database

    @cached_property
    def events(self) -> EventLog:
        """The event log."""
        return EventLog(self.database, wall_clock=self.wall_clock)

    @cached_property
    def identity(self) -> Identity:
        """Users, tokens and projects."""
        from modelyard.server.identity import Identity

        return Identity(self.database, self.events, self.wall_clock)

    @property
    def keys(self) -> Path:
        """Folder of the audit key and of the checkpoints."""
        return self.settings.home / "keys"

    def access(self) -> Access:
        """Return what turns requests into callers."""
        from modelyard.server.access import Access

        return Access(self.identity, open_to_local=not self.settings.admin_secret)

    def routers(self) -> Sequence[Routes]:
        """Return every group of native routes."""
        from modelyard.server.routes.health import health_routes
        from modelyard.server.routes.history import history_routes
        from modelyard.server.routes.identity import project_routes, token_routes, user_routes

        return (
            health_routes(self.checks()),
            user_routes(self.identity),
            token_routes(self.identity),
            project_routes(self.identity),
            history_routes(self.events, keys=self.keys, wall_clock=self.wall_clock),
        )

    def checks(self) -> dict[str, Callable[[], str | None]]:
        """Return what readiness asks, by part."""
        return {"database": self._database_answers}

    def application(self) -> Any:
        """Return the control plane's ASGI application."""
        from modelyard.server.application import create_application

        self.prepare()
        return create_application(self.access(), self.routers(), settings=self.settings)

    def prepare(self) -> None:
        """Create what every home has: the default project, and the administrator when a secret is set.

        Raises:
            Invalid: If the server would be reachable from other machines without a secret.
        """
        if not self.settings.on_loopback and not self.settings.admin_secret:
            raise Invalid(
                f"The address {self.settings.host} is reachable from other machines: "
                "set MODELYARD_ADMIN_SECRET (at least 12 characters) first."
            )
        from modelyard.server.identity.setup import ensure_admin, ensure_project

        ensure_project(self.identity, "default")
        if self.settings.admin_secret:
            ensure_admin(self.identity, ADMIN, self.settings.admin_secret)

    def local_client(self) -> Client:
        """Return a client that works on the home folder inside this process."""
        from modelyard.sdk.client import Client
        from modelyard.sdk.local import LocalTransport

        return Client(
            "http://localhost",
            token=self.settings.token,
            project=self.settings.project,
            transport=LocalTransport(self.application()),
        )

    def _database_answers(self) -> str | None:
        import sqlalchemy as sa

        with self.database.reading() as connection:
            connection.execute(sa.select(1))
        return None


def connect(settings: Settings) -> Client:
    """Return a client: of the server that was named, of the home's live control plane, or local.

    Args:
        settings: ``server`` wins over ``home``.
    """
    from modelyard.sdk.client import Client
    from modelyard.server.control import read_control

    if settings.server:
        return Client(settings.server, token=settings.token, project=settings.project)
    control = read_control(settings.home)
    if control is not None:
        return Client(control.url, token=settings.token, project=settings.project)
    return App(settings).local_client()

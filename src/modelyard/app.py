"""Composition root: the only module that knows every concrete class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import Invalid, ModelyardError
from modelyard.events import Clock, EventLog, EventTimeClock, SystemClock
from modelyard.settings import Settings
from modelyard.storage import Database
from modelyard.storage.schema import open_schema

if TYPE_CHECKING:
    from modelyard.deployment import Deployment
    from modelyard.registry import Registry
    from modelyard.sdk.client import Client
    from modelyard.server.access import Access, Routes
    from modelyard.server.background import Background
    from modelyard.server.identity import Identity
    from modelyard.serving.collector import Collector
    from modelyard.serving.publisher import RoutePublisher
    from modelyard.serving.upkeep import LogUpkeep
    from modelyard.storage.objects import ObjectStore
    from modelyard.storage.predictions import PredictionStore
    from modelyard.storage.series import SeriesStore
    from modelyard.tracking import Tracking
    from modelyard.workflows import Engine

ADMIN = "admin"
Check = Callable[[], str | None]
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

    @cached_property
    def objects(self) -> ObjectStore:
        """Bytes by digest."""
        from modelyard.storage.objects import ObjectStore

        return ObjectStore.at(self.settings.home / "objects")

    @cached_property
    def series(self) -> SeriesStore:
        """Metric histories."""
        from modelyard.storage.series import SeriesStore

        return SeriesStore(self.database)

    @cached_property
    def predictions(self) -> PredictionStore:
        """The prediction log."""
        from modelyard.storage.predictions import PredictionStore

        return PredictionStore(self.database, self.settings.home / "predictions")

    @cached_property
    def tracking(self) -> Tracking:
        """Experiments and runs."""
        from modelyard.tracking import Tracking

        return Tracking(self.database, self.events, self.clock, objects=self.objects, series=self.series)

    @cached_property
    def registry(self) -> Registry:
        """Models and versions."""
        from modelyard.registry import Registry

        return Registry(self.database, self.events, self.clock, objects=self.objects, tracking=self.tracking)

    @cached_property
    def publisher(self) -> RoutePublisher:
        """Route tables for the serving workers."""
        from modelyard.serving.publisher import RoutePublisher

        return RoutePublisher(self.settings.home)

    @cached_property
    def engine(self) -> Engine:
        """Workflows; only the control plane launches it, everybody else writes and reads rows."""
        from modelyard.workflows import Engine

        logs = self.settings.home / "logs" / "workflows"
        return Engine(self.database, self.events, clock=self.clock, executor_id="control", logs=logs)

    @cached_property
    def deployment(self) -> Deployment:
        """Endpoints and rollouts; must exist before the engine is launched, where it registers its workflow."""
        from modelyard.deployment import Deployment

        return Deployment(
            self.database,
            self.events,
            self.clock,
            registry=self.registry,
            publisher=self.publisher,
            predictions=self.predictions,
            workflows=self.engine,
        )

    @cached_property
    def log_upkeep(self) -> LogUpkeep:
        """Upkeep of the prediction log."""
        from modelyard.serving.upkeep import LogUpkeep

        keep = timedelta(days=self.settings.retain_predictions_days)
        return LogUpkeep(self.predictions, self.events, self.clock, keep=keep)

    def collector(self) -> Collector:
        """Return what turns the workers' records into prediction rows."""
        from modelyard.serving.collector import Collector
        from modelyard.serving.publisher import ServingPaths

        paths = ServingPaths(self.settings.home)
        return Collector(paths, database=self.database, store=self.predictions)

    @cached_property
    def background(self) -> Background:
        """What the control plane repeats."""
        from modelyard.server.background import Background, Chore

        return Background(
            (
                Chore("rollouts", self.deployment.tick, every_s=0.2),
                Chore("stage requests", self.deployment.act_on_requests, every_s=1.0),
                Chore("workflows", self.engine.tick, every_s=0.5),
                Chore("approvals", self.registry.expire_approvals, every_s=5.0),
                Chore("metric histories", self.tracking.compact_histories, every_s=5.0),
                Chore("sealing predictions", self.log_upkeep.seal, every_s=30.0),
                Chore("retention", self.log_upkeep.retain, every_s=3600.0),
                Chore("sweeping", self.log_upkeep.sweep, every_s=600.0),
            )
        )

    @property
    def keys(self) -> Path:
        """Folder of the audit key and of the checkpoints."""
        return self.settings.home / "keys"

    def access(self) -> Access:
        """Return what turns requests into callers."""
        from modelyard.server.access import Access

        return Access(self.identity, open_to_local=not self.settings.admin_secret)

    def routers(self, checks: Mapping[str, Check] | None = None) -> Sequence[Routes]:
        """Return every group of native routes; ``checks`` replaces what readiness asks."""
        from modelyard.server.control import read_control
        from modelyard.server.routes.approvals import approval_routes
        from modelyard.server.routes.artifacts import artifact_routes, object_routes
        from modelyard.server.routes.clock import clock_routes
        from modelyard.server.routes.endpoints import endpoint_routes, rollout_routes
        from modelyard.server.routes.health import health_routes
        from modelyard.server.routes.history import history_routes
        from modelyard.server.routes.identity import project_routes, token_routes, user_routes
        from modelyard.server.routes.models import model_routes, version_routes
        from modelyard.server.routes.runs import run_routes
        from modelyard.server.routes.status import status_routes
        from modelyard.server.routes.uploads import Uploads
        from modelyard.server.routes.workflows import workflow_routes

        control = read_control(self.settings.home)
        uploads = Uploads(self.settings.home / "uploads", max_bytes=self.settings.max_upload_mb * 1_000_000)
        return (
            health_routes(self.checks() if checks is None else checks),
            user_routes(self.identity),
            token_routes(self.identity),
            project_routes(self.identity),
            history_routes(self.events, keys=self.keys, wall_clock=self.wall_clock),
            clock_routes(self.clock),
            run_routes(self.tracking),
            object_routes(self.objects, uploads),
            artifact_routes(self.tracking),
            model_routes(self.registry),
            version_routes(self.registry),
            approval_routes(self.registry),
            endpoint_routes(self.deployment),
            rollout_routes(self.deployment),
            workflow_routes(self.engine),
            status_routes(serve_url=control.serve_url if control else None),
        )

    def checks(self) -> dict[str, Check]:
        """Return what readiness asks, by part."""
        return {"database": self._database_answers}

    def application(self) -> Any:
        """Return the API as an ASGI application, without anything that runs in the background."""
        from modelyard.server.application import create_application

        self.prepare()
        return create_application(self.access(), self.routers(), settings=self.settings)

    def control_plane(self) -> Any:
        """Return the ASGI application of the control plane, whose lifespan runs workflows and chores."""
        # The workflow engine imports it on another thread, and SQLAlchemy looks into it half loaded.
        import sqlalchemy.orm  # noqa: F401

        from modelyard.server.application import create_application
        from modelyard.serving.model import RouteTable

        self.prepare()
        if self.publisher.current().generation == 0:
            self.publisher.publish(RouteTable(0, ()))  # workers are ready once they have a table, if an empty one
        starting = {"workflow engine": "starting"}
        checks = {
            **self.checks(),
            "workflow engine": lambda: starting.get("workflow engine"),
            "background": self.background.failing,
            "serving workers": self._workers_answer,
        }

        @asynccontextmanager
        async def lifespan(_: object) -> AsyncIterator[None]:
            # Launching takes a second or two; health answers meanwhile, readiness says what is missing.
            launched = asyncio.get_running_loop().run_in_executor(None, self._launch, starting)
            yield
            await launched
            await asyncio.get_running_loop().run_in_executor(None, self._shut_down)

        routers = self.routers(checks)
        return create_application(self.access(), routers, settings=self.settings, lifespan=lifespan)

    def _launch(self, starting: dict[str, str]) -> None:
        try:
            self.deployment.publish()
            self.engine.launch()
        except ModelyardError as error:
            starting["workflow engine"] = error.message
            return
        starting.clear()
        self.background.start()

    def _shut_down(self) -> None:
        self.background.stop()
        self.engine.close()

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

    def _workers_answer(self) -> str | None:
        workers = self.publisher.workers()
        ready = sum(worker.ready for worker in workers)
        if ready >= self.settings.workers:
            return None
        return f"{ready} of {self.settings.workers} are ready"

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

"""What every use case of deployment stands on, and the one way routes reach the workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from modelyard.deployment import store
from modelyard.deployment.arms import Outcome
from modelyard.deployment.model import Endpoint, Rollout
from modelyard.deployment.routes import build_routes
from modelyard.deployment.scores import ControlMemory
from modelyard.errors import Invalid, ModelyardError
from modelyard.events import Actor, Clock, Event, EventLog
from modelyard.registry import Registry, VersionId
from modelyard.serving.model import EndpointRoute, RouteTable
from modelyard.serving.publisher import RoutePublisher
from modelyard.storage import Database, NewId, Transaction, ulid
from modelyard.workflows import Definition, Start

if TYPE_CHECKING:
    from modelyard.storage.predictions import PredictionStore

log = logging.getLogger(__name__)

_PAGE = 1000

RolloutOutcomes = Callable[[Rollout, str], Outcome | None]
"""Measured outcomes of a rollout's arms by metric name (from labels); None if there are none yet."""


@dataclass(slots=True)
class Remembered:
    """The control's scores as of a prediction file, kept between two looks.

    Attributes:
        cursor_file: Number of the file.
        memory: The scores.
    """

    cursor_file: int
    memory: ControlMemory


class Workflows(Protocol):
    """What deployment needs of the workflow engine."""

    def register(self, definition: Definition) -> None:
        """Make a workflow known."""
        ...

    def start_in(self, tx: Transaction, request: Start, *, actor: Actor) -> str:
        """Start a run in the caller's transaction."""
        ...

    def signal_in(self, tx: Transaction, workflow_id: str, name: str, payload: Any = None, *, actor: Actor) -> bool:
        """Answer a run's wait in the caller's transaction."""
        ...


class Parts:
    """Stores, log, clock and ids of deployment.

    Args:
        database: Metadata.
        event_log: Where each change of state is written, in its own transaction.
        clock: The injected clock: bakes and deadlines.
        registry: Versions, their stages and standing decisions.
        publisher: Reaches the serving workers.
        predictions: The inference log.
        workflows: The engine; deployment registers its workflow there, so before the engine is launched.
        outcomes: Measured outcomes for ``worse_than(champion, metric)``.
        new_id: Makes ids and salts.
    """

    def __init__(
        self,
        database: Database,
        event_log: EventLog,
        clock: Clock,
        *,
        registry: Registry,
        publisher: RoutePublisher,
        predictions: PredictionStore,
        workflows: Workflows,
        outcomes: RolloutOutcomes | None = None,
        new_id: NewId = ulid,
    ) -> None:
        self.database = database
        self._events = event_log
        self._clock = clock
        self._registry = registry
        self._publisher = publisher
        self._predictions = predictions
        self._workflows = workflows
        self._outcomes = outcomes
        self._new_id = new_id
        self._publishing = threading.Lock()
        self._remembered: dict[str, Remembered] = {}

    def publish(self) -> RouteTable:
        """Put in force what the database says, if it is not; safe to call at any time.

        The control plane calls it when it starts: whatever a crash left half done, the workers then serve what
        was committed. An endpoint whose model folder cannot be written keeps the route that it has.

        Returns:
            The table in force.

        Raises:
            Unavailable: If the database or the disk does not answer.
        """
        with self._publishing:
            with self.database.reading() as connection:
                wanted = self._wanted(connection)
            current = self._current()
            routes = self._prepared(wanted, current)
            if current is not None and current.endpoints == routes:
                return current
            served = [status.generation for status in self._publisher.workers()]
            generation = 1 + max([0 if current is None else current.generation, *served])
            return self._publisher.publish(RouteTable(generation, routes))

    def materialize(self, project: str, model: str, version: int, digest: str) -> None:
        """Write a version's folder where the workers look for it, unless it is there.

        Raises:
            NotFound: If there is no such version.
            Corrupted: If stored bytes are damaged.
        """
        folder = self._publisher.paths.models / digest
        if not folder.is_dir():
            self._registry.materialize(VersionId(model, version, project), folder)

    def _wanted(self, connection: sa.Connection) -> tuple[EndpointRoute, ...]:
        endpoints: list[Endpoint] = []
        while True:
            after = endpoints[-1].name if endpoints else ""
            page = store.endpoint_page(connection, project=None, after=after, limit=_PAGE)
            endpoints += page
            if len(page) < _PAGE:
                break
        running = {each.rollout.endpoint: each for each in store.active_rollouts(connection)}
        return build_routes(endpoints, running)

    def _current(self) -> RouteTable | None:
        try:
            return self._publisher.current()
        except Invalid:
            log.exception("the published route table cannot be read and is written anew")
            self._publisher.paths.routes.unlink(missing_ok=True)
            return None

    def _prepared(self, wanted: Sequence[EndpointRoute], current: RouteTable | None) -> tuple[EndpointRoute, ...]:
        before = {} if current is None else {route.name: route for route in current.endpoints}
        prepared = []
        for route in wanted:
            try:
                for variant in route.variants:
                    self.materialize(route.project, variant.model, variant.version, variant.digest)
            except ModelyardError as error:
                log.error("endpoint %r keeps its route: %s", route.name, error.message)
                if route.name in before:
                    prepared.append(before[route.name])
            else:
                prepared.append(route)
        return tuple(prepared)

    def _record(
        self,
        tx: Transaction,
        kind: str,
        subject: str,
        *,
        actor: Actor,
        project: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> None:
        event = Event(
            kind=kind,
            subject=subject,
            actor=actor.name,
            at=at or self._clock.now(),
            before=before,
            after=after,
            data=data or {},
            project=project,
        )
        self._events.record(tx, event)

    def _record_rollout(
        self,
        tx: Transaction,
        kind: str,
        rollout: Rollout,
        *,
        actor: Actor,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        about = {
            "rollout": rollout.id,
            "endpoint": rollout.endpoint,
            "model": rollout.model,
            "version": rollout.version,
            "control": rollout.control,
        }
        self._record(
            tx,
            kind,
            f"rollout:{rollout.id}",
            actor=actor,
            project=rollout.project,
            before=before,
            after=after,
            data=about | dict(data or {}),
        )

    def _rollout(self, tx: Transaction, rollout_id: str) -> store.Watched:
        """Return a rollout and hold it."""
        found = store.watched_of(tx.connection, rollout_id, lock=True)
        if found is None:
            raise LookupError(rollout_id)  # rollouts are removed only with their endpoint, never while they run
        return found

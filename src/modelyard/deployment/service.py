"""Use cases of deployment beside deploy: hold, resume, abort, roll back, configure, delete, and reading."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from modelyard.deployment import store
from modelyard.deployment.launching import PRODUCTION, Launching
from modelyard.deployment.model import Canary, Endpoint, Rollout, RolloutState
from modelyard.deployment.parts import RolloutOutcomes, Workflows
from modelyard.errors import Conflict, Invalid, ModelyardError, NotFound, Unavailable
from modelyard.events import DEFAULT_PROJECT, Actor, Clock, EventLog
from modelyard.registry import Registry, VersionId
from modelyard.serving.publisher import RoutePublisher
from modelyard.storage import Database, NewId, Transaction, ulid

if TYPE_CHECKING:
    from modelyard.storage.predictions import PredictionStore

_SUBSCRIBER = "deployment"
_REQUESTED = "stage.requested"


class Deployment(Launching):
    """Endpoints and how versions come to answer them.

    Everything that it needs is in the database: a new process calls ``publish`` and goes on.

    Args:
        database: Metadata.
        event_log: Where each change of state is written, in its own transaction.
        clock: The injected clock: bakes and deadlines.
        registry: Versions, their stages and standing decisions.
        publisher: Reaches the serving workers.
        predictions: The inference log.
        workflows: The engine, not launched yet: the rollout workflow is registered there.
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
        super().__init__(
            database,
            event_log,
            clock,
            registry=registry,
            publisher=publisher,
            predictions=predictions,
            workflows=workflows,
            outcomes=outcomes,
            new_id=new_id,
        )
        workflows.register(self.definition())

    def act_on_requests(self, *, limit: int = 100) -> tuple[Rollout, ...]:
        """Start the rollouts that people asked for by moving a served version to production.

        What cannot be done is answered on the record (``rollout.refused``): a version leaves production only
        when another one takes its place.

        Args:
            limit: Most requests to act on.

        Returns:
            The rollouts started.
        """
        after = self._events.cursor(_SUBSCRIBER)
        started = []
        for recorded in self._events.read(after=after, limit=limit, kinds=(_REQUESTED,)):
            event, seq = recorded.event, recorded.seq

            def done(tx: Transaction, seq: int = seq) -> None:
                self._events.advance(tx, _SUBSCRIBER, seq=seq)

            actor, endpoint = Actor(event.actor), str(event.data["endpoint"])
            reference = event.subject.partition(":")[2]
            try:
                if event.data["stage"] != PRODUCTION:
                    raise Conflict(f"{reference} answers at endpoint {endpoint!r}. Deploy or roll back to another.")
                started.append(
                    self._deploy(endpoint, reference, actor=actor, canary=Canary(), project=event.project, also=done)
                )
            except Unavailable:
                raise
            except ModelyardError as error:
                with self.database.transaction() as tx:
                    done(tx)
                    data = {"endpoint": endpoint, "reason": error.message, "request": seq}
                    self._record(tx, "rollout.refused", event.subject, actor=actor, project=event.project, data=data)
        return tuple(started)

    def rollback(
        self, endpoint: str, to: int | None = None, *, actor: Actor, reason: str = "", project: str = DEFAULT_PROJECT
    ) -> Rollout:
        """Take back what was deployed last.

        While a rollout runs, it is aborted and the champion goes on. Otherwise the champion gives way, at
        once, to the one before it or to ``to``.

        Args:
            endpoint: Name of the endpoint.
            to: Number of a version that was champion here before; None takes the one before.
            actor: Who rolls back.
            reason: Why, for the record.
            project: Its project.

        Returns:
            The rollout that was taken back.

        Raises:
            NotFound: If there is no such endpoint, or ``to`` was never its champion.
            Conflict: If there is no earlier champion.
        """
        current = self.get_endpoint(endpoint, project=project)
        target, digest = self._earlier(current, to)
        if target is not None:
            self.materialize(project, current.model, target, digest)
        with self.database.transaction() as tx:
            found = self._endpoint(tx, endpoint, project)
            running = store.active_rollouts(tx.connection, endpoint=endpoint, lock=True)
            if running and to in {None, found.champion}:
                ended = self._abort(tx, running[0], actor=actor, reason=reason)
            else:
                for each in running:
                    self._abort(tx, each, actor=actor, reason=reason)
                if found.champion != current.champion or target is None:
                    raise Conflict(
                        f"There is no version to go back to at endpoint {endpoint!r}: version {found.champion} "
                        "is its first, or has just replaced another. Deploy the version that you want.",
                        endpoint=endpoint,
                    )
                ended = self._revert(tx, found, target, digest, actor=actor, reason=reason)
        self.publish()
        return ended

    def abort(self, endpoint: str, *, actor: Actor, reason: str = "", project: str = DEFAULT_PROJECT) -> Rollout:
        """End the rollout under way; the champion answers everything again.

        Raises:
            NotFound: If there is no such endpoint.
            Conflict: If no rollout is under way.
        """
        with self.database.transaction() as tx:
            ended = self._abort(tx, self._running(tx, endpoint, project), actor=actor, reason=reason)
        self.publish()
        return ended

    def hold(self, endpoint: str, *, actor: Actor, reason: str = "", project: str = DEFAULT_PROJECT) -> Rollout:
        """Keep the rollout under way at its step until somebody resumes it; its guard goes on watching.

        Raises:
            NotFound: If there is no such endpoint.
            Conflict: If no rollout is under way.
        """
        with self.database.transaction() as tx:
            watched = self._running(tx, endpoint, project)
            if watched.rollout.state is RolloutState.HELD:
                return watched.rollout
            return self._hold(tx, watched, reason=reason or f"Held by {actor.name}.", actor=actor)

    def resume(self, endpoint: str, *, actor: Actor, reason: str = "", project: str = DEFAULT_PROJECT) -> Rollout:
        """Let a held rollout go on; its step gets its whole time again.

        Raises:
            NotFound: If there is no such endpoint.
            Conflict: If no rollout is under way.
        """
        with self.database.transaction() as tx:
            watched = self._running(tx, endpoint, project)
            if watched.rollout.state is RolloutState.RUNNING:
                return watched.rollout
            now = self._clock.now()
            values = {"state": RolloutState.RUNNING, "reason": reason or f"Resumed by {actor.name}."}
            store.set_rollout(tx, watched.rollout.id, updated_at=now, **values)
            after = self._rollout(tx, watched.rollout.id)
            self._record_rollout(
                tx,
                "rollout.resumed",
                after.rollout,
                actor=actor,
                before={"state": RolloutState.HELD.value},
                after={"state": RolloutState.RUNNING.value},
                data={"reason": after.rollout.reason},
            )
            if after.rollout.step >= 0:
                self._wake(tx, after, actor=actor)
            return after.rollout

    def configure(
        self,
        endpoint: str,
        *,
        actor: Actor,
        project: str = DEFAULT_PROJECT,
        sample: float | None = None,
        redact: tuple[str, ...] | None = None,
    ) -> Endpoint:
        """Change what is captured of an endpoint's predictions.

        Raises:
            NotFound: If there is no such endpoint.
            Invalid: If the sample is not a share.
        """
        if sample is not None and not 0.0 <= sample <= 1.0:
            raise Invalid(f"sample is {sample}; expected the share of requests to capture, 0 to 1.")
        with self.database.transaction() as tx:
            before = self._endpoint(tx, endpoint, project)
            after = replace(
                before,
                sample=before.sample if sample is None else sample,
                redact=before.redact if redact is None else tuple(redact),
            )
            settings = {"sample": after.sample, "redact": list(after.redact)}
            store.set_endpoint(tx, endpoint, settings=settings, updated_at=self._clock.now())
            self._record(
                tx,
                "endpoint.configured",
                f"endpoint:{endpoint}",
                actor=actor,
                project=project,
                before={"sample": before.sample, "redact": list(before.redact)},
                after=settings,
            )
        self.publish()
        return self.get_endpoint(endpoint, project=project)

    def delete(self, endpoint: str, *, actor: Actor, reason: str = "", project: str = DEFAULT_PROJECT) -> None:
        """Stop answering at an endpoint and forget it; its events and predictions stay.

        Raises:
            NotFound: If there is no such endpoint.
            Conflict: If a rollout is under way.
        """
        with self.database.transaction() as tx:
            found = self._endpoint(tx, endpoint, project)
            if store.active_rollouts(tx.connection, endpoint=endpoint, lock=True):
                raise Conflict(f"A rollout is under way at endpoint {endpoint!r}. Abort it first.", endpoint=endpoint)
            store.delete_endpoint(tx, endpoint)
            self._registry.withdraw_endpoint(tx, found.model, endpoint, project=project)
            self._record(
                tx,
                "endpoint.deleted",
                f"endpoint:{endpoint}",
                actor=actor,
                project=project,
                before={"model": found.model, "champion": found.champion},
                data={"reason": reason},
            )
        self.publish()

    def _revert(
        self, tx: Transaction, endpoint: Endpoint, target: int, digest: str, *, actor: Actor, reason: str
    ) -> Rollout:
        """Take back a finished rollout: its version gives way to an earlier champion."""
        made = store.last_finished(tx.connection, endpoint=endpoint.name, version=endpoint.champion)
        if made is None:
            raise Conflict(f"No rollout brought version {endpoint.champion} to endpoint {endpoint.name!r}.")
        now = self._clock.now()
        because = reason or f"{actor.name} rolled back"
        text = f"Version {made.version} gave way to version {target} at endpoint {endpoint.name!r}: {because}"
        store.set_rollout(tx, made.id, state=RolloutState.ROLLED_BACK, reason=text, updated_at=now)
        self._crown(tx, endpoint, made, version=target, digest=digest, now=now, actor=actor, reason=text)
        served = None if made.ended_at is None else (now - made.ended_at).total_seconds()
        self._record_rollout(
            tx,
            "rollout.rolled_back",
            made,
            actor=actor,
            before={"state": made.state.value, "champion": made.version},
            after={"state": RolloutState.ROLLED_BACK.value, "champion": target},
            data={"reason": text, "seconds_served": served, "after_finish": True},
        )
        return self._rollout(tx, made.id).rollout

    def _earlier(self, endpoint: Endpoint, to: int | None) -> tuple[int | None, str]:
        """Return the version to go back to, with its digest; None if there is none."""
        with self.database.reading() as connection:
            made = store.last_finished(connection, endpoint=endpoint.name, version=endpoint.champion)
            if to is None:
                target = None if made is None else made.control
            elif to == endpoint.champion or not store.was_champion(connection, endpoint.name, to):
                hint = "It answers already." if to == endpoint.champion else "It has never been the champion here."
                raise NotFound(f"earlier champion of {endpoint.name}", to, hint=hint)
            else:
                target = to
        if target is None:
            return None, ""
        return target, self._registry.get_version(VersionId(endpoint.model, target, endpoint.project)).content_digest

    def _endpoint(self, tx: Transaction, name: str, project: str) -> Endpoint:
        """Return an endpoint and hold it."""
        found = store.endpoint_of(tx.connection, name, lock=True)
        if found is None or found.project != project:
            raise NotFound("endpoint", name)
        return found

    def _running(self, tx: Transaction, endpoint: str, project: str) -> store.Watched:
        self._endpoint(tx, endpoint, project)
        found = store.active_rollouts(tx.connection, endpoint=endpoint, lock=True)
        if not found:
            raise Conflict(f"No rollout is under way at endpoint {endpoint!r}.", endpoint=endpoint)
        return found[0]

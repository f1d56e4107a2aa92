"""Use case deploy: check that a version may come, make room for it, and start its rollout."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

from modelyard.deployment import store
from modelyard.deployment.exposure import Exposure
from modelyard.deployment.guard import Guard
from modelyard.deployment.model import Canary, Endpoint, Rollout, RolloutState
from modelyard.deployment.placing import ExpectedBins
from modelyard.deployment.scores import ScoreWatch, choose_test
from modelyard.deployment.steps import LOADED, PROMOTE, WORKFLOW
from modelyard.deployment.watch import Watch
from modelyard.errors import Conflict, Invalid, Refused
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.registry import Version, VersionId, VersionLike
from modelyard.storage import Transaction
from modelyard.tracking import clean_name
from modelyard.workflows import Start

DEPLOY = "deploy"
PRODUCTION = "production"
_MAX_NAME = 100

AT_ONCE = Canary(steps=(100,), bake="0s", min_answers=1)
"""How the first version of an endpoint comes: there is nothing to compare it with."""

Also = Callable[[Transaction], None]


class Launching(Watch):
    """Starts rollouts."""

    def deploy(
        self,
        endpoint: str,
        version: VersionLike | str,
        *,
        actor: Actor,
        rollout: Canary | None = None,
        project: str = DEFAULT_PROJECT,
        replace_running: bool = False,
        entity_key: str | None = None,
        time_column: str | None = None,
    ) -> Rollout:
        """Begin to bring a version to an endpoint, which is created if there is none.

        The first version of an endpoint answers everything at once; a later one comes as a canary.

        Args:
            endpoint: Name of the endpoint.
            version: The version, or a reference such as ``churn/7`` or ``churn@candidate``.
            actor: Who deploys.
            rollout: How it comes; the default canary if absent.
            project: Project of the endpoint, and of a reference.
            replace_running: Abort a rollout that is under way instead of refusing.
            entity_key: Column whose value decides the variant; for a new endpoint only.
            time_column: Column with a row's event time; for a new endpoint only.

        Returns:
            The rollout: finished for a first version, else running.

        Raises:
            NotFound: If there is no such version.
            Conflict: If another rollout is under way, the version answers already, or the endpoint belongs to
                another project or model.
            Refused: If a standing decision or the promotion rule says no.
            Corrupted: If the version's stored bytes are damaged.
        """
        return self._deploy(
            endpoint,
            version,
            actor=actor,
            canary=rollout,
            project=project,
            replace_running=replace_running,
            entity_key=entity_key,
            time_column=time_column,
        )

    def _deploy(
        self,
        endpoint: str,
        version: VersionLike | str,
        *,
        actor: Actor,
        canary: Canary | None,
        project: str,
        replace_running: bool = False,
        entity_key: str | None = None,
        time_column: str | None = None,
        also: Also = lambda tx: None,
    ) -> Rollout:
        clean_name("endpoint", endpoint, limit=_MAX_NAME)
        if "/" in endpoint:
            raise Invalid(f"The endpoint {endpoint!r} holds '/', which its address uses.")
        found = self._found(version, project)
        self._check_permitted(found, endpoint, actor=actor)
        self.materialize(project, found.model, found.number, found.content_digest)
        columns = {"entity_key": entity_key, "time_column": time_column}
        first_file = self._predictions.head(endpoint, project)
        scores = self._scores(endpoint, found)
        with self.database.transaction() as tx:
            also(tx)
            current = store.endpoint_of(tx.connection, endpoint, lock=True)
            if current is None:
                created = self._create(tx, endpoint, found, actor=actor, **columns)
                rollout = self._launch(tx, created, found, scores, AT_ONCE, actor=actor, first_file=first_file)
                rollout = self._finish(tx, self._rollout(tx, rollout.id), created, actor=actor)
            else:
                self._check_fits(current, found, columns)
                running = store.active_rollouts(tx.connection, endpoint=endpoint, lock=True)
                self._make_room(tx, running, found, replace_running=replace_running, actor=actor)
                if current.champion != scores[1]:
                    raise Conflict(f"Endpoint {endpoint!r} has just got another champion. Deploy again.")
                plan = canary or Canary()
                rollout = self._launch(tx, current, found, scores, plan, actor=actor, first_file=first_file)
        self.publish()
        return self.get_rollout(rollout.id)

    def _create(self, tx: Transaction, name: str, version: Version, *, actor: Actor, **columns: str | None) -> Endpoint:
        now = self._clock.now()
        endpoint = Endpoint(
            name=name,
            project=version.project,
            model=version.model,
            salt=self._new_id(),
            champion=version.number,
            champion_digest=version.content_digest,
            standby=None,
            standby_digest=None,
            standby_until=None,
            sample=1.0,
            redact=(),
            created_by=actor.name,
            created_at=now,
            updated_at=now,
            entity_key=columns["entity_key"],
            time_column=columns["time_column"],
        )
        store.insert_endpoint(tx, endpoint)
        self._registry.declare_endpoint(tx, version.model, name, project=version.project)
        self._record(
            tx,
            "endpoint.created",
            f"endpoint:{name}",
            actor=actor,
            project=version.project,
            after={"model": version.model, "champion": version.number, **columns},
        )
        return endpoint

    def _launch(
        self,
        tx: Transaction,
        endpoint: Endpoint,
        version: Version,
        scores: tuple[ScoreWatch, int | None],
        canary: Canary,
        *,
        actor: Actor,
        first_file: int,
    ) -> Rollout:
        now, rollout_id = self._clock.now(), self._new_id()
        test, control = scores
        workflow = None if control is None else f"{WORKFLOW}:{rollout_id}"
        rollout = Rollout(
            id=rollout_id,
            endpoint=endpoint.name,
            project=endpoint.project,
            model=version.model,
            version=version.number,
            digest=version.content_digest,
            control=control,
            canary=canary,
            state=RolloutState.RUNNING,
            step=-1,
            step_started_at=None,
            answers=0,
            control_answers=0,
            exposure=0,
            checks=(),
            reason="The workers load the version.",
            workflow=workflow,
            started_by=actor.name,
            started_at=now,
            ended_at=None,
        )
        test = replace(test, seed=zlib.crc32(rollout_id.encode()))
        guard = Guard.begin(canary, test)
        watched = store.Watched(rollout, Exposure(), guard, first_file, first_file, LOADED, 0)
        store.insert_rollout(tx, watched)
        data = {"canary": canary.to_json(), "scores": {"source": test.source, "why": test.why}}
        self._record_rollout(
            tx, "rollout.started", rollout, actor=actor, after={"state": rollout.state.value}, data=data
        )
        if workflow is not None:
            given = {"rollout": rollout_id}
            request = Start(WORKFLOW, given, workflow, None, endpoint.project, f"endpoint:{endpoint.name}")
            self._workflows.start_in(tx, request, actor=actor)
        return rollout

    def _scores(self, endpoint: str, version: Version) -> tuple[ScoreWatch, int | None]:
        """Return the score test that fits, and the champion that it compares with."""
        with self.database.reading() as connection:
            current = store.endpoint_of(connection, endpoint)
        if current is None:
            return choose_test(None, control=None, same_training=False, seed=0), None
        named = VersionId(current.model, current.champion, current.project)
        data = version.lineage.get("data")
        same = bool(data) and self._registry.get_version(named).lineage.get("data") == data
        expected = ExpectedBins.of_tags(version.tags)
        return choose_test(expected, control=current.champion, same_training=same, seed=0), current.champion

    def _found(self, version: VersionLike | str, project: str) -> Version:
        if isinstance(version, str):
            return self._registry.resolve(version, project=project)
        if version.project != project:
            raise Invalid(f"Version {version.model}/{version.number} belongs to project {version.project!r}.")
        return self._registry.get_version(version)

    def _check_permitted(self, version: Version, endpoint: str, *, actor: Actor) -> None:
        """Refuse, on the record, what a standing decision or the promotion rule does not allow."""
        rule = self._registry.check_promotion(version, PRODUCTION)
        reasons = [
            permission.reason
            for action in (DEPLOY, PROMOTE)
            if not (permission := self._registry.permits(version, action)).allowed
        ]
        if rule is not None and not rule.passed:
            clauses = rule.evidence["clauses"]
            why = " ".join(clause["reason"] for clause in clauses if clause["outcome"] in {"false", "unknown"})
            reasons.append(f"The promotion rule {rule.rule!r} does not hold. {why}")
        if not reasons:
            return
        reason = " ".join(dict.fromkeys(reasons))
        data = {"endpoint": endpoint, "reason": reason}
        with self.database.transaction() as tx:
            self._record(tx, "rollout.refused", version.subject, actor=actor, project=version.project, data=data)
        raise Refused(f"{version.model}/{version.number} is not deployed: {reason}", **data)

    def _check_fits(self, current: Endpoint, version: Version, columns: dict[str, str | None]) -> None:
        if current.project != version.project or current.model != version.model:
            raise Conflict(
                f"Endpoint {current.name!r} serves model {current.model!r} of project {current.project!r}. "
                "Choose another name.",
                endpoint=current.name,
            )
        if current.champion == version.number:
            raise Conflict(f"Version {version.number} answers at endpoint {current.name!r} already.")
        for name, wanted in columns.items():
            if wanted is not None and wanted != getattr(current, name):
                raise Conflict(
                    f"Endpoint {current.name!r} has the {name} {getattr(current, name)!r}. It cannot change: "
                    "everybody's variant would. Create another endpoint.",
                    endpoint=current.name,
                )

    def _make_room(
        self,
        tx: Transaction,
        running: list[store.Watched],
        version: Version,
        *,
        replace_running: bool,
        actor: Actor,
    ) -> None:
        for each in running:
            if not replace_running:
                rollout = each.rollout
                raise Conflict(
                    f"Rollout {rollout.id} of version {rollout.version} is under way at endpoint "
                    f"{rollout.endpoint!r}. Wait for it, abort it, or replace it.",
                    rollout=rollout.id,
                    version=rollout.version,
                )
            self._abort(tx, each, actor=actor, reason=f"replaced by version {version.number}")

    def _abort(self, tx: Transaction, watched: store.Watched, *, actor: Actor, reason: str) -> Rollout:
        why = f"{actor.name} stopped it" + (f": {reason}" if reason else ".")
        checks = watched.rollout.checks
        return self._take_back(tx, watched, why=why, checks=checks, actor=actor, state=RolloutState.ABORTED)

"""Moves of a rollout: each inside the caller's transaction, with its event, waking the workflow that waits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from modelyard.deployment import store
from modelyard.deployment.guard import failures, unsettled
from modelyard.deployment.model import Check, Endpoint, Rollout, RolloutState
from modelyard.deployment.reading import Reading
from modelyard.errors import Conflict, NotFound
from modelyard.events import SYSTEM, Actor
from modelyard.registry import VersionId
from modelyard.storage import Transaction

log = logging.getLogger(__name__)


class Changes(Reading):
    """Ends, holds and finishes rollouts."""

    def _take_back(
        self,
        tx: Transaction,
        watched: store.Watched,
        *,
        why: str,
        checks: Sequence[Check],
        actor: Actor = SYSTEM,
        state: RolloutState = RolloutState.ROLLED_BACK,
    ) -> Rollout:
        """End a rollout so that the control answers everything again; the caller publishes after the commit."""
        rollout = watched.rollout
        reason = (
            f"Version {rollout.version} was taken back from endpoint {rollout.endpoint!r} {_progress(watched)}: {why}"
        )
        return self._end(tx, watched, state, reason=reason, checks=checks, actor=actor, kind=f"rollout.{state.value}")

    def _end(
        self,
        tx: Transaction,
        watched: store.Watched,
        state: RolloutState,
        *,
        reason: str,
        checks: Sequence[Check],
        actor: Actor,
        kind: str,
    ) -> Rollout:
        rollout, now = watched.rollout, self._clock.now()
        store.set_rollout(
            tx,
            rollout.id,
            state=state,
            reason=reason,
            ended_at=now,
            updated_at=now,
            checks=checks,
            guard=watched.guard,
            exposure=watched.exposure,
            answers=watched.guard.canary.answers,
            control_answers=watched.guard.control.answers,
            cursor_file=watched.cursor_file,
            waits_for=None,
        )
        data = {"reason": reason, **evidence_of(watched, checks, now=now)}
        before, after = {"state": rollout.state.value}, {"state": state.value}
        self._record_rollout(tx, kind, rollout, actor=actor, before=before, after=after, data=data)
        self._wake(tx, watched, actor=actor)
        return self._rollout(tx, rollout.id).rollout

    def _finish(self, tx: Transaction, watched: store.Watched, endpoint: Endpoint, *, actor: Actor) -> Rollout:
        """Make a rollout's version the champion, in registry and routes alike."""
        rollout, now = watched.rollout, self._clock.now()
        self._crown(tx, endpoint, rollout, version=rollout.version, digest=rollout.digest, now=now, actor=actor)
        store.set_rollout(tx, rollout.id, crowned_at=now)
        reason = f"Version {rollout.version} answers all traffic of endpoint {rollout.endpoint!r}"
        if rollout.control is not None:
            reason += f" in place of version {rollout.control}: every check passed over {rollout.answers:,} answers"
        return self._end(
            tx,
            watched,
            RolloutState.FINISHED,
            reason=f"{reason}.",
            checks=rollout.checks,
            actor=actor,
            kind="rollout.finished",
        )

    def _crown(
        self,
        tx: Transaction,
        endpoint: Endpoint,
        rollout: Rollout,
        *,
        version: int,
        digest: str,
        now: datetime,
        actor: Actor,
        reason: str = "",
    ) -> None:
        """Point an endpoint at another champion; the one before stays loaded for a bake."""
        before = endpoint.champion if endpoint.champion != version else None
        store.set_endpoint(
            tx,
            endpoint.name,
            champion=version,
            champion_digest=digest,
            standby=before,
            standby_digest=None if before is None else endpoint.champion_digest,
            standby_until=None if before is None else now + rollout.canary.least,
            updated_at=now,
        )
        named = VersionId(endpoint.model, version, endpoint.project)
        why = reason or f"rollout {rollout.id} finished at endpoint {endpoint.name}"
        self._registry.set_stage(tx, named, "production", actor=actor, via_rollout=rollout.id, reason=why)

    def _hold(self, tx: Transaction, watched: store.Watched, *, reason: str, actor: Actor) -> Rollout:
        rollout, now = watched.rollout, self._clock.now()
        store.set_rollout(tx, rollout.id, state=RolloutState.HELD, reason=reason, updated_at=now)
        before, after = {"state": rollout.state.value}, {"state": RolloutState.HELD.value}
        data = {"reason": reason, **evidence_of(watched, rollout.checks, now=now)}
        self._record_rollout(tx, "rollout.held", rollout, actor=actor, before=before, after=after, data=data)
        return self._rollout(tx, rollout.id).rollout

    def _wake(self, tx: Transaction, watched: store.Watched, *, actor: Actor, payload: Any = None) -> bool:
        """Wake the rollout's workflow; one that is over or gone must not stop a rollback."""
        workflow, name = watched.rollout.workflow, watched.waits_for
        if workflow is None or name is None:
            return False
        try:
            return self._workflows.signal_in(tx, workflow, name, payload, actor=actor)
        except (Conflict, NotFound) as error:
            log.warning("rollout %s goes on without its workflow: %s", watched.rollout.id, error.message)
            return False


def passed(rollout: Rollout, now: datetime) -> bool:
    """Say whether the current step has passed: baked, and every check content."""
    baked = rollout.step_started_at is not None and now >= rollout.step_started_at + rollout.canary.least
    checks = rollout.checks
    return baked and bool(checks) and not failures(checks) and not unsettled(checks)


def evidence_of(watched: store.Watched, checks: Sequence[Check], *, now: datetime) -> Mapping[str, Any]:
    """Return the numbers behind a decision, for its event."""
    rollout, guard = watched.rollout, watched.guard
    return {
        "checks": [check.to_json() for check in checks],
        "failed": [check.name for check in failures(tuple(checks))],
        "open": [check.name for check in unsettled(tuple(checks))],
        "answers": guard.canary.answers,
        "control_answers": guard.control.answers,
        "most_answers_given": watched.exposure.bound,
        "step": rollout.step,
        "steps": len(rollout.canary.steps),
        "traffic": rollout.weight / 10_000,
        "seconds": (now - rollout.started_at).total_seconds(),
    }


def _progress(watched: store.Watched) -> str:
    rollout, answers = watched.rollout, watched.guard.canary.answers
    if rollout.step < 0:
        return "before it answered anything"
    return f"after {answers:,} of its answers, at {rollout.weight / 100:g} % of traffic"

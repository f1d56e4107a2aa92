"""Standing decisions: whether an action may happen to a version, written by governance, read by deployment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from modelyard.errors import Conflict, NotFound
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.registry import store
from modelyard.registry.model import MAX_MODEL_NAME, Permission, StandingDecision, VersionLike
from modelyard.registry.parts import Parts
from modelyard.storage import Transaction
from modelyard.tracking import clean_name

EVERY_MODEL = "*"


class Decisions(Parts):
    """Writes and reads standing decisions."""

    def write_decision(
        self,
        version: VersionLike,
        action: str,
        *,
        allowed: bool,
        reason: str,
        content_digest: str,
        actor: Actor,
        evidence: Mapping[str, Any] | None = None,
        valid_until: datetime | None = None,
    ) -> StandingDecision:
        """Decide until further notice; a later decision on the same action replaces it.

        Args:
            version: The version.
            action: Any word that the asker knows: ``deploy``, ``promote``, ``raise_traffic``.
            allowed: The decision.
            reason: One sentence for the person who is refused.
            content_digest: Content that was judged.
            actor: Who decides.
            evidence: What the decision rests on; JSON-compatible.
            valid_until: When it lapses, and the action has to be decided again.

        Raises:
            NotFound: If there is no such version.
            Conflict: If the version's content is not what was judged.
        """
        clean_name("action", action, limit=MAX_MODEL_NAME)
        with self.database.transaction() as tx:
            current = self._version(tx, version)
            if current.content_digest != content_digest:
                raise Conflict(
                    f"The decision is about other content than {current.model}/{current.number} has. "
                    "Judge this version's content.",
                    expected=current.content_digest,
                )
            before = store.decision_of(tx.connection, version, action)
            decision = StandingDecision(
                version=current.id,
                action=action,
                allowed=allowed,
                reason=reason,
                evidence=dict(evidence or {}),
                content_digest=content_digest,
                decided_by=actor.name,
                decided_at=self._clock.now(),
                valid_until=valid_until,
            )
            fields = {name: getattr(decision, name) for name in StandingDecision.__slots__ if name != "version"}
            tx.upsert(store.decisions, {**store.key_of(version), **fields})
            self._record(
                tx,
                "decision.written",
                current.subject,
                actor=actor,
                project=current.project,
                before=None if before is None else _facts(before),
                after=_facts(decision),
                data={"evidence": decision.evidence},
            )
            return decision

    def standing_decision(self, version: VersionLike, action: str) -> StandingDecision | None:
        """Return the decision on an action, lapsed or not; None if none was ever written."""
        with self.database.reading() as connection:
            return store.decision_of(connection, version, action)

    def demand_decision(
        self, action: str, *, actor: Actor, model: str = EVERY_MODEL, project: str = DEFAULT_PROJECT
    ) -> None:
        """Demand that an action be decided before it happens: from now on no decision means no.

        Args:
            action: The action.
            actor: Who demands it; for governance the name of its policy belongs in the event's data.
            model: A model, or ``*`` for every model of the project.
            project: The project.
        """
        row = {
            "project": project,
            "model": model,
            "action": clean_name("action", action, limit=MAX_MODEL_NAME),
            "demanded_by": actor.name,
            "at": self._clock.now(),
        }
        with self.database.transaction() as tx:
            if tx.insert_if_absent(store.demands, row):
                self._record(
                    tx,
                    "decision.demanded",
                    f"model:{model}",
                    actor=actor,
                    project=project,
                    after={"action": action},
                )

    def withdraw_demand(
        self, action: str, *, actor: Actor, model: str = EVERY_MODEL, project: str = DEFAULT_PROJECT
    ) -> None:
        """Withdraw a demand.

        Raises:
            NotFound: If there is none.
        """
        condition = sa.and_(store.of_model(store.demands, project, model), store.demands.c.action == action)
        with self.database.transaction() as tx:
            if tx.execute(sa.delete(store.demands).where(condition)).rowcount == 0:
                raise NotFound("demand", f"{model}: {action}")
            self._record(
                tx,
                "decision.demand_withdrawn",
                f"model:{model}",
                actor=actor,
                project=project,
                before={"action": action},
            )

    def permits(self, version: VersionLike, action: str, *, tx: Transaction | None = None) -> Permission:
        """Say whether an action may happen to a version now.

        A valid decision on the version's content is the answer. Without one the answer is yes if nobody demands
        a decision, and no if somebody does.

        Args:
            version: The version.
            action: The action.
            tx: Transaction of the action itself, so that vote and action cannot cross.
        """
        now = self._clock.now()
        reading = self.database.reading() if tx is None else nullcontext(tx.connection)
        with reading as connection:
            condition = store.of_version(store.versions, version)
            found = store.versions_where(connection, condition, limit=1)
            decision = store.decision_of(connection, version, action)
            demanded = store.demanded(connection, version.project, version.model, action)
        if not found:
            return Permission(False, f"There is no version {version.model}/{version.number}.")
        if decision is not None and decision.content_digest == found[0].content_digest:
            if decision.valid_until is None or now < decision.valid_until:
                return Permission(decision.allowed, decision.reason, decision)
            if decision.allowed:
                lapsed = f"The decision on {action!r} lapsed on {decision.valid_until:%Y-%m-%d %H:%M} UTC."
                return Permission(False, lapsed, decision)
            return Permission(False, decision.reason, decision)
        if demanded:
            return Permission(False, f"{action!r} needs a decision, and none has been written yet.")
        return Permission(True, f"Nobody demands a decision on {action!r}.")


def _facts(decision: StandingDecision) -> dict[str, object]:
    return {
        "action": decision.action,
        "allowed": decision.allowed,
        "reason": decision.reason,
        "content_digest": decision.content_digest,
        "valid_until": None if decision.valid_until is None else decision.valid_until.isoformat(),
    }

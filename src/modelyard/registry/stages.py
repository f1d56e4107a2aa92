"""Use cases of stages: development, staging, production, archived, with their whole history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from modelyard.errors import NotFound, Refused
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.registry import store
from modelyard.registry.decisions import Decisions
from modelyard.registry.model import (
    MAX_PAGE,
    PromotionCheck,
    PromotionRule,
    Stage,
    StageChange,
    StageRequest,
    Version,
    VersionLike,
    stage_name,
)
from modelyard.registry.rules import check_rule, checked_rule
from modelyard.storage import Transaction

PROMOTE = "promote"


class Stages(Decisions):
    """Moves versions between stages.

    A model has at most one version in production. While an endpoint serves the model, only a finished rollout
    moves the label ``production`` (``set_stage``, in deployment's transaction); a person's move becomes a
    request (event ``stage.requested``) that deployment acts on.
    """

    def move_stage(self, version: VersionLike, stage: str, *, actor: Actor, reason: str = "") -> Version | StageRequest:
        """Move a version by hand, or ask for the rollout that moves it.

        Returns:
            The version in its new stage, or the request if an endpoint serves the model and the move touches
            production.

        Raises:
            NotFound: If there is no such version.
            Refused: If the stage's promotion rule or a standing decision says no; the attempt is in the log.
        """
        target = stage_name(stage)
        with self.database.transaction() as tx:
            before = self._version(tx, version)
            if before.stage == target:
                return before
            check = self._checked_rule(tx, before, target)
            refusal = self._refusal(tx, before, target, check)
            if refusal is not None:
                data = {"stage": target, "reason": refusal, "evidence": _evidence(check)}
                self._record(tx, "stage.refused", before.subject, actor=actor, project=before.project, data=data)
            elif "production" in {target, before.stage} and (endpoint := self._endpoint(tx, before)):
                return self._request(tx, before, target, endpoint, actor=actor, reason=reason)
            else:
                self._move(tx, before, target, actor=actor, reason=reason, evidence=_evidence(check))
                return self._version(tx, version)
        raise Refused(f"{before.model}/{before.number} stays in {before.stage}: {refusal}", **data)

    def set_stage(
        self,
        tx: Transaction,
        version: VersionLike,
        stage: str,
        *,
        actor: Actor,
        via_rollout: str,
        reason: str = "",
    ) -> Version:
        """Set the stage that a finished rollout has made true, in the rollout's transaction.

        A promotion rule is evaluated and kept as evidence, and does not stop it: the traffic has moved, and a
        rollback must never wait for a rule. Deployment asks ``check_promotion`` and ``permits`` before it
        starts.

        Args:
            tx: Deployment's transaction.
            version: The version that the rollout is about.
            stage: Its stage now.
            actor: Who started the rollout.
            via_rollout: Id of the rollout.
            reason: Why.
        """
        target = stage_name(stage)
        before = self._version(tx, version)
        if before.stage != target:
            evidence = _evidence(self._checked_rule(tx, before, target))
            self._move(tx, before, target, actor=actor, reason=reason, evidence=evidence, via=via_rollout)
        return self._version(tx, version)

    def declare_endpoint(self, tx: Transaction, model: str, endpoint: str, *, project: str = DEFAULT_PROJECT) -> None:
        """Say, in deployment's transaction, that an endpoint serves a model."""
        self._model(tx, model, project)
        tx.insert_if_absent(store.endpoints, {"project": project, "model": model, "endpoint": endpoint})

    def withdraw_endpoint(self, tx: Transaction, model: str, endpoint: str, *, project: str = DEFAULT_PROJECT) -> None:
        """Say, in deployment's transaction, that an endpoint no longer serves a model."""
        condition = sa.and_(store.of_model(store.endpoints, project, model), store.endpoints.c.endpoint == endpoint)
        tx.execute(sa.delete(store.endpoints).where(condition))

    def stage_history(self, version: VersionLike) -> list[StageChange]:
        """Return the moves of a version, newest first."""
        condition = store.of_version(store.stage_changes, version)
        with self.database.reading() as connection:
            return store.stage_history(connection, condition, limit=MAX_PAGE)

    def production_at(self, model: str, time: datetime, *, project: str = DEFAULT_PROJECT) -> StageChange | None:
        """Return the move that had brought a version into production at a time; None if none was there.

        It answers who, when, why and by which rollout, for versions deleted since too.
        """
        table = store.stage_changes.c
        touching = sa.or_(table.after == "production", table.before == "production")
        condition = sa.and_(store.of_model(store.stage_changes, project, model), touching, table.at <= time)
        with self.database.reading() as connection:
            last = store.stage_history(connection, condition, limit=1)
        return last[0] if last and last[0].after == "production" else None

    def set_promotion_rule(
        self, model: str, stage: str, text: str, *, actor: Actor, project: str = DEFAULT_PROJECT
    ) -> PromotionRule:
        """Demand a condition of every version that enters a stage by hand or starts a rollout into it.

        Raises:
            NotFound: If there is no such model.
            ParseError, Invalid: If the text is not a condition on recorded metrics.
        """
        target = stage_name(stage)
        checked_rule(text)
        with self.database.transaction() as tx:
            self._model(tx, model, project)
            before = self._rule(tx.connection, model, target, project=project)
            rule = PromotionRule(model, target, text, actor.name, self._clock.now())
            row = {name: getattr(rule, name) for name in PromotionRule.__slots__}
            tx.upsert(store.rules, {"project": project, **row})
            self._record(
                tx,
                "promotion_rule.set",
                f"model:{model}",
                actor=actor,
                project=project,
                before=None if before is None else {"stage": target, "text": before.text},
                after={"stage": target, "text": text},
            )
            return rule

    def remove_promotion_rule(self, model: str, stage: str, *, actor: Actor, project: str = DEFAULT_PROJECT) -> None:
        """Demand nothing any more of versions that enter a stage.

        Raises:
            NotFound: If there is no such rule.
        """
        target = stage_name(stage)
        with self.database.transaction() as tx:
            self._model(tx, model, project)
            before = self._rule(tx.connection, model, target, project=project)
            if before is None:
                raise NotFound(f"promotion rule of {model}", target)
            condition = sa.and_(store.of_model(store.rules, project, model), store.rules.c.stage == target)
            tx.execute(sa.delete(store.rules).where(condition))
            self._record(
                tx,
                "promotion_rule.removed",
                f"model:{model}",
                actor=actor,
                project=project,
                before={"stage": target, "text": before.text},
            )

    def promotion_rules(self, model: str, *, project: str = DEFAULT_PROJECT) -> list[PromotionRule]:
        """Return the rules of a model, one a stage."""
        query = sa.select(store.rules).where(store.of_model(store.rules, project, model))
        with self.database.reading() as connection:
            return [_as_rule(row) for row in connection.execute(query.order_by(store.rules.c.stage))]

    def check_promotion(self, version: Version, stage: str) -> PromotionCheck | None:
        """Decide a stage's rule for a version, without moving it; None if there is no rule."""
        with self.database.reading() as connection:
            return self._check(connection, version, stage_name(stage))

    def _checked_rule(self, tx: Transaction, version: Version, stage: Stage) -> PromotionCheck | None:
        return self._check(tx.connection, version, stage)

    def _check(self, connection: sa.Connection, version: Version, stage: Stage) -> PromotionCheck | None:
        rule = self._rule(connection, version.model, stage, project=version.project)
        if rule is None:
            return None
        return check_rule(rule.text, version, _in_production(connection, version))

    def _rule(self, connection: sa.Connection, model: str, stage: Stage, *, project: str) -> PromotionRule | None:
        condition = sa.and_(store.of_model(store.rules, project, model), store.rules.c.stage == stage)
        row = connection.execute(sa.select(store.rules).where(condition)).one_or_none()
        return None if row is None else _as_rule(row)

    def _refusal(self, tx: Transaction, version: Version, stage: Stage, check: PromotionCheck | None) -> str | None:
        if check is not None and not check.passed:
            reasons = [c["reason"] for c in check.evidence["clauses"] if c["outcome"] in {"false", "unknown"}]
            return f"the rule {check.rule!r} does not hold. " + " ".join(reasons)
        if stage == "production":
            permission = self.permits(version, PROMOTE, tx=tx)
            if not permission.allowed:
                return permission.reason
        return None

    def _endpoint(self, tx: Transaction, version: Version) -> str | None:
        condition = store.of_model(store.endpoints, version.project, version.model)
        query = sa.select(store.endpoints.c.endpoint).where(condition).order_by(store.endpoints.c.endpoint)
        found: str | None = tx.execute(query.limit(1)).scalar()
        return found

    def _request(
        self, tx: Transaction, version: Version, stage: Stage, endpoint: str, *, actor: Actor, reason: str
    ) -> StageRequest:
        now = self._clock.now()
        self._record(
            tx,
            "stage.requested",
            version.subject,
            actor=actor,
            project=version.project,
            at=now,
            before={"stage": version.stage},
            data={"stage": stage, "endpoint": endpoint, "reason": reason},
        )
        return StageRequest(version.id, stage, endpoint, actor.name, now, reason)

    def _move(
        self,
        tx: Transaction,
        version: Version,
        stage: Stage,
        *,
        actor: Actor,
        reason: str,
        evidence: Mapping[str, Any] | None,
        via: str | None = None,
    ) -> None:
        """Move a version; the one that was in production before makes room in the same event."""
        rival = _in_production(tx.connection, version) if stage == "production" else None
        if rival is not None:
            because = f"replaced by version {version.number}"
            self._write_move(tx, rival, "archived", actor=actor, reason=because, via=via)
        self._write_move(tx, version, stage, actor=actor, reason=reason, via=via, evidence=evidence)
        self._record(
            tx,
            "stage.changed",
            version.subject,
            actor=actor,
            project=version.project,
            before={"stage": version.stage, "production": None if rival is None else rival.number},
            after={"stage": stage, **({"production": version.number} if stage == "production" else {})},
            data={"reason": reason, "rollout": via, "evidence": evidence},
        )

    def _write_move(
        self,
        tx: Transaction,
        version: Version,
        stage: Stage,
        *,
        actor: Actor,
        reason: str,
        via: str | None,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        now = self._clock.now()
        store.set_version(tx, version, stage=stage, updated_at=now)
        row = {
            **store.key_of(version),
            "before": version.stage,
            "after": stage,
            "actor": actor.name,
            "at": now,
            "reason": reason,
            "via": via,
            "evidence": evidence,
        }
        tx.execute(sa.insert(store.stage_changes).values(**row))


def _in_production(connection: sa.Connection, version: Version) -> Version | None:
    condition = sa.and_(
        store.of_model(store.versions, version.project, version.model),
        store.versions.c.stage == "production",
    )
    found = store.versions_where(connection, condition, limit=1)
    return found[0] if found else None


def _evidence(check: PromotionCheck | None) -> Mapping[str, Any] | None:
    return None if check is None else {"rule": check.rule, "verdict": dict(check.evidence)}


def _as_rule(row: sa.Row[Any]) -> PromotionRule:
    return PromotionRule(row.model, row.stage, row.text, row.created_by, row.created_at)

"""Use cases of approvals: people let an action happen to exactly this content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from modelyard.errors import Conflict, Forbidden, Invalid, NotFound
from modelyard.events import DEFAULT_PROJECT, SYSTEM, Actor, canonical
from modelyard.registry import store
from modelyard.registry.model import (
    MAX_MODEL_NAME,
    MAX_PAGE,
    Approval,
    ApprovalStatus,
    OnTimeout,
    Version,
    VersionLike,
)
from modelyard.registry.parts import Parts
from modelyard.storage import Transaction
from modelyard.tracking import check_text, clean_name

APPROVER = "approver"
_MAX_NOTE = 10_000


class Approvals(Parts):
    """Requests, votes, and what becomes of them.

    A vote needs the access role ``approver`` and the governance label asked for, and never comes from a person
    who registered, trained or asked for the version. One person counts once.
    """

    def request_approval(
        self,
        version: VersionLike,
        *,
        label: str,
        actor: Actor,
        action: str = "deploy",
        quorum: int = 1,
        evidence: Mapping[str, Any] | None = None,
        note: str = "",
        expires_after: timedelta | None = None,
        on_timeout: OnTimeout = "expire",
        valid_until: datetime | None = None,
    ) -> Approval:
        """Ask that people with a governance label approve an action on a version.

        Args:
            version: The version.
            label: Governance label of those who may answer.
            actor: Who asks; may not answer.
            action: What would be allowed.
            quorum: How many distinct people have to grant, at least 1.
            evidence: Digests and verdicts that the answer is about; JSON-compatible.
            note: For those who answer.
            expires_after: How long the request stays open; None for ever.
            on_timeout: Whether it expires or is refused then.
            valid_until: Until when a granted approval counts; None for ever.

        Raises:
            NotFound: If there is no such version.
            Conflict: If the same question is open already.
            Invalid: If the quorum is under 1.
        """
        if quorum < 1:
            raise Invalid(f"An approval needs at least one person, not {quorum}.", quorum=quorum)
        clean_name("label", label, limit=MAX_MODEL_NAME)
        clean_name("action", action, limit=MAX_MODEL_NAME)
        check_text("note", note, limit=_MAX_NOTE)
        with self.database.transaction() as tx:
            current = self._version(tx, version)
            if self._open(tx, current, action, label):
                raise Conflict(f"{label!r} has been asked about {action!r} of {current.subject} already.")
            now = self._clock.now()
            approval = Approval(
                id=self._new_id(),
                version=current.id,
                action=action,
                label=label,
                quorum=quorum,
                content_digest=current.content_digest,
                digest=question_digest(current, action, label=label, evidence=evidence or {}),
                evidence=dict(evidence or {}),
                status="requested",
                requested_by=actor.name,
                requested_at=now,
                note=note,
                expires_at=None if expires_after is None else now + expires_after,
                on_timeout=on_timeout,
                valid_until=valid_until,
                settled_at=None,
            )
            fields = {n: getattr(approval, n) for n in Approval.__slots__ if n not in {"version", "votes"}}
            tx.execute(sa.insert(store.approvals).values(**store.key_of(current), **fields))
            self._record_approval(tx, "approval.requested", approval, actor=actor, before=None)
            return approval

    def grant(self, approval_id: str, *, actor: Actor, digest: str | None = None, comment: str = "") -> Approval:
        """Say yes; the approval is granted once ``quorum`` people have.

        Args:
            approval_id: The request.
            actor: Who answers.
            digest: The request's ``digest`` that this person has seen; refused if it is another.
            comment: Why.

        Raises:
            NotFound: If there is no such request.
            Forbidden: If this person may not answer it.
            Conflict: If it is not open, or is about something else than was seen.
        """
        return self._vote(approval_id, True, actor=actor, digest=digest, comment=comment)

    def refuse(self, approval_id: str, *, actor: Actor, digest: str | None = None, comment: str = "") -> Approval:
        """Say no; one person's no refuses the request. Arguments and errors as ``grant``."""
        return self._vote(approval_id, False, actor=actor, digest=digest, comment=comment)

    def revoke(self, approval_id: str, *, actor: Actor, reason: str) -> Approval:
        """Take a granted approval back, or withdraw an open request.

        Those who may answer it may revoke it, and so may administrators; who asked may withdraw an open request.

        Raises:
            NotFound: If there is no such request.
            Forbidden: If this person may not.
            Conflict: If it is neither open nor granted.
        """
        check_text("reason", reason, limit=_MAX_NOTE)
        with self.database.transaction() as tx:
            approval = self._locked(tx, approval_id)
            if approval.status not in {"requested", "granted"}:
                raise Conflict(f"Approval {approval_id} is {approval.status}: there is nothing to revoke.")
            own = approval.status == "requested" and approval.requested_by == actor.name
            entitled = APPROVER in actor.roles and approval.label in actor.labels
            if not (own or entitled or "admin" in actor.roles):
                raise Forbidden(f"{actor.name} may not revoke an approval by {approval.label!r}.")
            return self._settle(tx, approval, "revoked", actor=actor, reason=reason)

    def get_approval(self, approval_id: str) -> Approval:
        """Return a request with its votes.

        Raises:
            NotFound: If there is none.
        """
        with self.database.reading() as connection:
            found = store.approvals_where(connection, store.approvals.c.id == approval_id, limit=1)
        if not found:
            raise NotFound("approval", approval_id)
        return found[0]

    def approvals_of(self, version: VersionLike) -> list[Approval]:
        """Return every request about a version, oldest first."""
        condition = store.of_version(store.approvals, version)
        with self.database.reading() as connection:
            return store.approvals_where(connection, condition, limit=MAX_PAGE)

    def list_approvals(
        self,
        *,
        project: str = DEFAULT_PROJECT,
        status: ApprovalStatus = "requested",
        after: str = "",
        limit: int = 100,
    ) -> list[Approval]:
        """Return at most ``limit`` requests in a status, oldest first, those after an id."""
        table = store.approvals.c
        condition = sa.and_(table.project == project, table.status == status, table.id > after)
        with self.database.reading() as connection:
            return store.approvals_where(connection, condition, limit=min(limit, MAX_PAGE))

    def approved(self, version: Version, action: str, *, label: str) -> bool:
        """Say whether a granted approval for this content counts now."""
        now = self._clock.now()
        return any(
            approval.action == action
            and approval.label == label
            and approval.content_digest == version.content_digest
            and approval.counts(now)
            for approval in self.approvals_of(version)
        )

    def expire_approvals(self, *, actor: Actor = SYSTEM, limit: int = 100) -> list[Approval]:
        """Settle requests that nobody has answered in time and granted approvals that have lapsed.

        Returns:
            Those settled, at most ``limit``; call again while it is full.
        """
        now = self._clock.now()
        table = store.approvals.c
        due = sa.or_(
            sa.and_(table.status == "requested", table.expires_at <= now),
            sa.and_(table.status == "granted", table.valid_until <= now),
        )
        with self.database.reading() as connection:
            ids = [each.id for each in store.approvals_where(connection, due, limit=limit)]
        settled = []
        for approval_id in ids:
            with self.database.transaction() as tx:
                found = store.approvals_where(tx.connection, sa.and_(table.id == approval_id, due), limit=1, lock=True)
                if not found:
                    continue
                waiting = found[0].status == "requested"
                refused = waiting and found[0].on_timeout == "refuse"
                status: ApprovalStatus = "refused" if refused else "expired"
                reason = "nobody answered in time" if waiting else "its time is over"
                settled.append(self._settle(tx, found[0], status, actor=actor, reason=reason))
        return settled

    def _vote(self, approval_id: str, granted: bool, *, actor: Actor, digest: str | None, comment: str) -> Approval:
        check_text("comment", comment, limit=_MAX_NOTE)
        with self.database.transaction() as tx:
            approval = self._locked(tx, approval_id)
            self._check_open(approval, digest)
            self._check_voter(tx, approval, actor)
            now = self._clock.now()
            vote = {
                "approval_id": approval_id,
                "person": actor.name,
                "granted": granted,
                "at": now,
                "comment": comment,
            }
            if not tx.insert_if_absent(store.votes, vote):
                raise Conflict(f"{actor.name} has answered approval {approval_id} already.")
            after = self._locked(tx, approval_id)
            if not granted:
                return self._settle(tx, after, "refused", actor=actor, reason=comment)
            if sum(each.granted for each in after.votes) >= approval.quorum:
                return self._settle(tx, after, "granted", actor=actor, reason=comment)
            self._record_approval(
                tx, "approval.voted", after, actor=actor, before={"status": "requested"}, reason=comment
            )
            return after

    def _check_open(self, approval: Approval, digest: str | None) -> None:
        if approval.status != "requested":
            raise Conflict(f"Approval {approval.id} is {approval.status}; it takes no more answers.")
        if approval.expires_at is not None and self._clock.now() >= approval.expires_at:
            raise Conflict(f"Approval {approval.id} was open until {approval.expires_at:%Y-%m-%d %H:%M} UTC.")
        if digest is not None and digest != approval.digest:
            raise Conflict(
                f"Approval {approval.id} is about other content or evidence than was seen. Read it again.",
                expected=approval.digest,
            )

    def _check_voter(self, tx: Transaction, approval: Approval, actor: Actor) -> None:
        version = self._version(tx, approval.version)
        if version.content_digest != approval.content_digest:
            raise Conflict(f"The content of {version.subject} is not what approval {approval.id} is about.")
        if APPROVER not in actor.roles:
            raise Forbidden(f"{actor.name} lacks the access role 'approver'.", role=APPROVER)
        if approval.label not in actor.labels:
            raise Forbidden(
                f"{actor.name} does not carry the governance label {approval.label!r}.", label=approval.label
            )
        if actor.name in version.authors | {approval.requested_by}:
            raise Forbidden(
                f"{actor.name} has trained, registered or submitted {version.model}/{version.number}: "
                "somebody else has to approve it."
            )

    def _settle(
        self, tx: Transaction, approval: Approval, status: ApprovalStatus, *, actor: Actor, reason: str
    ) -> Approval:
        change = {"status": status, "settled_at": self._clock.now()}
        tx.execute(sa.update(store.approvals).where(store.approvals.c.id == approval.id).values(**change))
        after = self._locked(tx, approval.id)
        self._record_approval(
            tx,
            f"approval.{status}",
            after,
            actor=actor,
            before={"status": approval.status},
            reason=reason,
        )
        return after

    def _open(self, tx: Transaction, version: Version, action: str, label: str) -> bool:
        table = store.approvals.c
        condition = sa.and_(
            store.of_version(store.approvals, version),
            table.status == "requested",
            table.action == action,
            table.label == label,
        )
        return bool(store.approvals_where(tx.connection, condition, limit=1))

    def _locked(self, tx: Transaction, approval_id: str) -> Approval:
        condition = store.approvals.c.id == approval_id
        found = store.approvals_where(tx.connection, condition, limit=1, lock=True)
        if not found:
            raise NotFound("approval", approval_id)
        return found[0]

    def _record_approval(
        self,
        tx: Transaction,
        kind: str,
        approval: Approval,
        *,
        actor: Actor,
        before: Mapping[str, Any] | None,
        reason: str = "",
    ) -> None:
        self._record(
            tx,
            kind,
            approval.version.subject,
            actor=actor,
            project=approval.version.project,
            before=before,
            after={"status": approval.status},
            data={
                "approval": approval.id,
                "action": approval.action,
                "label": approval.label,
                "quorum": approval.quorum,
                "granted_by": [vote.person for vote in approval.votes if vote.granted],
                "content_digest": approval.content_digest,
                "digest": approval.digest,
                "requested_by": approval.requested_by,
                "reason": reason or approval.note,
            },
        )


def question_digest(version: Version, action: str, *, label: str, evidence: Mapping[str, Any]) -> str:
    """Return the SHA-256 over everything that a vote is about: change any part and the vote is void."""
    question = {
        "content_digest": version.content_digest,
        "signature": version.signature,
        "action": action,
        "label": label,
        "evidence": evidence,
    }
    return hashlib.sha256(canonical(question)).hexdigest()

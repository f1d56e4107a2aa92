"""What the control plane repeats: reading the event log, schedules, conditions, rollouts, workflows that died."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelyard.errors import Conflict
from modelyard.events import SYSTEM, Clock, Event, EventLog, RecordedEvent
from modelyard.retraining import store
from modelyard.retraining.model import Release, RollOut
from modelyard.retraining.release import ROLL_OUT_WAIT, approval_wait, failure_sentence
from modelyard.retraining.releases import MAX_PAGE
from modelyard.retraining.service import Retraining
from modelyard.retraining.trail import Trail
from modelyard.storage import Database
from modelyard.tracking import RunStatus
from modelyard.workflows import Engine, Run, Status

SUBSCRIBER = "retraining"
_FIRED, _RESOLVED = "alert.fired", "alert.resolved"
_APPROVALS = ("approval.granted", "approval.refused", "approval.expired", "approval.revoked")
_KINDS = (_FIRED, _RESOLVED, *_APPROVALS)
_CONDITIONS_EVERY = timedelta(minutes=1)
_PAGE = 200

_log = logging.getLogger("modelyard.retraining")


@dataclass(frozen=True, slots=True)
class LoopParts:
    """What the loop works with."""

    database: Database
    events: EventLog
    clock: Clock
    engine: Engine
    retraining: Retraining
    trail: Trail
    roll_out: RollOut


class Loop:
    """Turns what happened into triggers and signals; each turn may be repeated without harm.

    Args:
        parts: What it works with.
    """

    def __init__(self, parts: LoopParts) -> None:
        self._parts = parts
        self._conditions_at: datetime | None = None

    def tick(self) -> None:
        """Do everything once; call it about once a second.

        Raises:
            Unavailable: If the database does not answer; the next tick makes up for it.
        """
        self.follow()
        retraining, now = self._parts.retraining, self._parts.clock.now()
        retraining.run_schedules()
        if self._conditions_at is None or now - self._conditions_at >= _CONDITIONS_EVERY:
            self._conditions_at = now
            retraining.check_conditions()
        retraining.judge_deferred()
        self.settle()

    def follow(self) -> int:
        """Act on what the event log has gained: alerts ask for trainings, answers wake releases.

        Returns:
            How many events were read.
        """
        events, count = self._parts.events, 0
        while True:
            page = events.read(after=events.cursor(SUBSCRIBER), limit=_PAGE, kinds=_KINDS)
            for recorded in page:
                self._act(recorded)
            if page:
                with self._parts.database.transaction() as tx:
                    events.advance(tx, SUBSCRIBER, seq=page[-1].seq)
            count += len(page)
            if len(page) < _PAGE:
                return count

    def settle(self) -> None:
        """Wake releases whose rollout has ended, and end those whose workflow has died."""
        for release in self._parts.retraining.releases.list(store.releases.c.state != "concluded", limit=MAX_PAGE):
            run = self._parts.engine.get(release.id)
            if run.status in {Status.FAILED, Status.CANCELLED}:
                self._bury(release, run)
            elif release.rollout_id is not None and self._parts.roll_out.outcome(release.rollout_id) is not None:
                self._signal(release.id, ROLL_OUT_WAIT)

    def _act(self, recorded: RecordedEvent) -> None:
        event = recorded.event
        if event.kind == _FIRED:
            self._ask(recorded)
        elif event.kind == _RESOLVED:
            reason = "The alert has resolved before a training could start."
            self._parts.retraining.drop_deferred(project=event.project, alert=event.subject, reason=reason)
        else:
            self._wake(event)

    def _ask(self, recorded: RecordedEvent) -> None:
        event, retraining = recorded.event, self._parts.retraining
        kind, endpoint = str(event.data.get("kind")), str(event.data.get("endpoint"))
        for recipe in retraining.recipes_of_endpoint(endpoint, project=event.project):
            if kind in recipe.retrain.alerts:
                retraining.trigger(
                    "alert",
                    recipe.model,
                    dedup_key=f"alert/{recorded.seq}",
                    actor=SYSTEM,
                    payload={"alert": event.subject, "event": recorded.seq, "kind": kind},
                    project=event.project,
                )

    def _wake(self, event: Event) -> None:
        model, _, number = event.subject.removeprefix("version:").rpartition("/")
        if not number.isdigit():
            return
        table = store.releases.c
        waiting = self._parts.retraining.releases.list(
            table.project == event.project,
            table.model == model,
            table.version == int(number),
            table.state == "approval",
            limit=MAX_PAGE,
        )
        for release in waiting:
            self._signal(release.id, approval_wait(str(event.data.get("approval"))))
            wait = self._parts.engine.get(release.id).wait
            if event.kind != "approval.granted" and wait is not None:
                # One no ends it, whoever else has not answered.
                self._signal(release.id, wait.name)

    def _signal(self, release_id: str, name: str) -> None:
        try:
            self._parts.engine.signal(release_id, name, actor=SYSTEM)
        except Conflict:
            _log.info("Release %s is over; nobody waits for %s any more.", release_id, name)

    def _bury(self, release: Release, run: Run) -> None:
        """End a release whose workflow could not say itself how it ended."""
        error = run.error or run.status
        cancelled = run.status is Status.CANCELLED
        recipe = self._parts.retraining.recipe(release.model, project=release.project)
        now = self._parts.clock.now()
        status: RunStatus = "killed" if cancelled else "failed"
        self._parts.trail.fail(release.id, error, at=now, actor=recipe.author, status=status)
        step = run.steps[-1].name if run.steps else "start"
        sentence = (
            f"Retraining {release.model} was cancelled at '{step}': {error}"
            if cancelled
            else failure_sentence(release.model, step, error)
        )
        self._parts.retraining.releases.conclude(release.id, "cancelled" if cancelled else "failed", sentence)

"""The watch over running rollouts: read new rows, judge, grant, take back. Called several times a second."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from modelyard.deployment import store
from modelyard.deployment.arms import Outcome
from modelyard.deployment.changes import passed
from modelyard.deployment.exposure import Exposure, Use, uses_of
from modelyard.deployment.guard import failures
from modelyard.deployment.model import Check, Rollout, RolloutState, Verdict
from modelyard.deployment.parts import Remembered
from modelyard.deployment.routes import variant_name
from modelyard.deployment.rows import COLUMNS, Rows, read_rows
from modelyard.deployment.scores import ControlMemory
from modelyard.deployment.steps import Steps
from modelyard.errors import ModelyardError
from modelyard.events import SYSTEM
from modelyard.serving.model import WorkerStatus
from modelyard.storage import Transaction

log = logging.getLogger(__name__)


class Watch(Steps):
    """Looks at running rollouts."""

    def tick(self, now: datetime | None = None) -> tuple[Rollout, ...]:
        """Look at every running rollout once, and put in force what follows.

        One rollout that cannot be looked at (its files are damaged) does not keep the others from it; its
        version is held by its lease meanwhile.

        Args:
            now: Time of the injected clock; read from it if absent.

        Returns:
            The rollouts that ended.

        Raises:
            Unavailable: If the database does not answer; the next tick makes up for it.
        """
        now = now or self._clock.now()
        self._release_standbys(now)
        with self.database.reading() as connection:
            running = store.active_rollouts(connection)
        self._forget({each.rollout.id for each in running})
        ended = []
        statuses = self._publisher.workers() if running else []
        for watched in running:
            try:
                after = self._look(watched, statuses, now)
            except ModelyardError as error:
                self._remembered.pop(watched.rollout.id, None)
                log.error("rollout %s could not be looked at: %s", watched.rollout.id, error.message)
                continue
            if after is not None:
                ended.append(after)
                self.publish()
        self.publish()
        return tuple(ended)

    def _look(self, watched: store.Watched, statuses: Sequence[WorkerStatus], now: datetime) -> Rollout | None:
        rollout = watched.rollout
        uses = uses_of(
            statuses, endpoint=rollout.endpoint, variant=variant_name(rollout.version), version=rollout.version
        )
        rows, cursor, memory = self._new_rows(watched)
        guard = watched.guard.update(rows, memory).settle_scores(rollout.canary, rollout.step)
        for incident in _incidents(rollout, statuses, uses, watched.exposure):
            guard = guard.report(incident)
        guard, checks = guard.decide(rollout.canary, outcomes=lambda metric: self._outcome(rollout, metric))
        exposure = watched.exposure.observe(uses, rollout=rollout.id)
        bad = failures(checks)
        if not bad and rollout.step >= 0:
            exposure = exposure.next(uses, judged=guard.judged, rollout=rollout.id)
        after = replace(watched, guard=guard, exposure=exposure, cursor_file=cursor)
        found = self._settle(watched, after, checks, bad=bad, loaded=_loaded(statuses, uses), now=now)
        self._remembered[rollout.id] = Remembered(cursor, memory)
        return found

    def _settle(
        self,
        before: store.Watched,
        after: store.Watched,
        checks: tuple[Check, ...],
        *,
        bad: tuple[Check, ...],
        loaded: bool,
        now: datetime,
    ) -> Rollout | None:
        """Write what a look has found, and act on it; a rollout that somebody else has moved is left alone."""
        rollout = replace(before.rollout, checks=checks)
        ready = loaded if rollout.step < 0 else passed(rollout, now)
        ready = ready and rollout.state is RolloutState.RUNNING
        changed = (after.guard, after.exposure, after.cursor_file) != (
            before.guard,
            before.exposure,
            before.cursor_file,
        )
        if not (bad or ready or changed or checks != before.rollout.checks):
            return None
        with self.database.transaction() as tx:
            if self._rollout(tx, rollout.id).revision != before.revision:
                self._remembered.pop(rollout.id, None)
                return None
            if bad:
                why = " ".join(check.reason for check in bad)
                return self._take_back(tx, replace(after, rollout=rollout), why=why, checks=checks)
            self._write(tx, before, after, checks, now=now)
            if ready:
                self._wake(tx, after, actor=SYSTEM)
        return None

    def _write(
        self,
        tx: Transaction,
        before: store.Watched,
        after: store.Watched,
        checks: tuple[Check, ...],
        *,
        now: datetime,
    ) -> None:
        rollout = before.rollout
        store.set_rollout(
            tx,
            rollout.id,
            guard=after.guard,
            exposure=after.exposure,
            checks=checks,
            answers=after.guard.canary.answers,
            control_answers=after.guard.control.answers,
            cursor_file=after.cursor_file,
            updated_at=now,
        )
        if after.exposure.target > before.exposure.target:
            self._record_rollout(
                tx,
                "rollout.exposure_raised",
                rollout,
                actor=SYSTEM,
                before={"most_answers_given": before.exposure.target},
                after={"most_answers_given": after.exposure.target},
                data={"judged": after.guard.judged, "checks": [check.to_json() for check in checks]},
            )

    def _new_rows(self, watched: store.Watched) -> tuple[Rows, int, ControlMemory]:
        """Read what the guard has not seen, and have the control's scores up to there at hand."""
        rollout = watched.rollout
        known = self._remembered.get(rollout.id)
        if known is None or known.cursor_file != watched.cursor_file:
            known = Remembered(watched.cursor_file, self._recall(watched))
        head = self._predictions.head(rollout.endpoint, rollout.project)
        rows = self._rows(rollout, after=watched.cursor_file, through=max(head, watched.cursor_file))
        return rows, max(head, watched.cursor_file), known.memory

    def _recall(self, watched: store.Watched) -> ControlMemory:
        memory = ControlMemory()
        if watched.guard.scores.running and watched.cursor_file > watched.first_file:
            rows = self._rows(watched.rollout, after=watched.first_file, through=watched.cursor_file)
            watched.guard.scores.remember(rows, memory)
        return memory

    def _rows(self, rollout: Rollout, *, after: int, through: int) -> Rows:
        table = self._predictions.scan(
            rollout.endpoint, rollout.project, columns=COLUMNS, after_file=after, through_file=through
        )
        return read_rows(table, version=rollout.version, control=rollout.control)

    def _outcome(self, rollout: Rollout, metric: str) -> Outcome | None:
        return None if self._outcomes is None else self._outcomes(rollout, metric)

    def _release_standbys(self, now: datetime) -> None:
        with self.database.reading() as connection:
            due = store.standbys_due(connection, now)
        for endpoint in due:
            with self.database.transaction() as tx:
                locked = store.endpoint_of(tx.connection, endpoint.name, lock=True)
                if locked is None or locked.standby != endpoint.standby:
                    continue
                store.set_endpoint(
                    tx, endpoint.name, standby=None, standby_digest=None, standby_until=None, updated_at=now
                )
                self._record(
                    tx,
                    "endpoint.standby_released",
                    f"endpoint:{endpoint.name}",
                    actor=SYSTEM,
                    project=endpoint.project,
                    before={"standby": endpoint.standby},
                    after={"standby": None},
                )

    def _forget(self, running: set[str]) -> None:
        for gone in self._remembered.keys() - running:
            del self._remembered[gone]


def _loaded(statuses: Sequence[WorkerStatus], uses: Sequence[Use]) -> bool:
    """Say whether every worker that takes traffic holds the version; no worker at all is no answer."""
    serving = {status.worker for status in statuses if not status.draining}
    return bool(serving) and serving <= {use.worker for use in uses}


def _incidents(
    rollout: Rollout, statuses: Sequence[WorkerStatus], uses: Sequence[Use], exposure: Exposure
) -> list[Check]:
    """Return what the workers report against the version: it cannot be loaded, or it took a worker down."""
    found = []
    for status in statuses:
        for failure in status.failed:
            if (failure.endpoint, failure.version) == (rollout.endpoint, rollout.version):
                reason = f"Worker {status.worker} could not load it: {failure.message}"
                found.append(Check("loading", Verdict.FAILURE, reason, {"worker": status.worker}))
    if exposure.number > 0 and any(use.crashes > exposure.crashes.get(str(use.worker), 0) for use in uses):
        workers = [use.worker for use in uses if use.crashes]
        reason = f"A serving process died while it was computing (worker {workers[0]})."
        found.append(Check("crashes", Verdict.FAILURE, reason, {"workers": workers}))
    return found

"""The workflow that carries a rollout: load, then per step expose and wait, then finish.

Every wait is a row, so nothing is held while a step bakes. A step of the workflow only makes the database and
the routes agree with where the rollout stands, so that it may be repeated after a crash at any point.
"""

from __future__ import annotations

from modelyard.deployment import store
from modelyard.deployment.changes import Changes, passed
from modelyard.deployment.guard import unsettled
from modelyard.deployment.model import Rollout, RolloutState
from modelyard.errors import Corrupted, NotFound, Unavailable
from modelyard.events import SYSTEM, Actor
from modelyard.registry import VersionId
from modelyard.storage import Transaction
from modelyard.workflows import Context, Definition, Finish, Goto, State, Step, Wait

WORKFLOW = "rollout"
LOADED = "loaded"
PROMOTE = "promote"
_ATTEMPTS = 20


def wait_name(step: int) -> str:
    """Return what the workflow waits for while a step runs."""
    return f"step-{step}"


class Steps(Changes):
    """Steps of the rollout workflow."""

    def definition(self) -> Definition:
        """Return the workflow."""
        functions = (
            ("load", self._load),
            ("expose", self._expose),
            ("conclude", self._conclude),
            ("finish", self._complete),
        )
        steps = (Step(name, function, _ATTEMPTS, 0.5, (Unavailable,)) for name, function in functions)
        return Definition(WORKFLOW, tuple(steps))

    def _load(self, context: Context, state: State) -> Wait | Finish:
        """Have the workers load the version, without traffic; the watch wakes the workflow when all have."""
        rollout_id = state["rollout"]
        with self.database.reading() as connection:
            watched = store.watched_of(connection, rollout_id)
        if watched is None or not watched.rollout.state.active:
            return Finish(state)
        rollout = watched.rollout
        try:
            self.materialize(rollout.project, rollout.model, rollout.version, rollout.digest)
        except (Corrupted, NotFound) as error:
            with self.database.transaction() as tx:
                locked = self._rollout(tx, rollout_id)
                if locked.rollout.state.active:
                    self._take_back(tx, locked, why=error.message, checks=())
            return Finish(state)
        self.publish()
        return Wait(LOADED, {**state, "step": 0}, None, then="expose")

    def _expose(self, context: Context, state: State) -> Wait | Finish:
        """Give the version its share of traffic, and wait for the guard or the deadline."""
        step = int(state["step"])
        with self.database.transaction() as tx:
            watched = self._rollout(tx, state["rollout"])
            rollout = watched.rollout
            if not rollout.state.active:
                return Finish(_summary(rollout))
            if rollout.step < step:
                rollout = self._enter(tx, watched, step)
        self.publish()
        started = rollout.step_started_at or context.clock.now()
        deadline = None if rollout.state is RolloutState.HELD else started + rollout.canary.wait
        return Wait(wait_name(step), state, deadline, "continue", then="conclude")

    def _conclude(self, context: Context, state: State) -> Wait | Goto | Finish:
        """Go on when the step has passed; act on silence when its time is over."""
        step = int(state["step"])
        timed_out = context.wake is not None and context.wake.timed_out
        with self.database.transaction() as tx:
            watched = self._rollout(tx, state["rollout"])
            rollout = watched.rollout
            if not rollout.state.active:
                return Finish(_summary(rollout))
            now = context.clock.now()
            held = rollout.state is RolloutState.HELD
            if not held and passed(rollout, now):
                last = step + 1 == len(rollout.canary.steps)
                return Goto("finish", state) if last else Goto("expose", {**state, "step": step + 1})
            if not timed_out or held:
                deadline = None if held else now + rollout.canary.wait
                return Wait(wait_name(step), state, deadline, "continue", then="conclude")
            why = silence(rollout)
            if rollout.canary.on_silence == "hold":
                self._hold(tx, watched, reason=f"Waiting for a person: {why}", actor=SYSTEM)
                return Wait(wait_name(step), state, None, then="conclude")
            rollout = self._take_back(tx, watched, why=why, checks=rollout.checks)
        self.publish()
        return Finish(_summary(rollout))

    def _complete(self, context: Context, state: State) -> Wait | Finish:
        """Make the version the champion."""
        step = int(state["step"])
        with self.database.transaction() as tx:
            watched = self._rollout(tx, state["rollout"])
            rollout = watched.rollout
            if rollout.state is RolloutState.HELD:
                return Wait(wait_name(step), state, None, then="conclude")
            if rollout.state is not RolloutState.RUNNING:
                return Finish(_summary(rollout))
            endpoint = store.endpoint_of(tx.connection, rollout.endpoint, lock=True)
            if endpoint is None:
                return Finish(_summary(rollout))
            version = VersionId(rollout.model, rollout.version, rollout.project)
            permission = self._registry.permits(version, PROMOTE, tx=tx)
            actor = Actor(rollout.started_by)
            if permission.allowed:
                rollout = self._finish(tx, watched, endpoint, actor=actor)
            else:
                why = f"it may not be promoted any more. {permission.reason}"
                rollout = self._take_back(tx, watched, why=why, checks=rollout.checks)
        self.publish()
        return Finish(_summary(rollout))

    def _enter(self, tx: Transaction, watched: store.Watched, step: int) -> Rollout:
        rollout, now = watched.rollout, self._clock.now()
        store.set_rollout(
            tx,
            rollout.id,
            step=step,
            step_started_at=now,
            updated_at=now,
            waits_for=wait_name(step),
            guard=watched.guard.enter_step(rollout.canary, step),
            exposure=watched.exposure.open() if watched.exposure.number == 0 else watched.exposure,
            checks=(),
        )
        after = self._rollout(tx, rollout.id)
        self._record_rollout(
            tx,
            "rollout.step_started",
            after.rollout,
            actor=SYSTEM,
            before={"step": rollout.step, "traffic": rollout.weight / 10_000},
            after={"step": step, "traffic": after.rollout.weight / 10_000},
            data={
                "checks": [check.to_json() for check in rollout.checks],
                "answers": watched.guard.canary.answers,
                "control_answers": watched.guard.control.answers,
                "most_answers_given": after.exposure.bound,
            },
        )
        return after.rollout


def silence(rollout: Rollout) -> str:
    """Say what was still open when a step's time was over."""
    still = " ".join(check.reason for check in unsettled(rollout.checks)) or "No answer of it was seen."
    return f"after {rollout.canary.max_wait} the step could not be judged. {still}"


def _summary(rollout: Rollout) -> State:
    return {"rollout": rollout.id, "state": rollout.state.value, "reason": rollout.reason}

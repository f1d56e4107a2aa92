"""How a run moves: every change of its rows, together with its event, inside the caller's transaction.

Each function takes the run's row, which the transaction holds locked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from modelyard.errors import Invalid, TooLarge
from modelyard.events import SYSTEM, Clock, Event, EventLog
from modelyard.storage import Transaction
from modelyard.workflows import store
from modelyard.workflows.model import (
    Answer,
    Definition,
    Finish,
    Goto,
    Start,
    State,
    Status,
    StepStatus,
    Wait,
    Wake,
)

STATE_LIMIT_BYTES = 1_000_000
"""A state holds ids, not data: it is written at every step."""


def check_state(what: str, state: object) -> State:
    """Return the state as it will be read back.

    Raises:
        Invalid: If it is not a JSON object.
        TooLarge: If it is over ``STATE_LIMIT_BYTES``.
    """
    if not isinstance(state, Mapping):
        raise Invalid(f"{what} is a {type(state).__name__}; expected a JSON object, Wait, Goto or Finish.")
    try:
        text = json.dumps(dict(state))
    except (TypeError, ValueError) as error:
        raise Invalid(f"{what} is not JSON: {error}") from error
    if len(text) > STATE_LIMIT_BYTES:
        raise TooLarge(what, size=len(text), limit=STATE_LIMIT_BYTES)
    restored: State = json.loads(text)
    return restored


def check_answer(definition: Definition, step: str, answer: Answer) -> Answer:
    """Return a step's answer with its state as it will be read back.

    Raises:
        Invalid: If the state is not a JSON object, or a deadline has no time zone.
        NotFound: If it names a step that the definition does not have.
    """
    what = f"What step {step!r} handed on"
    match answer:
        case Wait():
            if answer.then is not None:
                definition.step(answer.then)
            elif definition.after(step) is None:
                raise Invalid(f"Step {step!r} waits, but no step follows it in {definition.name!r}.")
            if answer.deadline is not None and answer.deadline.tzinfo is None:
                raise Invalid(f"The deadline of step {step!r} has no time zone.")
            state = check_state(what, answer.state)
            return Wait(answer.name, state, answer.deadline, answer.on_timeout, answer.then)
        case Goto():
            definition.step(answer.step)
            return Goto(answer.step, check_state(what, answer.state))
        case Finish():
            return Finish(check_state(what, answer.output))
        case _:
            return check_state(what, answer)


class Transitions:
    """The moves.

    Args:
        events: Log that receives one event per move.
        clock: Event time and deadlines.
        wall_clock: Start and end of steps.
    """

    def __init__(self, events: EventLog, *, clock: Clock, wall_clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._wall_clock = wall_clock

    def begin(
        self,
        tx: Transaction,
        start: Start,
        *,
        workflow_id: str,
        step: str,
        actor: str,
        forked_from: str | None = None,
        position: int = 0,
    ) -> None:
        """Add a run that begins at this step; the rows of earlier steps are the caller's."""
        now = self._clock.now()
        tx.execute(
            sa.insert(store.runs).values(
                id=workflow_id,
                name=start.name,
                project=start.project,
                subject=start.subject,
                queue_key=start.queue_key,
                status=Status.RUNNING,
                input=start.input,
                forked_from=forked_from,
                started_by=actor,
                started_at=now,
                segment=0,
                position=position,
                dispatched=False,
            )
        )
        self._come_to(tx, workflow_id, position, step)
        row = _row(tx, workflow_id)
        data = {"input": start.input, "step": step, "forked_from": forked_from}
        self._record(tx, row, "started", actor=actor, before=None, after=Status.RUNNING, data=data)

    def apply(
        self, tx: Transaction, run: sa.Row[Any], *, step: sa.Row[Any], answer: Answer, definition: Definition
    ) -> int | None:
        """Store a step's checked answer and move on.

        Returns:
            Position of the next step of this segment, None if the segment ends here.
        """
        output = _output(answer)
        store.update_step(
            tx,
            run.id,
            step.position,
            status=StepStatus.SUCCEEDED,
            ended_at=self._wall_clock.now(),
            output=output,
            error=None,
        )
        position = int(step.position) + 1
        if isinstance(answer, Wait):
            following = answer.then or definition.after(step.name)
        elif isinstance(answer, Goto):
            following = answer.step
        else:
            following = None if isinstance(answer, Finish) else definition.after(step.name)
        if following is None:
            self._end(tx, run, "finished", status=Status.SUCCEEDED, output=output)
            return None
        if isinstance(answer, Wait):
            return self._wait(tx, run, answer, position=position, following=following)
        self._come_to(tx, run.id, position, following)
        return position

    def fail(self, tx: Transaction, run: sa.Row[Any], *, error: str, data: Mapping[str, Any]) -> None:
        """End a run as failed."""
        self._end(tx, run, "failed", status=Status.FAILED, error=error, data={"error": error, **data})

    def cancel(self, tx: Transaction, run: sa.Row[Any], *, actor: str, reason: str) -> None:
        """End a run as cancelled, its unfinished steps and its wait too."""
        store.cancel_steps(tx, run.id, at=self._wall_clock.now())
        store.close_wait(tx, run.id, state="cancelled")
        error = f"Cancelled by {actor}" + (f": {reason}" if reason else ".")
        data = {"reason": reason}
        self._end(tx, run, "cancelled", status=Status.CANCELLED, error=error, actor=actor, data=data)

    def signal(self, tx: Transaction, run: sa.Row[Any], *, name: str, payload: Any, actor: str) -> bool:
        """Wake a run that waits for this, or keep the signal for the wait that is still to come.

        Returns:
            False if the run has had an answer to this wait already; nothing changes then.
        """
        wait = store.open_wait(tx.connection, run.id)
        data = {"name": name, "payload": payload}
        if wait is not None and wait.name == name:
            self._wake(tx, run, wait, Wake(name, payload, timed_out=False, by=actor), state="signalled")
            self._record(tx, run, "signalled", actor=actor, before=Status.WAITING, after=Status.RUNNING, data=data)
            return True
        early = {"run_id": run.id, "name": name, "payload": payload, "actor": actor}
        if store.wait_exists(tx, run.id, name) or not store.keep_early_signal(tx, early):
            return False
        status = Status(run.status)
        self._record(tx, run, "signalled", actor=actor, before=status, after=status, data=data)
        return True

    def expire(self, tx: Transaction, run: sa.Row[Any], wait: sa.Row[Any]) -> None:
        """Act on a wait whose deadline has passed."""
        data = {"name": wait.name, "deadline": wait.deadline}
        if wait.on_timeout == "continue":
            self._wake(tx, run, wait, Wake(wait.name, None, timed_out=True), state="expired")
            self._record(tx, run, "wait_expired", before=Status.WAITING, after=Status.RUNNING, data=data)
            return
        store.close_wait(tx, run.id, state="expired")
        store.cancel_steps(tx, run.id, at=self._wall_clock.now())
        error = f"Nobody answered {wait.name!r} before its deadline {wait.deadline.isoformat()}."
        self.fail(tx, run, error=error, data=data)

    def restart_segment(self, tx: Transaction, run_id: str, *, segment: int) -> bool:
        """Give a run a new segment after the engine has lost or given up this one; False if it moved on."""
        run = store.run_row(tx.connection, run_id, lock=True)
        if run is None or run.status != Status.RUNNING or run.segment != segment:
            return False
        store.update_run(tx, run_id, segment=segment + 1, dispatched=False)
        return True

    def _wait(self, tx: Transaction, run: sa.Row[Any], wait: Wait, *, position: int, following: str) -> int | None:
        values = {
            "run_id": run.id,
            "position": position,
            "name": wait.name,
            "since": self._clock.now(),
            "deadline": wait.deadline,
            "on_timeout": wait.on_timeout,
        }
        store.insert_wait(tx, values)
        early = store.take_early_signal(tx, run.id, wait.name)
        if early is not None:
            store.close_wait(tx, run.id, state="signalled")
            wake = Wake(wait.name, early.payload, timed_out=False, by=early.actor)
            self._come_to(tx, run.id, position, following, wake=wake)
            return position
        self._come_to(tx, run.id, position, following)
        store.update_run(tx, run.id, status=Status.WAITING)
        data = {"name": wait.name, "deadline": wait.deadline, "on_timeout": wait.on_timeout}
        self._record(tx, run, "waiting", before=Status.RUNNING, after=Status.WAITING, data=data)
        return None

    def _wake(self, tx: Transaction, run: sa.Row[Any], wait: sa.Row[Any], wake: Wake, *, state: str) -> None:
        store.close_wait(tx, run.id, state=state)
        store.update_step(tx, run.id, wait.position, wake=asdict(wake))
        store.update_run(
            tx,
            run.id,
            status=Status.RUNNING,
            segment=run.segment + 1,
            position=wait.position,
            dispatched=False,
        )

    def _come_to(self, tx: Transaction, run_id: str, position: int, step: str, *, wake: Wake | None = None) -> None:
        values = {
            "run_id": run_id,
            "position": position,
            "name": step,
            "visit": store.count_visits(tx, run_id, step) + 1,
            "status": StepStatus.PENDING,
            "wake": None if wake is None else asdict(wake),
        }
        store.insert_step(tx, values)

    def _end(
        self,
        tx: Transaction,
        run: sa.Row[Any],
        verb: str,
        *,
        status: Status,
        output: State | None = None,
        error: str | None = None,
        actor: str = SYSTEM.name,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        store.drop_early_signals(tx, run.id)
        now = self._clock.now()
        store.update_run(tx, run.id, status=status, output=output, error=error, ended_at=now)
        before = Status(run.status)
        self._record(tx, run, verb, actor=actor, before=before, after=status, data=data or {})

    def _record(
        self,
        tx: Transaction,
        run: sa.Row[Any],
        verb: str,
        *,
        before: Status | None,
        after: Status,
        data: Mapping[str, Any],
        actor: str = SYSTEM.name,
    ) -> None:
        event = Event(
            kind=f"workflow.{verb}",
            subject=f"workflow:{run.id}",
            actor=actor,
            at=self._clock.now(),
            before=None if before is None else {"status": str(before)},
            after={"status": str(after)},
            data={"workflow": run.name, "about": run.subject, **data},
            project=run.project,
        )
        self._events.record(tx, event)


def _output(answer: Answer) -> State:
    if isinstance(answer, Wait | Goto):
        return answer.state
    return answer.output if isinstance(answer, Finish) else answer


def _row(tx: Transaction, run_id: str) -> sa.Row[Any]:
    row = store.run_row(tx.connection, run_id)
    if row is None:
        raise LookupError(run_id)  # it was inserted in this transaction
    return row

"""Performs one step of one run: the engine calls it, our rows decide.

The engine's checkpoint and our own transaction are two commits. A crash between them repeats the call, so a
step whose row says *succeeded* is not run again, and a process that was taken for dead and comes back finds
its start outnumbered and changes nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from modelyard.errors import ModelyardError, NotFound
from modelyard.events import Clock
from modelyard.storage import Database, Transaction
from modelyard.workflows import store
from modelyard.workflows.children import Stopped
from modelyard.workflows.context import ActiveSteps, Context, StopSignal
from modelyard.workflows.model import Answer, Definition, Run, State, Status, Step, StepStatus, Wake
from modelyard.workflows.transitions import Transitions, check_answer

MAX_CRASHES = 5
"""How often a step may take its process down before the run fails: a step that is killed for its memory each
time must not restart for ever."""

_LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class _Begun:
    run: Run
    segment: int
    position: int
    step: Step
    definition: Definition
    starts: int
    failures: int
    key: str
    state: State
    wake: Wake | None


@dataclass(frozen=True, slots=True)
class _Next:
    """The segment goes on at this position, or ends."""

    position: int | None


@dataclass(frozen=True, slots=True)
class _Again:
    """The step failed and may be tried again after a pause."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception
    traceback: str


class Runner:
    """Runs steps in this process.

    Args:
        database: Where the rows are.
        transitions: The moves.
        definitions: Workflows by name.
        active: Steps that run in this process.
        executor_id: Name of this process.
        wall_clock: Start and end of steps.
        clock: The injected clock that steps see.
        logs: Folder for children's output; None keeps none.
        changed: Called after every commit that moved a run.
    """

    def __init__(
        self,
        database: Database,
        transitions: Transitions,
        *,
        definitions: Mapping[str, Definition],
        active: ActiveSteps,
        executor_id: str,
        wall_clock: Clock,
        clock: Clock,
        logs: Path | None,
        changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._transitions = transitions
        self._definitions = definitions
        self._active = active
        self._executor_id = executor_id
        self._wall_clock = wall_clock
        self._clock = clock
        self._logs = logs
        self._changed = changed

    def perform(self, run_id: str, segment: int, position: int) -> int | None:
        """Run the step at this position unless it is done or no longer wanted.

        Returns:
            Position of the segment's next step; None if the segment ends.

        Raises:
            Stopped: If this process is closing; another start of the engine resumes here.
        """
        signal = StopSignal(run_id, lambda: self._wanted(run_id, segment))
        while True:
            begun = self._begin(run_id, segment, position)
            if isinstance(begun, _Next):
                return begun.position
            try:
                with self._active.entered(signal):
                    outcome = self._attempt(begun, signal)
            except Stopped as stopped:
                if stopped.reason != "closing":
                    return None
                self._give_back(begun)
                raise
            settled = self._settle(begun, outcome)
            self._changed()
            if isinstance(settled, _Next):
                return settled.position
            with self._active.entered(signal):
                signal.pause(settled.pause_s)

    def log_path(self, run_id: str, position: int, step: str) -> Path | None:
        """Return where the output of a step's children goes."""
        if self._logs is None:
            return None
        return self._logs / quote(run_id, safe="") / f"{position:04d}-{step}.log"

    def _wanted(self, run_id: str, segment: int) -> bool:
        with self._database.reading() as connection:
            run = store.run_row(connection, run_id)
        return run is not None and run.status == Status.RUNNING and run.segment == segment

    def _begin(self, run_id: str, segment: int, position: int) -> _Begun | _Next:
        with self._database.transaction() as tx:
            run = store.run_row(tx.connection, run_id, lock=True)
            row = store.step_row(tx.connection, run_id, position)
            if run is None or row is None or run.status != Status.RUNNING or run.segment != segment:
                return _Next(None)
            if row.status == StepStatus.SUCCEEDED:
                return _Next(position + 1)
            try:
                definition = self._definition(run.name)
                step = definition.step(row.name)
            except NotFound as error:
                self._fail(tx, run, row, error=f"{error.message} It was there when the run started.")
                return _Next(None)
            if row.starts - row.failures >= MAX_CRASHES:
                error_text = f"Step {row.name!r} took its process down {MAX_CRASHES} times."
                self._fail(tx, run, row, error=error_text)
                return _Next(None)
            store.update_step(
                tx,
                run_id,
                position,
                status=StepStatus.RUNNING,
                starts=row.starts + 1,
                executor=self._executor_id,
                started_at=self._wall_clock.now(),
            )
            return self._begun(tx, run, row, step=step, definition=definition)

    def _begun(
        self,
        tx: Transaction,
        run: sa.Row[Any],
        row: sa.Row[Any],
        *,
        step: Step,
        definition: Definition,
    ) -> _Begun:
        previous = store.step_row(tx.connection, run.id, row.position - 1)
        visit = f"#{row.visit}" if row.visit > 1 else ""
        return _Begun(
            run=store.run_of(run),
            segment=run.segment,
            position=row.position,
            step=step,
            definition=definition,
            starts=row.starts + 1,
            failures=row.failures,
            key=f"{run.id}/{row.name}{visit}",
            state=run.input if previous is None else previous.output,
            wake=None if row.wake is None else Wake(**row.wake),
        )

    def _definition(self, name: str) -> Definition:
        if name not in self._definitions:
            raise NotFound("workflow definition", name, known=self._definitions)
        return self._definitions[name]

    def _attempt(self, begun: _Begun, signal: StopSignal) -> Answer | _Failure:
        context = Context(
            run_id=begun.run.id,
            project=begun.run.project,
            subject=begun.run.subject,
            step=begun.step.name,
            key=begun.key,
            input=begun.run.input,
            wake=begun.wake,
            clock=self._clock,
            log=self.log_path(begun.run.id, begun.position, begun.step.name),
            signal=signal,
        )
        try:
            answer = begun.step.function(context, begun.state)
            return check_answer(begun.definition, begun.step.name, answer)
        except Exception as error:  # noqa: BLE001 - the edge to foreign code: whatever it raises fails its run
            return _Failure(error, traceback.format_exc())

    def _settle(self, begun: _Begun, outcome: Answer | _Failure) -> _Next | _Again:
        with self._database.transaction() as tx:
            run = store.run_row(tx.connection, begun.run.id, lock=True)
            row = store.step_row(tx.connection, begun.run.id, begun.position)
            if run is None or row is None or run.status != Status.RUNNING or run.segment != begun.segment:
                return _Next(None)
            if row.starts != begun.starts or row.status != StepStatus.RUNNING:
                return _Next(None)  # somebody else took this step over while this process was paused
            if isinstance(outcome, _Failure):
                return self._settle_failure(tx, run, row, begun=begun, failure=outcome)
            return _Next(self._transitions.apply(tx, run, step=row, answer=outcome, definition=begun.definition))

    def _settle_failure(
        self,
        tx: Transaction,
        run: sa.Row[Any],
        row: sa.Row[Any],
        *,
        begun: _Begun,
        failure: _Failure,
    ) -> _Next | _Again:
        failures = begun.failures + 1
        step = begun.step
        values = {"failures": failures, "error": failure.traceback, "ended_at": self._wall_clock.now()}
        if failures < step.attempts and isinstance(failure.error, step.retry_on):
            store.update_step(tx, run.id, row.position, status=StepStatus.PENDING, **values)
            return _Again(min(step.pause_s * 2 ** (failures - 1), _LONGEST_PAUSE_S))
        store.update_step(tx, run.id, row.position, status=StepStatus.FAILED, **values)
        text = f"Step {step.name!r} failed: {type(failure.error).__name__}: {failure.error}"
        code = failure.error.code if isinstance(failure.error, ModelyardError) else "exception"
        data = {"step": step.name, "code": code, "failures": failures}
        self._transitions.fail(tx, run, error=text, data=data)
        return _Next(None)

    def _fail(self, tx: Transaction, run: sa.Row[Any], row: sa.Row[Any], *, error: str) -> None:
        now = self._wall_clock.now()
        store.update_step(tx, run.id, row.position, status=StepStatus.FAILED, error=error, ended_at=now)
        self._transitions.fail(tx, run, error=error, data={"step": row.name, "code": "not_run"})

    def _give_back(self, begun: _Begun) -> None:
        """Undo the start of a step that closing interrupted, so that it does not count as a crash."""
        with self._database.transaction() as tx:
            row = store.step_row(tx.connection, begun.run.id, begun.position)
            if row is not None and row.starts == begun.starts and row.status == StepStatus.RUNNING:
                store.update_step(tx, begun.run.id, begun.position, status=StepStatus.PENDING, starts=begun.starts - 1)

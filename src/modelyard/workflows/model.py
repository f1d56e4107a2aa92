"""What a workflow is: definitions, what a step may answer, runs and their steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from modelyard.errors import Invalid, NotFound

if TYPE_CHECKING:
    from modelyard.workflows.context import Context

State = dict[str, Any]
"""A JSON object: what one step hands to the next. Hold ids in it, not data."""

OnTimeout = Literal["continue", "fail"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@=+/~-]{0,199}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,79}")


class Status(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing will happen any more."""
        return self in FINAL


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


class StepStatus(StrEnum):
    """Where one step of a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Wait:
    """A step's answer: end here, and go on when somebody signals ``name`` or the deadline passes.

    A waiting run holds neither thread nor queue slot, and survives restarts and upgrades.

    Attributes:
        name: What is waited for; ``Engine.signal`` uses the same name.
        state: State for the step that goes on.
        deadline: Time by the injected clock, aware; None waits without limit.
        on_timeout: Whether a passed deadline goes on (``Context.wake.timed_out`` is true) or fails the run.
        then: Step that goes on; None takes the next one of the definition.
    """

    name: str
    state: State
    deadline: datetime | None = None
    on_timeout: OnTimeout = "fail"
    then: str | None = None


@dataclass(frozen=True, slots=True)
class Goto:
    """A step's answer: go on with another step than the next one."""

    step: str
    state: State


@dataclass(frozen=True, slots=True)
class Finish:
    """A step's answer: the run has succeeded, the steps that are left are not needed."""

    output: State


Answer = State | Wait | Goto | Finish
StepFunction = Callable[["Context", State], Answer]


@dataclass(frozen=True, slots=True)
class Step:
    """A named step.

    Attributes:
        name: Unique inside the definition.
        function: Runs at least once: key every effect by ``Context.key``. It answers with the state for the
            next step, or with ``Wait``, ``Goto`` or ``Finish``.
        attempts: How often it may fail with one of ``retry_on`` before the run fails.
        pause_s: Seconds before the second attempt; each later pause doubles, up to five minutes.
        retry_on: Errors that another attempt may cure.
    """

    name: str
    function: StepFunction
    attempts: int = 1
    pause_s: float = 1.0
    retry_on: tuple[type[Exception], ...] = ()


@dataclass(frozen=True, slots=True)
class Definition:
    """A workflow: steps in their usual order.

    Attributes:
        name: Stable name; waiting runs refer to it and to their steps' names across upgrades.
        steps: At least one; names unique.
        heavy: Whether its segments take one of the process's few slots for heavy work (training). Light
            segments start at once.
    """

    name: str
    steps: tuple[Step, ...]
    heavy: bool = False

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        bad = [name for name in (self.name, *names) if not _NAME.fullmatch(name)]
        if bad:
            raise Invalid(
                f"{bad[0]!r} cannot name a workflow or a step: expected lower-case letters, digits, '-', '_'."
            )
        if not names or len(set(names)) != len(names):
            raise Invalid(f"Workflow {self.name!r} needs at least one step, and each name once.")

    def step(self, name: str) -> Step:
        """Return a step by name.

        Raises:
            NotFound: If the definition has no such step (any more).
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise NotFound(f"step in workflow {self.name!r}", name, known=[step.name for step in self.steps])

    def after(self, name: str) -> str | None:
        """Return the name of the step after this one, None after the last."""
        names = [step.name for step in self.steps]
        index = names.index(name) + 1
        return names[index] if index < len(names) else None


@dataclass(frozen=True, slots=True)
class Wake:
    """Why the step after a wait runs.

    Attributes:
        name: Name of the wait.
        payload: What the signal carried; None after a timeout.
        timed_out: Whether the deadline passed without a signal.
        by: Who signalled; None after a timeout.
    """

    name: str
    payload: Any
    timed_out: bool
    by: str | None = None


@dataclass(frozen=True, slots=True)
class StepRun:
    """One step of one run, as it went.

    Attributes:
        position: Place in the run, from 0; a step that runs twice (``Goto``) has two.
        name: Name of the step.
        status: Where it stands.
        starts: How often it was started; more than ``failures + 1`` when a process died.
        failures: How often it raised.
        executor: Process that ran it last.
        started_at: Wall-clock time of the last start.
        ended_at: Wall-clock time of its end.
        output: State that it handed on.
        error: What it raised last, with traceback.
        copied: Whether it was taken over from the run that this one retries.
    """

    position: int
    name: str
    status: StepStatus
    starts: int
    failures: int
    executor: str | None
    started_at: datetime | None
    ended_at: datetime | None
    output: State | None
    error: str | None
    copied: bool


@dataclass(frozen=True, slots=True)
class OpenWait:
    """What a waiting run waits for."""

    name: str
    since: datetime
    deadline: datetime | None
    on_timeout: OnTimeout


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a workflow.

    Attributes:
        id: Unique over all projects; callers derive it from what must happen once (the dedup key).
        name: Name of the definition.
        project: Project that it belongs to.
        subject: Object that it is about (``kind:name``), if any.
        queue_key: Runs with the same key have at most one segment running at a time.
        status: Where it stands.
        input: What it was started with.
        output: The last state, once it has succeeded.
        error: One line on why it failed or was cancelled.
        forked_from: Run that this one retries from a step.
        started_by: Name of who started it.
        started_at: Time by the injected clock.
        ended_at: Time by the injected clock.
        steps: In order of running; empty in lists.
        wait: What it waits for; None in lists and when it does not wait.
    """

    id: str
    name: str
    project: str
    subject: str | None
    queue_key: str | None
    status: Status
    input: State
    output: State | None
    error: str | None
    forked_from: str | None
    started_by: str
    started_at: datetime
    ended_at: datetime | None
    steps: tuple[StepRun, ...] = ()
    wait: OpenWait | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of runs, newest first.

    Attributes:
        runs: At most ``limit`` runs, without their steps.
        cursor: Pass it to read on; None on the last page.
    """

    runs: tuple[Run, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run stands at the end of ``wait_for``."""

    status: Status
    output: State | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Ticked:
    """What one tick of the engine did.

    Attributes:
        expired: Runs whose wait passed its deadline.
        dispatched: Runs handed to the engine that were written but not yet handed over.
        adopted: Dead executors whose work was taken over.
    """

    expired: tuple[str, ...] = ()
    dispatched: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """A request to start a run.

    Attributes:
        name: Name of the definition.
        input: JSON object.
        workflow_id: What must happen once; None makes a new id.
        queue_key: See ``Run.queue_key``.
        project: Project that it belongs to.
        subject: Object that it is about.
    """

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    workflow_id: str | None = None
    queue_key: str | None = None
    project: str = "default"
    subject: str | None = None


def check_id(workflow_id: str) -> str:
    """Return the id if it can name a run.

    Raises:
        Invalid: If it is empty, too long or holds other characters.
    """
    if not _ID.fullmatch(workflow_id):
        raise Invalid(f"{workflow_id!r} cannot be a workflow id: expected 1 to 200 of letters, digits, ._:@=+/~-")
    return workflow_id

"""Errors of workflows and their child processes.

ModelyardError
├── ChildError           a supervised child process did not deliver
│   ├── ChildTimedOut    it ran over its time limit and was killed
│   ├── ChildFailed      it raised, or ended without a result
│   └── ChildKilled      a signal or its memory limit ended it
└── Unavailable
    └── StillRunning     the run is not finished yet
"""

from __future__ import annotations

from modelyard.errors import ModelyardError, Unavailable


class ChildError(ModelyardError):
    """A supervised child process did not deliver its result.

    Attributes:
        log_tail: The last lines that it wrote.
    """

    code = "child_error"

    def __init__(self, message: str, *, log_tail: str, **facts: object) -> None:
        shown = f"{message}\nIts last output:\n{log_tail}" if log_tail else message
        super().__init__(shown, log_tail=log_tail, **facts)
        self.log_tail = log_tail


class ChildTimedOut(ChildError):
    """The child ran longer than it may."""

    code = "child_timed_out"

    def __init__(self, target: str, *, timeout_s: float, log_tail: str) -> None:
        super().__init__(
            f"{target} was stopped after its time limit of {timeout_s:g} s. Raise it or give it less work.",
            log_tail=log_tail,
            target=target,
            timeout_s=timeout_s,
        )


class ChildFailed(ChildError):
    """The child raised an exception, or ended without a result.

    Attributes:
        error_type: Qualified name of the exception, "" if it ended without one.
        traceback: The child's traceback, "" if there is none.
    """

    code = "child_failed"

    def __init__(self, target: str, *, reason: str, error_type: str, traceback: str, log_tail: str) -> None:
        message = f"{target} failed: {reason}" + (f"\n{traceback}" if traceback else "")
        super().__init__(message, log_tail=log_tail, target=target, error_type=error_type)
        self.error_type = error_type
        self.traceback = traceback


class ChildKilled(ChildError):
    """A signal ended the child; ``reason`` says which, and whether memory is the likely cause."""

    code = "child_killed"

    def __init__(self, target: str, *, reason: str, log_tail: str) -> None:
        super().__init__(f"{target} was killed: {reason}", log_tail=log_tail, target=target, reason=reason)


class StillRunning(Unavailable):
    """The run has not finished within the time that the caller gave it."""

    code = "still_running"

    def __init__(self, workflow_id: str, *, status: str, timeout_s: float) -> None:
        super().__init__(
            f"Workflow {workflow_id} is still {status} after {timeout_s:g} s.",
            workflow_id=workflow_id,
            status=status,
        )

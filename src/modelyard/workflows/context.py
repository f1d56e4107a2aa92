"""What a running step is given, and how work in progress is told to stop."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.events import Clock
from modelyard.workflows.children import GRACE_S, Stopped, run_child
from modelyard.workflows.model import State, Wake

_PROBE_S = 1.0  # another process's cancellation is seen within this time


class StopSignal:
    """Tells one running step why it must stop.

    Args:
        probe: Returns whether the run still wants this step; asked at most once a second.
    """

    def __init__(self, run_id: str, probe: Callable[[], bool]) -> None:
        self.run_id = run_id
        self._probe = probe
        self._event = threading.Event()
        self._reason: str | None = None
        self._probe_at = time.monotonic() + _PROBE_S

    def stop(self, reason: str) -> None:
        """Ask the step to stop; the first reason counts."""
        self._reason = self._reason or reason
        self._event.set()

    def reason(self) -> str | None:
        """Return why the step must stop, or None."""
        if self._reason is None and time.monotonic() >= self._probe_at:
            self._probe_at = time.monotonic() + _PROBE_S
            if not self._probe():
                self.stop("cancelled")
        return self._reason

    def pause(self, seconds: float) -> None:
        """Sleep until the time is over or the step must stop."""
        end = time.monotonic() + seconds
        while self.reason() is None and (left := end - time.monotonic()) > 0:
            self._event.wait(min(left, _PROBE_S))


class ActiveSteps:
    """The steps that run in this process now."""

    def __init__(self) -> None:
        self._signals: set[StopSignal] = set()
        self._changed = threading.Condition()
        self._closing = False

    @contextmanager
    def entered(self, signal: StopSignal) -> Iterator[StopSignal]:
        """Count a step as running until the block ends.

        Raises:
            Stopped: If the process is closing.
        """
        with self._changed:
            if self._closing:
                raise Stopped("closing")
            self._signals.add(signal)
        try:
            yield signal
        finally:
            with self._changed:
                self._signals.discard(signal)
                self._changed.notify_all()

    def cancel(self, run_id: str) -> None:
        """Stop this run's step if it runs here."""
        with self._changed:
            for signal in self._signals:
                if signal.run_id == run_id:
                    signal.stop("cancelled")

    def close(self, *, within_s: float) -> bool:
        """Stop every step and wait until they have; return whether all did in time."""
        with self._changed:
            self._closing = True
            for signal in self._signals:
                signal.stop("closing")
            return self._changed.wait_for(lambda: not self._signals, timeout=within_s)


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that a step may know about its run.

    Attributes:
        run_id: The run.
        project: Its project.
        subject: Object that it is about.
        step: Name of this step.
        key: Idempotency key of this visit to the step: the same again when the step is redone after a crash.
        input: What the run was started with.
        wake: Why the step runs, if it follows a wait.
        clock: The injected clock, for deadlines.
        log: File for the output of children; None without a log folder.
    """

    run_id: str
    project: str
    subject: str | None
    step: str
    key: str
    input: State
    wake: Wake | None
    clock: Clock
    log: Path | None
    signal: StopSignal

    def check(self) -> None:
        """End the step here if the run was cancelled or the process closes; for long loops.

        Raises:
            Stopped: If it must end.
        """
        reason = self.signal.reason()
        if reason is not None:
            raise Stopped(reason)

    def child(
        self,
        target: str,
        payload: Any,
        *,
        timeout_s: float,
        memory_bytes: int | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        grace_s: float = GRACE_S,
    ) -> Any:
        """Call ``module:function`` in a supervised child process that dies with a cancelled run.

        Arguments, result and errors are those of ``run_child``; output is appended to ``log``.
        """
        return run_child(
            target,
            payload,
            timeout_s=timeout_s,
            memory_bytes=memory_bytes,
            cwd=cwd,
            env=env,
            python=python,
            log=self.log,
            stop=self.signal.reason,
            grace_s=grace_s,
        )

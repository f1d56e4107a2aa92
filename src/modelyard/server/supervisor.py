"""One supervised tree of processes: starts them, restarts the killed, ends them together."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_logger = logging.getLogger("modelyard.supervisor")
_PR_SET_PDEATHSIG = 1
# A process that keeps failing is restarted after 0.2, 0.4, 0.8 … at most 10 seconds; one that has run for
# 10 seconds starts again from 0.2.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _STABLE_S = 0.2, 10.0, 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """A process to keep alive.

    Attributes:
        name: Unique name, also that of its log file.
        argv: Command line.
        stop_timeout_s: Seconds between SIGTERM and SIGKILL at the end.
        stop_order: Programs with a lower number are ended first, and have ended before the next are asked to.
    """

    name: str
    argv: Sequence[str]
    stop_timeout_s: float = 10.0
    stop_order: int = 0


@dataclass(slots=True)
class _Running:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    pause_s: float = _FIRST_PAUSE_S
    restart_at: float | None = None
    restarts: int = field(default=0)


class Supervisor:
    """Keeps programs alive until it is told to stop.

    Args:
        programs: What to run.
        logs: Folder of one log file for each program.
        environ: Environment of the programs.
    """

    def __init__(self, programs: Sequence[Program], *, logs: Path, environ: Mapping[str, str]) -> None:
        self._programs = programs
        self._logs = logs
        self._environ = dict(environ)
        self._running: dict[str, _Running] = {}
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start every program."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for program in self._programs:
            self._running[program.name] = _Running(program, self._spawn(program), time.monotonic())

    def stop(self) -> None:
        """Ask ``run`` to end; callable from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Restart what dies until ``stop`` is called, then end every program in order."""
        while not self._stopping.wait(0.05):
            for running in self._running.values():
                self._check(running)
        self._end()

    def pids(self) -> dict[str, int]:
        """Return the process id of each program."""
        return {name: running.process.pid for name, running in self._running.items()}

    def failing(self) -> dict[str, int]:
        """Return the programs that wait to be restarted, with how often they have been."""
        return {n: r.restarts for n, r in self._running.items() if r.restart_at is not None}

    def _check(self, running: _Running) -> None:
        now = time.monotonic()
        if running.restart_at is not None:
            if now >= running.restart_at:
                running.restart_at = None
                running.process, running.started = self._spawn(running.program), now
            return
        code = running.process.poll()
        if code is None:
            return
        if now - running.started >= _STABLE_S:
            running.pause_s = _FIRST_PAUSE_S
        running.restarts += 1
        running.restart_at = now + running.pause_s
        _logger.warning("%s ended with %s; starting it again", running.program.name, _describe(code))
        running.pause_s = min(2 * running.pause_s, _LONGEST_PAUSE_S)

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        with (self._logs / f"{program.name}.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # our own command lines, no shell
                list(program.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                # A terminal's Ctrl-C reaches the supervisor alone, which ends the others in order.
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509  # async-signal-safe calls only
            )

    def _end(self) -> None:
        for order in sorted({program.stop_order for program in self._programs}):
            group = [r for r in self._running.values() if r.program.stop_order == order]
            for running in group:
                with contextlib.suppress(ProcessLookupError):
                    running.process.terminate()
            for running in group:
                try:
                    running.process.wait(running.program.stop_timeout_s)
                except subprocess.TimeoutExpired:
                    _logger.warning("%s did not end in time; killing it", running.program.name)
                    running.process.kill()
                    running.process.wait()


def _describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


if sys.platform == "linux":
    _libc = ctypes.CDLL(None)

    def _die_with_parent(parent: int) -> Callable[[], object] | None:
        # Loaded before the fork; the child only makes two system calls.
        def arrange() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        return arrange

else:

    def _die_with_parent(parent: int) -> Callable[[], object] | None:
        return None

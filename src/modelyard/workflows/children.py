"""Supervised child processes: heavy or foreign code with limits on time and memory.

The child has its own process group. It is stopped, with everything that it started, when it runs over its
time or memory limit, when its run is cancelled, and when this process dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.errors import Invalid
from modelyard.workflows.errors import ChildFailed, ChildKilled, ChildTimedOut

GRACE_S = 5.0
_LOOK_S = 0.2  # how often the limits are looked at; a stop takes effect within this time plus the grace
_TAIL_BYTES = 4_000
_MAIN = Path(__file__).with_name("child_main.py")
_PACKAGE_ROOT = str(Path(__file__).parents[2])


class Stopped(BaseException):
    """Work must end now because somebody asked; not an error, so ``except Exception`` does not catch it.

    Attributes:
        reason: ``cancelled`` or ``closing``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Limits:
    deadline: float
    timeout_s: float
    memory_bytes: int | None
    stop: Callable[[], str | None]
    grace_s: float


def run_child(
    target: str,
    payload: Any,
    *,
    timeout_s: float,
    memory_bytes: int | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    log: Path | None = None,
    stop: Callable[[], str | None] = lambda: None,
    grace_s: float = GRACE_S,
) -> Any:
    """Call ``module:function`` with a payload in a process of its own, and return its result.

    Args:
        target: ``module:qualname`` of a function of one argument; ``cwd`` is on the child's path.
        payload: JSON-compatible argument.
        timeout_s: Time limit in seconds, > 0.
        memory_bytes: Limit on the resident memory of the child and its children; watched on Linux only,
            five times a second.
        cwd: Working folder; None takes this process's.
        env: Complete environment; None takes this process's.
        python: Interpreter; it need not have Modelyard installed.
        log: File that receives standard output and error, appended; None keeps only the tail for errors.
        stop: Returns why the child must stop, or None; asked five times a second.
        grace_s: Seconds between SIGTERM and SIGKILL.

    Returns:
        The function's result after a round trip through JSON.

    Raises:
        ChildTimedOut: If it ran over its time limit.
        ChildFailed: If it raised, with the traceback, or ended without a result.
        ChildKilled: If a signal or the memory limit ended it.
        Stopped: If ``stop`` asked for it.
        Invalid: If the target is not ``module:function`` or the payload is not JSON.
    """
    request = _request(target, payload, own_python=python == sys.executable)
    limits = _Limits(time.monotonic() + timeout_s, timeout_s, memory_bytes, stop, grace_s)
    with tempfile.TemporaryDirectory(prefix="modelyard-child-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(request, encoding="utf-8")
        output = log or folder / "output.log"
        output.parent.mkdir(parents=True, exist_ok=True)
        process = _spawn(python, folder, output, cwd=cwd, env=env)
        try:
            _supervise(process, target, output, limits)
        finally:
            _end(process, grace_s)
        return _result(process, target, folder, output)


def _request(target: str, payload: Any, *, own_python: bool) -> str:
    module, _, qualname = target.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *qualname.split("."))):
        raise Invalid(f"{target!r} is not a target: expected 'package.module:function'.")
    try:
        return json.dumps(
            {
                "target": target,
                "payload": payload,
                "parent": os.getpid(),
                # The same interpreter finds the Modelyard that this process runs, also from a source tree.
                "sys_path": [_PACKAGE_ROOT] if own_python else [],
            }
        )
    except (TypeError, ValueError) as error:
        raise Invalid(f"The payload for {target} is not JSON: {error}") from error


def _spawn(
    python: str, folder: Path, output: Path, *, cwd: Path | None, env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    # Not `python child_main.py`: that would put this package's own folder first on the child's path.
    boot = "import sys; p = sys.argv.pop(1); exec(compile(open(p).read(), p, 'exec'))"
    with output.open("ab") as sink:
        return subprocess.Popen(  # noqa: S603 - the interpreter is chosen by the caller's code, never by a client
            [python, "-c", boot, str(_MAIN), str(folder)],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            cwd=cwd,
            env=None if env is None else dict(env),
            start_new_session=True,
        )


def _supervise(process: subprocess.Popen[bytes], target: str, output: Path, limits: _Limits) -> None:
    while True:
        left = limits.deadline - time.monotonic()
        try:
            process.wait(timeout=max(0.0, min(_LOOK_S, left)))
        except subprocess.TimeoutExpired:
            pass
        else:
            return
        reason = limits.stop()
        if reason is not None:
            raise Stopped(reason)
        if time.monotonic() >= limits.deadline:
            _end(process, limits.grace_s)
            raise ChildTimedOut(target, timeout_s=limits.timeout_s, log_tail=tail(output))
        if limits.memory_bytes is not None:
            used = resident_bytes(process.pid)
            if used > limits.memory_bytes:
                _end(process, 0.0)
                raise ChildKilled(
                    target,
                    reason=f"it used {used:,} bytes of memory; its limit is {limits.memory_bytes:,}.",
                    log_tail=tail(output),
                )


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Stop the child's group, also what a finished child left: SIGTERM, then after the grace SIGKILL."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_s)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _signal_group(group: int, number: int) -> None:
    # Nobody may be left in the group (macOS says EPERM for a group of zombies).
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _result(process: subprocess.Popen[bytes], target: str, folder: Path, output: Path) -> Any:
    path = folder / "result.json"
    if path.exists():
        answer = json.loads(path.read_text(encoding="utf-8"))
        if "error" not in answer:
            return answer["result"]
        raise ChildFailed(
            target,
            reason=f"{answer['error']}: {answer['message']}",
            error_type=answer["error"],
            traceback=answer["traceback"],
            log_tail=tail(output),
        )
    status = process.returncode
    if status < 0:
        name = signal.Signals(-status).name
        hint = " The system kills with SIGKILL when memory runs out." if name == "SIGKILL" else ""
        raise ChildKilled(target, reason=f"it received {name}.{hint}", log_tail=tail(output))
    raise ChildFailed(
        target,
        reason=f"it ended with exit status {status} and no result.",
        error_type="",
        traceback="",
        log_tail=tail(output),
    )


def tail(path: Path, *, size_bytes: int = _TAIL_BYTES) -> str:
    """Return the last whole lines of a log file, "" if there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - size_bytes))
        text = file.read().decode(errors="replace")
    if size > size_bytes:
        text = text.partition("\n")[2]
    return text.strip()


def resident_bytes(session: int) -> int:
    """Return the resident memory of all processes of a session, shared pages counted once per process.

    Returns:
        Bytes; 0 where ``/proc`` does not exist.
    """
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # proc(5): after the command in parentheses come state, parent, group, session, ..., and rss in
            # pages as the 22nd of these fields.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == session:
            total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total

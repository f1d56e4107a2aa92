"""Run a function of a module in a confined child process.

The child gets no secrets (an environment of its own), no network where the kernel permits it, limits on
memory, processor time and file size, a private temporary folder as its working directory, and dies with its
parent. Its answer comes back as JSON over a pipe, so nothing that it prints or pickles is trusted. This is
confinement against accidents and common attacks; it is no virtual machine: files that this user may
read, the child may read.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelyard.errors import Invalid

_MAX_ANSWER_BYTES = 16 << 20
_MAX_STDERR_BYTES = 4096
_EXIT_S = 0.2
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")
DEFAULT_MEMORY_BYTES = 4 << 30


class ConfinedFailure(Invalid):
    """The confined child gave no answer."""

    code: ClassVar[str] = "confined_failure"

    def __init__(self, target: str, *, reason: str, detail: str = "") -> None:
        tail = f": {detail}" if detail else ""
        super().__init__(f"The confined run of {target!r} failed ({reason}){tail}", reason=reason, detail=detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ConfinedResult:
    """Answer of a confined child.

    Attributes:
        value: What the function returned, through JSON.
        network_isolated: Whether the kernel granted it a network namespace of its own.
    """

    value: Any
    network_isolated: bool


def run_confined(
    target: str, args: dict[str, Any], *, timeout_s: float, memory_bytes: int = DEFAULT_MEMORY_BYTES
) -> ConfinedResult:
    """Call ``module:function`` with keyword arguments in a confined child and wait for its answer.

    Args:
        target: Function that takes JSON values and returns one.
        args: Its keyword arguments, JSON-compatible.
        timeout_s: Wall-clock limit in seconds; also the limit of processor time.
        memory_bytes: Limit of the child's address space.

    Returns:
        What it returned.

    Raises:
        ConfinedFailure: If it ran out of time or memory (``reason`` ``timeout`` or ``memory``), raised
            (``error``), or died (``crash``).
    """
    read_end, write_end = os.pipe()
    with tempfile.TemporaryDirectory(prefix="modelyard-confined-", ignore_cleanup_errors=True) as home:
        request = {
            "target": target,
            "args": args,
            "memory_bytes": memory_bytes,
            "cpu_s": int(timeout_s) + 1,
            "path": [entry for entry in sys.path if entry],
        }
        with tempfile.TemporaryFile(dir=home) as errors:
            try:
                child = _start(write_end, Path(home), errors)
            finally:
                os.close(write_end)
            try:
                answer = _exchange(child, read_end, json.dumps(request).encode(), timeout_s)
            finally:
                os.close(read_end)
                _end(child)
            return _judge(target, answer, child.returncode, _tail(errors))


def _start(write_end: int, home: Path, errors: Any) -> subprocess.Popen[bytes]:
    # The code is found without the parent's environment: -I ignores PYTHONPATH, user site and working folder.
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from modelyard.models.confined_child import main; main({write_end})"  # noqa: E501
    return subprocess.Popen(  # noqa: S603 - fixed argument list, no shell
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        cwd=home,
        env=_environment(home),
        pass_fds=(write_end,),
        start_new_session=True,
    )


def _environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {
        **kept,
        "PATH": os.defpath,
        "HOME": str(home),
        "TMPDIR": str(home),
        # One thread a library: thread stacks and arenas would use up the address space limit.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


def _exchange(child: subprocess.Popen[bytes], read_end: int, request: bytes, timeout_s: float) -> bytes | None:
    """Send the request and read the answer until the child closes the pipe; None on timeout."""
    deadline = time.monotonic() + timeout_s
    if child.stdin is not None:
        with suppress(BrokenPipeError):
            child.stdin.write(request)
        with suppress(BrokenPipeError):
            child.stdin.close()
    answer = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(read_end, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return None
            block = os.read(read_end, 1 << 16)
            answer += block
            if not block or len(answer) > _MAX_ANSWER_BYTES:
                return bytes(answer)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole session, so that nothing it started outlives the call."""
    _await_exit(child.pid)
    # Before the child is reaped: until then its number cannot have passed to another process.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _await_exit(pid: int) -> None:
    """Give a child that has closed its pipe a moment to exit by itself, so that its status is its own."""
    if not hasattr(os, "waitid"):
        return
    deadline = time.monotonic() + _EXIT_S
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return
        time.sleep(0.002)


def _tail(errors: Any) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _MAX_STDERR_BYTES))
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _judge(target: str, answer: bytes | None, status: int, stderr: str) -> ConfinedResult:
    if answer is None:
        raise ConfinedFailure(target, reason="timeout", detail="it did not answer in time")
    if status == -signal.SIGXCPU:
        raise ConfinedFailure(target, reason="timeout", detail="it used up its processor time")
    try:
        document = json.loads(answer)
    except ValueError:
        reason = "memory" if "MemoryError" in stderr or "bad_alloc" in stderr else "crash"
        raise ConfinedFailure(target, reason=reason, detail=stderr or f"exit status {status}") from None
    if not isinstance(document, dict):
        raise ConfinedFailure(target, reason="crash", detail="its answer is not an object")
    if "value" not in document:
        reason, detail = str(document.get("reason", "error")), str(document.get("detail", ""))
        raise ConfinedFailure(target, reason=reason, detail=detail[:1000])
    return ConfinedResult(document["value"], bool(document.get("network_isolated")))

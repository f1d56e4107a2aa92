"""The child's side of ``confined``: give up rights, then import and call.

Only the standard library is imported until the limits stand.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38
_MAX_FILE_BYTES = 1 << 30


def main(answer_fd: int) -> None:
    """Read the request from standard input, confine this process, call the target, answer, exit.

    Args:
        answer_fd: Write end of the pipe for the answer.
    """
    request = json.loads(sys.stdin.buffer.read())
    isolated = _give_up_rights(int(request["memory_bytes"]), int(request["cpu_s"]))
    sys.path[:] = [*sys.path, *(entry for entry in request["path"] if entry not in sys.path)]
    answer = _call(request["target"], request["args"])
    answer["network_isolated"] = isolated
    with os.fdopen(answer_fd, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())
    os._exit(0)  # no exit handlers of whatever was loaded


def _call(target: str, args: dict[str, Any]) -> dict[str, Any]:
    module, _, name = target.partition(":")
    try:
        value = getattr(import_module(module), name)(**args)
        json.dumps(value)
    except MemoryError:
        return {"reason": "memory", "detail": "it needed more memory than it was given"}
    except Exception as error:  # noqa: BLE001 - process edge
        traceback.print_exc()
        code = getattr(error, "code", type(error).__name__)
        return {"reason": "error", "detail": f"{code}: {error}"}
    return {"value": value}


def _give_up_rights(memory_bytes: int, cpu_s: int) -> bool:
    """Set limits and leave the network.

    Returns:
        Whether this process has a network namespace of its own.
    """
    isolated = _leave_network() if sys.platform == "linux" else False
    try:
        import resource  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return isolated
    for what, limit, grace in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES, 0),
        # The soft limit ends the process with a signal that tells why; at the hard one it is just killed.
        (resource.RLIMIT_CPU, cpu_s, 5),
        (resource.RLIMIT_AS, memory_bytes, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = limit + grace if hard == resource.RLIM_INFINITY else min(limit + grace, hard)
        resource.setrlimit(what, (min(limit, most), most))
    return isolated


def _leave_network() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Root may leave the network at once; others through a user namespace, where the kernel permits those.
    return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))

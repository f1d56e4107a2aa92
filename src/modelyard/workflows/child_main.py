"""The other side of ``run_child``: runs alone, with the standard library only.

The parent starts it as ``python -c`` in any interpreter, also one without Modelyard. It reads a request file,
calls ``module:function`` with the payload, and writes the result file atomically.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(folder: Path) -> int:
    """Serve the one request in ``folder``; return the exit status."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    die_with(request["parent"])
    sys.path.extend(request["sys_path"])
    try:
        module, _, qualname = request["target"].partition(":")
        function: Any = importlib.import_module(module)
        for name in qualname.split("."):
            function = getattr(function, name)
        answer = {"result": function(request["payload"])}
        text = json.dumps(answer)
    except BaseException as error:  # noqa: BLE001 - the edge of this process: everything goes to the parent
        kind = type(error)
        answer = {
            "error": f"{kind.__module__}.{kind.__qualname__}",
            "message": str(error),
            "traceback": traceback.format_exc(),
        }
        text = json.dumps(answer)
    partial = folder / "result.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / "result.json")
    return 1 if "error" in answer else 0


def die_with(parent: int) -> None:
    """Make sure that this process and its group do not outlive the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
    # Standard input is a pipe that only the parent holds open: its end means that the parent is gone. This
    # works on every POSIX system and takes the children of this process along. The function reads an empty
    # file instead.
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()


def _watch(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""Functions that the tests run in child processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def echo(payload):
    print("hello from the child")
    return {"got": payload, "pid": os.getpid(), "stdin": sys.stdin.read()}


def fail(payload):
    print("before the fault", file=sys.stderr)
    raise ValueError("no rows")


def not_json(payload):
    return object()


def leave(payload):
    sys.stdout.flush()
    os._exit(7)


def die(payload):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(payload):
    """Ignore SIGTERM, start a grandchild, and write both ids."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    partial = Path(payload["pids"] + ".partial")
    partial.write_text(f"{os.getpid()} {grandchild.pid}")
    partial.rename(payload["pids"])
    time.sleep(600)


def linger(payload):
    """End at once, but leave a grandchild behind."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def eat(payload):
    block = bytearray(payload["bytes"])
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(600)


def chat(payload):
    for number in range(5000):
        print("line", number)
    raise RuntimeError("end")

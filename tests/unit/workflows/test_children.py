"""Children deliver, or end within their limits with an error that says why."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modelyard.errors import Invalid
from modelyard.workflows import ChildFailed, ChildKilled, ChildTimedOut, Stopped, run_child
from modelyard.workflows import children as module

HERE = Path(__file__).parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc or prctl")


def run(name, payload=None, **options):
    settings = {"timeout_s": 60, "cwd": HERE, "grace_s": 0.3, **options}
    return run_child(f"child_targets:{name}", payload, **settings)


def until(condition, *, seconds=20.0):
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        pause.wait(0.02)


def gone(pid):
    """Whether a process has ended; one that nobody has reaped yet counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def test_result_comes_back_from_a_process_of_its_own(tmp_path):
    log = tmp_path / "logs" / "train.log"
    answer = run("echo", {"rows": [1, 2.5, None]}, log=log)
    assert answer["got"] == {"rows": [1, 2.5, None]}
    assert answer["pid"] != os.getpid()
    assert answer["stdin"] == ""
    assert log.read_text() == "hello from the child\n"
    run("echo", log=log)
    assert log.read_text().count("hello") == 2


def test_exception_comes_back_with_traceback_and_log(tmp_path):
    with pytest.raises(ChildFailed, match="ValueError: no rows") as caught:
        run("fail")
    assert caught.value.error_type == "builtins.ValueError"
    assert "in fail" in caught.value.traceback
    assert caught.value.log_tail == "before the fault"
    with pytest.raises(ChildFailed, match="not JSON serializable"):
        run("not_json")
    with pytest.raises(ChildFailed, match="AttributeError"):
        run("nothing")
    with pytest.raises(ChildFailed, match="exit status 7 and no result"):
        run("leave")


def test_log_in_the_error_is_only_its_tail():
    with pytest.raises(ChildFailed) as caught:
        run("chat")
    lines = caught.value.log_tail.splitlines()
    assert lines[-1] == "line 4999"
    assert lines[0].startswith("line 4")
    assert len(caught.value.log_tail) <= 4_000


def test_signal_is_named():
    with pytest.raises(ChildKilled, match="SIGKILL.*memory"):
        run("die")


@LINUX
def test_time_limit_kills_a_deaf_child_and_what_it_started(tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(ChildTimedOut, match=r"limit of 4 s"):
        run("hang", {"pids": str(pids)}, timeout_s=4)
    until(lambda: all(gone(int(pid)) for pid in pids.read_text().split()))


@LINUX
def test_stop_kills_child_and_grandchild(tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(Stopped, match="cancelled"):
        run("hang", {"pids": str(pids)}, stop=lambda: "cancelled" if pids.exists() else None)
    until(lambda: all(gone(int(pid)) for pid in pids.read_text().split()))


@LINUX
def test_a_finished_child_leaves_nothing_behind():
    grandchild = run("linger")
    until(lambda: gone(grandchild))


@LINUX
def test_memory_limit_is_kept():
    with pytest.raises(ChildKilled, match=r"its limit is 150,000,000"):
        run("eat", {"bytes": 300_000_000}, memory_bytes=150_000_000)
    assert run("echo", memory_bytes=150_000_000)["got"] is None


@LINUX
def test_child_dies_with_its_parent(tmp_path):
    pids = tmp_path / "pids"
    code = (
        "from modelyard.workflows import run_child\n"
        f"run_child('child_targets:hang', {{'pids': {str(pids)!r}}}, timeout_s=600)\n"
    )
    path = os.pathsep.join([str(HERE), str(Path(module.__file__).parents[2])])
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, env={**os.environ, "PYTHONPATH": path})
    until(pids.exists)
    child, _ = pids.read_text().split()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: gone(int(child)))
    os.kill(int(pids.read_text().split()[1]), signal.SIGKILL)


@LINUX
def test_lifeline_takes_the_whole_group_along(tmp_path):
    pids = tmp_path / "pids"
    request = {
        "target": "child_targets:hang",
        "payload": {"pids": str(pids)},
        "parent": os.getpid(),
        "sys_path": [],
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    main = Path(module.__file__).with_name("child_main.py")
    process = subprocess.Popen(
        [sys.executable, str(main), str(tmp_path)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        start_new_session=True,
    )
    until(pids.exists)
    process.stdin.close()
    assert process.wait(20) == -signal.SIGKILL
    until(lambda: all(gone(int(pid)) for pid in pids.read_text().split()))


def test_environment_and_interpreter_are_the_callers(tmp_path):
    (tmp_path / "target.py").write_text(
        "import os, sys\ndef run(payload):\n    return [os.environ.get('ONLY'), os.getcwd(), sys.path[-1]]\n"
    )
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    only, cwd, last = run_child("target:run", None, timeout_s=60, cwd=tmp_path, env={"ONLY": "this"}, python=str(link))
    assert (only, cwd) == ("this", str(tmp_path))
    assert last != str(Path(module.__file__).parents[2])


@pytest.mark.parametrize("target", ["os.system", "os:", ":run", "os:system('x')", "a b:c"])
def test_target_is_a_module_and_a_name(target):
    with pytest.raises(Invalid, match="not a target"):
        run_child(target, None, timeout_s=1)


def test_payload_is_json():
    with pytest.raises(Invalid, match="not JSON"):
        run("echo", object())

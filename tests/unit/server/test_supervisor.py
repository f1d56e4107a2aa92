"""The supervisor restarts what dies, backs off from what keeps failing, and leaves nothing behind."""

import os
import signal
import sys
import threading
import time

import pytest

from modelyard.errors import Conflict
from modelyard.server.control import Control, ControlLock, is_alive, read_control
from modelyard.server.supervisor import Program, Supervisor

SLEEPER = (sys.executable, "-c", "import signal; signal.pause()")


def _until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.02)


@pytest.fixture
def run(tmp_path):
    started = []

    def start(*programs):
        supervisor = Supervisor(programs, logs=tmp_path / "logs", environ=os.environ)
        supervisor.start()
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        started.append((supervisor, thread))
        return supervisor

    yield start
    for supervisor, thread in started:
        supervisor.stop()
        thread.join()


def test_a_killed_program_comes_back_and_the_others_stay(run):
    supervisor = run(Program("a", SLEEPER), Program("b", SLEEPER))
    before = supervisor.pids()
    os.kill(before["a"], signal.SIGKILL)
    _until(lambda: supervisor.pids()["a"] != before["a"])
    assert supervisor.pids()["b"] == before["b"]
    assert is_alive(before["b"])


def test_a_failing_program_is_not_restarted_in_a_tight_loop(run, tmp_path):
    script = f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit(3)"
    supervisor = run(Program("bad", (sys.executable, "-c", script)))
    _until(lambda: supervisor.failing().get("bad", 0) >= 3)
    assert len((tmp_path / "starts").read_text()) <= 4


def test_stop_ends_all_in_order_and_kills_the_stubborn(run, tmp_path):
    note = tmp_path / "order"
    polite = (
        "import signal, sys\n"
        f"def end(*_): open({str(note)!r}, 'a').write(sys.argv[1]); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"open({str(note)!r} + sys.argv[1], 'w')\n"
        "while True: signal.pause()"
    )
    stubborn = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(note)!r} + '3', 'w')\nwhile True: signal.pause()"
    )
    supervisor = run(
        Program("second", (sys.executable, "-c", polite, "2"), stop_order=2),
        Program("first", (sys.executable, "-c", polite, "1"), stop_order=1),
        Program("third", (sys.executable, "-c", stubborn), stop_order=3, stop_timeout_s=0.2),
    )
    _until(lambda: all((tmp_path / f"order{n}").exists() for n in "123"))
    pids = supervisor.pids()
    supervisor.stop()
    _until(lambda: not any(is_alive(pid) for pid in pids.values()))
    assert note.read_text() == "12"


def test_one_control_plane_per_home(tmp_path):
    assert read_control(tmp_path) is None
    lock = ControlLock(tmp_path)
    control = Control(os.getpid(), "http://127.0.0.1:5000", "http://127.0.0.1:5001")
    lock.announce(control)
    assert read_control(tmp_path) == control
    with pytest.raises(Conflict, match="http://127.0.0.1:5000"):
        ControlLock(tmp_path)
    lock.release()
    assert read_control(tmp_path) is None


def test_a_note_of_a_killed_control_plane_does_not_count(tmp_path):
    lock = ControlLock(tmp_path)
    lock.announce(Control(1, "http://127.0.0.1:1", "http://127.0.0.1:2"))
    lock._file.close()
    assert read_control(tmp_path) is None

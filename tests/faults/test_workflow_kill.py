"""kill -9 costs no finished step, doubles no effect, and stops nothing for good."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import modelyard
from modelyard.events import Actor, EventLog, SystemClock
from modelyard.workflows import Definition, Engine, Status, Step

pytestmark = pytest.mark.faults

RUN = "default/churn/2013-04"
WORKER = """
import os, sys, threading
from pathlib import Path
from modelyard.events import SYSTEM, EventLog, SystemClock
from modelyard.storage import Database
from modelyard.workflows import Definition, Engine, Status, Step, Wait

url, engine_url, folder, executor, hang_in = sys.argv[1:6]
folder = Path(folder)

def work(context, state):
    with (folder / "attempts").open("a") as file:
        file.write(context.step + "\\n")
    try:
        (folder / f"effect-{context.step}").open("x").write(context.key)
        with (folder / "effects").open("a") as file:
            file.write(context.step + "\\n")
    except FileExistsError:
        assert (folder / f"effect-{context.step}").read_text() == context.key
    if context.step == hang_in:
        (folder / "hanging").touch()
        while not (folder / "release").exists():
            threading.Event().wait(0.02)
    return {**state, context.step: 1}

def ask(context, state):
    return Wait("approval", work(context, state))

def use(context, state):
    return {**work(context, state), "answer": context.wake.payload}

steps = {
    "plain": (Step("one", work), Step("two", work), Step("three", work)),
    "asking": (Step("one", work), Step("ask", ask), Step("use", use)),
}
database = Database(url)
engine = Engine(database, EventLog(database), clock=SystemClock(), executor_id=executor, url=engine_url,
                poll_s=0.05, lease_s=1.0)
for name, parts in steps.items():
    engine.register(Definition(name, parts))
engine.launch()
(folder / "launched").touch()
while not (folder / f"stop-{executor}").exists():
    if not (hang_in != "nowhere" and (folder / "hanging").exists()):
        engine.tick()
    threading.Event().wait(0.05)
engine.close()
"""


class Yard:
    """A home that worker processes share with this one, which only writes and reads rows."""

    def __init__(self, database, folder):
        self.folder = folder
        self.database = database
        self.workers = []
        self.events = EventLog(database)
        self.engine = Engine(database, self.events, clock=SystemClock(), executor_id="test")
        steps = ("one", "two", "three"), ("one", "ask", "use")
        for name, names in zip(("plain", "asking"), steps, strict=True):
            self.engine.register(Definition(name, tuple(Step(step, _elsewhere) for step in names)))

    def worker(self, executor, hang_in="nowhere", source=WORKER):
        for name in ("launched", "hanging"):
            (self.folder / name).unlink(missing_ok=True)
        url = self.database.url
        engine_url = url if not self.database.is_sqlite else url.replace("modelyard.db", "workflows.db")
        process = subprocess.Popen(
            [sys.executable, "-c", source, url, engine_url, str(self.folder), executor, hang_in],
            env={**os.environ, "PYTHONPATH": str(Path(modelyard.__file__).parents[1])},
        )
        self.workers.append((executor, process))
        until((self.folder / "launched").exists, process)
        return process

    def start(self, name):
        return self.engine.start(name, {"n": 1}, actor=Actor("ada"), workflow_id=RUN)

    def hanging(self, process):
        until((self.folder / "hanging").exists, process)

    def count(self, name):
        return Counter((self.folder / name).read_text().split())


def _elsewhere(context, state):
    raise AssertionError("steps run in the workers")


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def until(condition, process):
    """Wait for a condition that a worker brings about."""
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the worker has ended"
        assert time.monotonic() < end, "the condition did not come true"
        threading.Event().wait(0.02)


@pytest.fixture
def yard(database, tmp_path):
    yard = Yard(database, tmp_path)
    yield yard
    for executor, process in yard.workers:
        (tmp_path / f"stop-{executor}").touch()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            kill(process)


@pytest.mark.parametrize("step", ["one", "two", "three"])
def test_killed_work_goes_on_where_it_was(yard, step):
    yard.start("plain")
    worker = yard.worker("w1", hang_in=step)
    yard.hanging(worker)
    kill(worker)
    assert yard.engine.get(RUN).status == Status.RUNNING
    yard.worker("w1")
    outcome = yard.engine.wait_for(RUN, 60)
    assert (outcome.status, outcome.output) == (Status.SUCCEEDED, {"n": 1, "one": 1, "two": 1, "three": 1})
    assert yard.count("attempts") == {"one": 1, "two": 1, "three": 1} | {step: 2}
    assert yard.count("effects") == {"one": 1, "two": 1, "three": 1}
    assert {run.name: run.starts for run in yard.engine.get(RUN).steps}[step] == 2


def test_a_wait_survives_kill_and_upgrade(yard):
    yard.start("asking")
    worker = yard.worker("w1")
    assert yard.engine.wait_for(RUN, 60, or_waiting=True).status == Status.WAITING
    kill(worker)
    assert yard.engine.get(RUN).wait.name == "approval"
    assert yard.engine.signal(RUN, "approval", {"granted": True}, actor=Actor("eve"))
    # The new process runs other code under the same step names: nothing is orphaned.
    yard.worker("w1", source=WORKER.replace("context.wake.payload", "[context.wake.payload, 'new code']"))
    outcome = yard.engine.wait_for(RUN, 60)
    assert outcome.output == {"n": 1, "one": 1, "ask": 1, "use": 1, "answer": [{"granted": True}, "new code"]}
    assert yard.count("attempts") == {"one": 1, "ask": 1, "use": 1}


def test_another_process_adopts_the_work_of_a_killed_one(yard):
    yard.start("plain")
    worker = yard.worker("w1", hang_in="two")
    yard.hanging(worker)
    kill(worker)
    yard.worker("w2")
    outcome = yard.engine.wait_for(RUN, 60)
    assert outcome.status == Status.SUCCEEDED
    assert yard.count("attempts") == {"one": 1, "two": 2, "three": 1}
    assert yard.count("effects") == {"one": 1, "two": 1, "three": 1}
    assert [step.executor for step in yard.engine.get(RUN).steps] == ["w1", "w2", "w2"]


def test_a_paused_process_that_wakes_after_its_work_was_adopted_doubles_nothing(yard):
    yard.start("plain")
    paused = yard.worker("w1", hang_in="two")
    yard.hanging(paused)
    pause(yard, paused)
    try:
        yard.worker("w2")
        assert yard.engine.wait_for(RUN, 60).status == Status.SUCCEEDED
        (yard.folder / "release").touch()
        (yard.folder / "stop-w1").touch()
    finally:
        paused.send_signal(signal.SIGCONT)
    assert paused.wait(60) == 0  # its step has returned, late
    assert yard.count("effects") == {"one": 1, "two": 1, "three": 1}
    run = yard.engine.get(RUN)
    assert [(step.executor, step.starts) for step in run.steps] == [("w1", 1), ("w2", 2), ("w2", 1)]
    assert len(yard.events.read(kinds=["workflow.finished"])) == 1


def pause(yard, process):
    """Stop a process at a moment when it holds no SQLite lock: others would wait for that one for ever."""
    for _ in range(100):
        process.send_signal(signal.SIGSTOP)
        if not yard.database.is_sqlite or not any(locked(path) for path in yard.folder.glob("*.db")):
            return
        process.send_signal(signal.SIGCONT)
        threading.Event().wait(0.02)
    raise AssertionError("the process never let its locks go")


def locked(path):
    connection = sqlite3.connect(path, timeout=0.2, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False

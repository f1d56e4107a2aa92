"""kill -9 during a training costs no snapshot and doubles no version."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import modelyard
from modelyard.events import Actor, EventLog, SystemClock
from modelyard.registry import Registry
from modelyard.retraining import Recipe, Releases, Retraining, pack
from modelyard.retraining.release import WORKFLOW
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import Tracking
from modelyard.tracking.sources import Parquet
from modelyard.workflows import Definition, Engine, Status, Step

pytestmark = pytest.mark.faults

ADA = Actor("ada")
# Training says that it has begun, and goes on once it is told to.
CODE = """
import os, pathlib, time
from sklearn.linear_model import LogisticRegression

SIGNS = pathlib.Path({signs!r})

def train(data):
    (SIGNS / f"training-{{os.getpid()}}").touch()
    while not (SIGNS / "release").exists():
        time.sleep(0.02)
    return LogisticRegression().fit(data[["x", "z"]], data["y"])
"""
WORKER = """
import sys, threading
from pathlib import Path
from modelyard.events import EventLog, SystemClock
from modelyard.registry import Registry
from modelyard.retraining import (
    Loop, LoopParts, ReleaseParts, Releases, ReleaseSteps, Retraining, RolloutOutcome, Trail)
from modelyard.storage import Database
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import Tracking
from modelyard.workflows import Engine

url, folder = sys.argv[1], Path(sys.argv[2])
database, clock = Database(url), SystemClock()
events, objects = EventLog(database), ObjectStore.at(folder / "objects")
tracking = Tracking(database, events, clock, objects=objects, series=SeriesStore(database))
registry = Registry(database, events, clock, objects=objects, tracking=tracking)
engine = Engine(database, events, clock=clock, executor_id="control", poll_s=0.05, lease_s=2.0, logs=folder / "logs")

class Traffic:
    def start(self, endpoint, version, *, key, **rest):
        with (folder / "rollouts").open("a") as file:
            file.write(f"{version.number} {key}\\n")
        return key

    def outcome(self, rollout_id):
        return RolloutOutcome("finished", "done.")

releases, trail, traffic = Releases(database, events, clock), Trail(tracking, objects), Traffic()
engine.register(ReleaseSteps(ReleaseParts(objects, registry, releases, trail, traffic, folder / "work")).definition())
retraining = Retraining(database, events, clock, objects=objects, engine=engine, releases=releases)
loop = Loop(LoopParts(database, events, clock, engine, retraining, trail, traffic))
engine.launch()
(folder / "launched").touch()
while not (folder / "stop").exists():
    engine.tick()
    loop.tick()
    threading.Event().wait(0.05)
engine.close()
"""


class Yard:
    """A home that a control plane process shares with this one, which only writes and reads rows."""

    def __init__(self, database, folder):
        self.database, self.folder, self.processes = database, folder, []
        self.events, clock = EventLog(database), SystemClock()
        self.objects = ObjectStore.at(folder / "objects")
        self.tracking = Tracking(database, self.events, clock, objects=self.objects, series=SeriesStore(database))
        self.registry = Registry(database, self.events, clock, objects=self.objects, tracking=self.tracking)
        self.engine = Engine(database, self.events, clock=clock, executor_id="test")
        self.engine.register(Definition(WORKFLOW, (Step("snapshot", lambda context, state: state),)))
        self.releases = Releases(database, self.events, clock)
        self.retraining = Retraining(
            database, self.events, clock, objects=self.objects, engine=self.engine, releases=self.releases
        )

    def worker(self):
        (self.folder / "launched").unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, self.database.url, str(self.folder)],
            env={**os.environ, "PYTHONPATH": str(Path(modelyard.__file__).parents[1])},
        )
        self.processes.append(process)
        until((self.folder / "launched").exists, process)
        return process

    def start(self):
        rng = np.random.default_rng(0)
        x, z = rng.normal(size=400), rng.normal(size=400)
        project = self.folder / "project"
        project.mkdir()
        pq.write_table(pa.table({"x": x, "z": z, "y": (x > 0).astype(int)}), self.folder / "rows.parquet")
        (project / "churn.py").write_text(CODE.format(signs=str(self.folder)))
        source = Parquet(str(self.folder / "rows.parquet"), label="y")
        digest = self.objects.put(pack(project))
        self.retraining.declare(Recipe("churn", "churn", digest, "churn:train", source, "ada"), actor=ADA)
        return self.retraining.trigger("manual", "churn", dedup_key="k1", actor=ADA).workflow_id

    def trainings(self):
        return list(self.folder.glob("training-*"))


def until(condition, process):
    """Wait for a condition that the control plane brings about."""
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the control plane has ended"
        assert time.monotonic() < end, "the condition did not come true"
        threading.Event().wait(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def yard(database, tmp_path):
    yard = Yard(database, tmp_path)
    yield yard
    for name in ("stop", "release"):
        (tmp_path / name).touch()
    for process in yard.processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_killed_training_is_done_again_and_registered_once(yard):
    release = yard.start()
    worker = yard.worker()
    until(yard.trainings, worker)
    (first,) = yard.trainings()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    end = time.monotonic() + 30
    while alive(int(first.name.partition("-")[2])):  # a training dies with its control plane
        assert time.monotonic() < end, "the training outlived its control plane"
        threading.Event().wait(0.02)
    assert yard.engine.get(release).status == Status.RUNNING
    (yard.folder / "release").touch()
    worker = yard.worker()
    until(lambda: yard.releases.get(release).verdict is not None, worker)
    ended = yard.releases.get(release)
    assert (ended.verdict, ended.version) == ("promoted", 1), ended.sentence
    until(lambda: yard.engine.get(release).status == Status.SUCCEEDED, worker)
    starts = {step.name: step.starts for step in yard.engine.get(release).steps}
    assert (starts["snapshot"], starts["train"], starts["register"]) == (1, 2, 1)
    assert len(yard.trainings()) == 2
    assert [version.number for version in yard.registry.list_versions("churn")] == [1]
    assert len((yard.folder / "rollouts").read_text().splitlines()) == 1
    run = yard.tracking.get_run(ended.run_id)
    data = yard.tracking.run_data(run.id)[run.id]
    assert run.status == "finished"
    assert all(metric.count == 1 for name, metric in data.metrics.items() if name.startswith("latency"))
    assert len(yard.events.read(kinds=["release.concluded"])) == 1

"""Workers and collectors die at the worst moment; nothing that was acknowledged is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from modelyard.serving import Lease
from modelyard.serving.collector import Collector
from modelyard.storage.predictions import PredictionStore
from unit.serving.fleet import (
    Fleet,
    endpoint,
    lightgbm_folder,
    linear_folder,
    python_folder,
    row,
    split,
    until,
    variant,
)

pytestmark = pytest.mark.faults


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


class Load:
    """Clients that ask without pause, reconnect when cut off, and remember every id that they were told."""

    def __init__(self, fleet, clients=3):
        self.fleet = fleet
        self.told = []
        self.cut = 0
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.done.set()
        for thread in self.threads:
            thread.join()

    def _ask(self, number):
        client = None
        asked = 0
        while not self.done.is_set():
            try:
                client = client or self.fleet.client()
                answer = client.predict({"rows": [row(1)] * 2, "id": f"{number}-{asked}"})
                asked += 1
                if answer["captured"]:
                    self.told += [p["prediction_id"] for p in answer["predictions"]]
            except OSError:
                self.cut += 1
                if client is not None:
                    client.close()
                client = None
        if client is not None:
            client.close()


def collected(fleet, database):
    """Collect everything and return how often each prediction id is stored."""
    store = PredictionStore(database, fleet.home / "predictions")
    collector = Collector(fleet.publisher.paths, database=database, store=store)
    while collector.collect():
        pass
    assert collector.unreadable == 0
    return Counter(store.scan("churn", columns=["prediction_id"]).column("prediction_id").to_pylist())


def test_no_acknowledged_prediction_is_lost_when_workers_are_killed(fleet, sqlite):
    fleet.start(0, workers=2)
    fleet.start(1, workers=2)
    fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
    load = Load(fleet)
    for turn in range(4):
        target = len(load.told) + 200
        until(lambda t=target: len(load.told) >= t, what="load")
        fleet.kill(turn % 2)
        fleet.start(turn % 2, workers=2)
    load.stop()
    found = collected(fleet, sqlite)
    assert len(load.told) >= 800
    assert load.cut > 0
    assert [id for id in load.told if id not in found] == []
    assert set(found.values()) == {1}


COLLECTOR = """
import sys
from pathlib import Path
from modelyard.serving.collector import Collector, run_until_signalled
from modelyard.serving.publisher import ServingPaths
from modelyard.storage import Database
from modelyard.storage.predictions import PredictionStore
home = Path(sys.argv[1])
database = Database.at(home / "modelyard.db")
store = PredictionStore(database, home / "predictions")
print("up", flush=True)
run_until_signalled(Collector(ServingPaths(home), database=database, store=store, batch_records=40))
"""


def test_nothing_is_lost_or_doubled_when_the_collector_is_killed(fleet, sqlite):
    fleet.start()
    fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
    store = PredictionStore(sqlite, fleet.home / "predictions")
    load = Load(fleet, clients=2)
    command = [sys.executable, "-c", COLLECTOR, str(fleet.home)]
    for turn in range(3):
        process = subprocess.Popen(command, env=fleet.environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "up\n"
        before = store.positions()
        until(lambda b=before: store.positions() != b, what="a batch")
        time.sleep(0.003 * turn)  # not a wait: it moves the kill to other places in the next batch
        process.send_signal(signal.SIGKILL)
        process.communicate()
    load.stop()
    found = collected(fleet, sqlite)
    assert [id for id in load.told if id not in found] == []
    assert set(found.values()) == {1}


def test_a_canary_that_kills_the_worker_wins_no_new_allowance(fleet, tmp_path):
    control = endpoint(variant(fleet.home, linear_folder(2)))

    def deadly(frame):
        import os

        if float(frame["x0"].iloc[0]) > 50:
            os.kill(os.getpid(), 9)
        return frame["x0"] * 0.0

    canary = variant(fleet.home, python_folder(tmp_path / "deadly", deadly), name="canary", version=9)
    route = split(control, canary, 10_000, lease=Lease("only", 5))
    fleet.start()
    fleet.publish(route)
    safe, fatal = row(2, city=False), {**row(2, city=False), "x0": 99.0}

    def counters():
        (status,) = fleet.publisher.workers()
        return next(v for v in status.variants if v.variant == "canary")

    for turn in range(2):
        client = fleet.client()
        assert client.predict(safe)["predictions"][0]["version"] == 9
        with pytest.raises(OSError, match="closed|reset"):
            client.predict(fatal)
        client.close()
        fleet.processes.pop(0).wait()
        fleet.start()
        found = counters()
        assert (found.crashes, found.lease_used, found.answers) == (turn + 1, 2 * (turn + 1), turn + 1)
    client = fleet.client()
    versions = [client.predict(safe)["predictions"][0]["version"] for _ in range(4)]
    assert versions == [9, 1, 1, 1]
    assert client.predict(fatal)["predictions"][0]["version"] == 1
    client.close()


def test_a_full_buffer_is_answered_and_counted_and_recovers(fleet, sqlite):
    command = (
        "from pathlib import Path; import sys; from modelyard.serving.lifecycle import Worker\n"
        "from modelyard.serving.worker import WorkerSettings\n"
        "Worker(WorkerSettings(home=Path(sys.argv[1]), append_bytes=32 << 20)).run()"
    )
    log = (fleet.home / "worker-0.log").open("wb")
    process = subprocess.Popen([sys.executable, "-c", command, str(fleet.home)], env=fleet.environment, stderr=log)
    log.close()
    fleet.processes[0] = process
    until(fleet.publisher.workers, what="the worker")
    fleet.port = fleet.publisher.workers()[0].port
    fleet.publish(endpoint(variant(fleet.home, linear_folder(2))))
    client = fleet.client()
    rows = [row(2, city=False)] * 20_000
    answers = [client.predict({"rows": rows})["captured"] for _ in range(15)]
    assert answers[0] is True
    assert answers[-1] is False
    dropped = answers.count(False)
    assert until(lambda: fleet.publisher.workers()[0].capture_dropped == dropped)
    assert sum(collected(fleet, sqlite).values()) == 20_000 * answers.count(True)
    assert until(lambda: client.predict({"rows": rows[:1]})["captured"])
    client.close()


def test_the_old_table_stays_in_force_when_the_new_one_is_rubbish(fleet):
    fleet.start()
    generation = fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
    good = fleet.publisher.paths.routes.read_bytes()
    fleet.publisher.paths.routes.write_bytes(os.urandom(500))
    client = fleet.client()
    assert until(lambda: fleet.publisher.workers()[0].error).startswith("This is not a route table")
    assert client.predict(row(1))["captured"] is True
    fleet.publisher.paths.routes.write_bytes(good)
    assert fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1)))) == generation + 1
    assert client.predict(row(1))["captured"] is True
    client.close()

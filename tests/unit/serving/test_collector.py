import json
import os
import subprocess
import sys
import threading
import time

import pytest

from modelyard.errors import Conflict, Unavailable
from modelyard.serving.capture import (
    NATIVE,
    Descriptor,
    Record,
    VariantDescription,
    _encode,
    write_descriptor,
)
from modelyard.serving.collector import Collector, run
from modelyard.serving.publisher import ServingPaths
from modelyard.storage.predictions import AppendWriter, PredictionStore

DESCRIPTOR = Descriptor(
    "churn", "default", "k", None, (), (VariantDescription("control", "control", "m", 1),), (("x", "double"),), ("x",)
)


class Home:
    """A home folder with workers' records in it."""

    def __init__(self, folder, database):
        self.paths = ServingPaths(folder)
        self.database = database
        self.store = PredictionStore(database, folder / "predictions")
        self.digest = write_descriptor(self.paths.descriptors, DESCRIPTOR)
        self.writers = {}

    def append(self, first, last, worker=0):
        writer = self.writers.get(worker)
        if writer is None:
            folder = self.paths.append(worker)
            writer = self.writers[worker] = AppendWriter(folder, segment_bytes=1 << 16, max_bytes=1 << 22)
        for i in range(first, last):
            body = json.dumps({"x": float(i), "k": i}).encode()
            given = Record(self.digest, NATIVE, f"r{i}", 1_000_000 + i, 5, body, [f"p{i:05d}"], [0], [i / 2])
            assert writer.append(_encode(given))

    def collector(self, **given):
        return Collector(self.paths, database=self.database, store=self.store, **given)

    def stored(self):
        table = self.store.scan("churn", columns=["prediction_id", "f.x", "score"])
        return sorted(table.to_pylist(), key=lambda row: row["prediction_id"])

    def ids(self):
        return [int(row["prediction_id"][1:]) for row in self.stored()]


@pytest.fixture
def home(tmp_path, database):
    home = Home(tmp_path, database)
    yield home
    for writer in home.writers.values():
        writer.close()


@pytest.fixture
def lite(tmp_path, sqlite):
    home = Home(tmp_path, sqlite)
    yield home
    for writer in home.writers.values():
        writer.close()


def test_each_record_becomes_one_row(home):
    home.append(0, 30)
    home.append(30, 50, worker=1)
    collector = home.collector()
    assert (collector.collect(), collector.collect()) == (50, 0)
    assert home.ids() == list(range(50))
    assert home.stored()[7] == {"prediction_id": "p00007", "f.x": 7.0, "score": 3.5}
    home.append(50, 60)
    assert collector.collect() == 10
    assert collector.rows == 60


def test_another_process_goes_on_where_the_last_one_stopped(home):
    home.append(0, 20)
    home.collector().collect()
    home.append(20, 30)
    assert home.collector().collect() == 10
    assert home.ids() == list(range(30))


def test_a_failing_sink_undoes_the_batch_and_nothing_is_doubled(home):
    failing = [True, False]
    seen = []

    def sink(tx, table):
        seen.append(table.num_rows)
        if failing.pop(0):
            raise Unavailable("not now")

    home.append(0, 20)
    collector = home.collector(sinks=[sink])
    with pytest.raises(Unavailable):
        collector.collect()
    assert home.ids() == []
    assert collector.collect() == 20
    assert home.ids() == list(range(20))
    assert (seen, collector.rows) == ([20, 20], 20)


def test_what_a_sink_writes_commits_with_the_rows(lite):
    import sqlalchemy as sa

    lite.append(0, 5)

    def sink(tx, table):
        tx.execute(sa.text("create table if not exists seen (n integer)"))
        tx.execute(sa.text("insert into seen values (:n)"), {"n": table.num_rows})

    lite.collector(sinks=[sink]).collect()
    with lite.database.reading() as connection:
        assert connection.execute(sa.text("select n from seen")).scalars().all() == [5]


def test_the_slower_of_two_collectors_is_refused_and_catches_up(home):
    home.append(0, 20)
    first, second = home.collector(), home.collector()
    first.collect()
    with pytest.raises(Conflict):
        second.collect()
    home.append(20, 25)
    assert second.collect() == 5
    assert home.ids() == list(range(25))


def test_finished_segments_are_deleted_and_batches_bounded(lite):
    lite.append(0, 2_000)
    folder = lite.paths.append(0)
    before = len(list(folder.glob("*.seg")))
    collector = lite.collector(batch_records=300)
    taken = []
    while (count := collector.collect()) > 0:
        taken.append(count)
    assert (sum(taken), max(taken)) == (2_000, 300)
    assert before > 2
    assert len(list(folder.glob("*.seg"))) == 1
    assert lite.ids() == list(range(2_000))


def test_it_runs_until_stopped_and_leaves_nothing_behind(lite):
    stopping = threading.Event()
    collector = lite.collector()
    thread = threading.Thread(target=run, args=(collector,), kwargs={"stopping": stopping, "poll_s": 0.001})
    thread.start()
    for start in range(0, 200, 20):
        lite.append(start, start + 20)
    stopping.set()
    thread.join()
    assert lite.ids() == list(range(200))


class Flaky:
    """A collector that fails as told."""

    def __init__(self, outcomes):
        self.outcomes = list(outcomes)
        self.stopping = threading.Event()

    def collect(self):
        outcome = self.outcomes.pop(0)
        if len(self.outcomes) == 1:
            self.stopping.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def sync(self):
        return None


def test_a_database_that_is_away_is_waited_for(caplog):
    flaky = Flaky([Unavailable("away"), Conflict("slow"), 5, 0, 0])
    run(flaky, stopping=flaky.stopping, poll_s=0, retry_s=0)
    assert flaky.outcomes == []
    assert "trying again" in caplog.text


def test_at_the_end_a_database_that_is_away_is_an_error():
    flaky = Flaky([Unavailable("away")])
    flaky.stopping.set()
    with pytest.raises(Unavailable, match="away"):
        run(flaky, stopping=flaky.stopping)


def test_sigterm_drains(lite):
    code = f"""
import sys
from pathlib import Path
from modelyard.serving.collector import Collector, run_until_signalled
from modelyard.serving.publisher import ServingPaths
from modelyard.storage import Database
from modelyard.storage.predictions import PredictionStore
home = Path({str(lite.paths.home)!r})
database = Database.at(home / "modelyard.db")
collector = Collector(ServingPaths(home), database=database, store=PredictionStore(database, home / "predictions"))
print("up", flush=True)
run_until_signalled(collector)
print(collector.rows, flush=True)
"""
    lite.append(0, 100)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    deadline = time.monotonic() + 20
    while len(lite.ids()) < 100:
        assert time.monotonic() < deadline
    lite.append(100, 400)
    process.terminate()
    assert process.communicate(timeout=20)[0] == "400\n"
    assert process.returncode == 0
    assert lite.ids() == list(range(400))

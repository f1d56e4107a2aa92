"""The recorder never brings training down, loses nothing that can be kept, and sends everything once."""

import logging
import math
import threading

import numpy as np
import pytest

from modelyard.errors import Conflict, Invalid, Unavailable
from modelyard.events import Actor, EventLog, SystemClock
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import Batch, DatasetInput, RunRecorder, Start, Tracking, Transport, replay_folder
from modelyard.tracking.spool import Spool

ADA = Actor("ada")


class Service:
    """A service that can be out of reach, and that remembers what it was sent."""

    def __init__(self):
        self.down = False
        self.batches = []
        self.objects = {}
        self.refuse = set()

    def send(self, batch):
        if self.down:
            raise Unavailable("no answer")
        if self.refuse & set(batch.params):
            raise Conflict("no")
        self.batches.append(batch)

    def upload(self, content):
        if self.down:
            raise OSError("unreachable")
        import hashlib

        data = content if isinstance(content, bytes) else content.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        self.objects[digest] = data
        return digest

    def points(self, key):
        found = {}
        for batch in self.batches:
            if key in batch.metrics:
                found.update(zip(batch.metrics[key].steps, batch.metrics[key].values, strict=True))
        return found


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def transport(service):
    return Transport(service.send, service.upload)


@pytest.fixture
def recorder(transport, tmp_path):
    recorder = RunRecorder("run1", transport, spool=tmp_path / "spool")
    yield recorder
    recorder.close()


def test_values_arrive_in_order_with_their_steps(recorder, service):
    for value in (0.5, 0.25):
        recorder.log({"loss": value})
    recorder.log({"loss": np.float32(0.125)}, step=7)
    recorder.log({"loss": True})
    recorder.log_at(100, {"curve": 1.0})
    recorder.log({"loss": 2}, step=np.int64(3))
    recorder.log({"loss": 3})
    flushed = recorder.flush()
    assert flushed.acknowledged
    assert service.points("loss") == {0: 0.5, 1: 0.25, 7: 0.125, 8: 1.0, 3: 2.0, 9: 3.0}
    assert service.points("curve") == {100: 1.0}
    assert {type(step) for step in service.points("loss")} == {int}


def test_everything_travels_in_few_batches_within_the_limits(recorder, service):
    for number in range(5000):
        recorder.log({"a": number, "b": -number})
    recorder.log({f"wide{n}": 1.0 for n in range(2500)})
    recorder.log_params({f"p{n}": n for n in range(250)})
    recorder.set_tags({f"t{n}": n for n in range(250)})
    assert recorder.flush().acknowledged
    assert len(service.points("a")) == 5000
    assert sum(f"wide{n}" in batch.metrics for n in range(2500) for batch in service.batches) == 2500
    assert sum(len(batch.params) for batch in service.batches) == 250
    for batch in service.batches:
        points = sum(len(each.steps) for each in batch.metrics.values())
        assert points + len(batch.params) + len(batch.tags) <= 1000
        assert max(len(batch.params), len(batch.tags)) <= 100
    assert all(batch != Batch(batch.id, "run1") for batch in service.batches)


def test_what_is_not_a_number_is_said_once_and_left_out(recorder, service, caplog):
    with caplog.at_level(logging.WARNING, "modelyard.tracking"):
        for _ in range(3):
            recorder.log({"loss": 1.0, "image": object(), "none": None})
        recorder.log(None)
        recorder.log({"loss": 9.0}, step=3.0)
        recorder.log({"loss": 8.0}, step="x")
    recorder.flush()
    assert service.points("loss") == {0: 1.0, 1: 1.0, 2: 1.0, 3: 9.0, 4: 8.0}
    assert sum("'image'" in record.message for record in caplog.records) == 1
    assert "image" not in {key for batch in service.batches for key in batch.metrics}


def test_nan_and_infinity_are_values(recorder, service):
    recorder.log({"a": math.nan, "b": math.inf})
    recorder.flush()
    assert math.isnan(service.points("a")[0])
    assert service.points("b")[0] == math.inf


def test_second_value_of_a_parameter_is_refused_alone(recorder, service):
    recorder.log_params({"a": 1})
    recorder.log_params({"a": 2})
    recorder.set_tags({"t": 1})
    recorder.set_tags({"t": 2})
    recorder.flush()
    assert [batch.params["a"] for batch in service.batches if batch.params] == ["1", "2"]
    assert [batch.tags["t"] for batch in service.batches if batch.tags] == ["1", "2"]


def test_refused_part_is_set_aside_for_a_person(recorder, service, tmp_path, caplog):
    service.refuse = {"bad"}
    recorder.log_params({"good": 1, "bad": 2})
    recorder.log({"m": 1.0})
    flushed = recorder.flush()
    assert (flushed.acknowledged, flushed.refused) == (False, 1)
    assert service.points("m") == {0: 1.0}
    (aside,) = (tmp_path / "spool").glob("*.refused")
    assert '"bad":"2"' in aside.read_text()
    assert "conflict" in aside.read_text()
    assert len(caplog.records) == 1


def test_outage_is_spooled_and_replayed_once_in_order(transport, service, tmp_path, caplog):
    now = [0.0]
    recorder = RunRecorder("run1", transport, spool=tmp_path / "spool", monotonic=lambda: now[0])
    recorder.log({"m": 0.0})
    assert recorder.flush().acknowledged
    service.down = True
    for value in (1.0, 2.0, 3.0):
        recorder.log({"m": value})
        flushed = recorder.flush()
    assert not flushed.acknowledged
    assert flushed.spooled == 3
    assert len(caplog.records) == 1
    recorder.log_artifact("notes.txt", b"kept")
    service.down = False
    recorder.log({"m": 4.0})
    flushed = recorder.finish("failed", error="boom")
    assert flushed.acknowledged
    assert list(service.points("m").items()) == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert service.batches[-1].ending.error == "boom"
    (artifact,) = [each for batch in service.batches for each in batch.artifacts]
    assert service.objects[artifact.digest] == b"kept"
    assert list((tmp_path / "spool").iterdir()) == []
    assert len({batch.id for batch in service.batches}) == len(service.batches)


def test_what_a_dead_process_left_is_sent_by_the_next(transport, service, tmp_path):
    service.down = True
    recorder = RunRecorder("run1", transport, spool=tmp_path, start=Start("e", "default", "n", 5))
    recorder.log({"m": 1.0})
    recorder.log_artifact("a.txt", b"abc")
    recorder.finish()
    (left,) = tmp_path.glob("*.jsonl")
    with left.open("ab") as file:
        file.write(b'{"id":"torn')
    with pytest.raises((Unavailable, OSError)):
        replay_folder(tmp_path, transport)
    service.down = False
    replayed = replay_folder(tmp_path, transport)
    assert replayed.held == 0
    assert replayed.sent == len(service.batches) > 0
    assert service.batches[0].start.experiment == "e"
    assert service.batches[-1].ending.status == "finished"
    assert list(service.objects.values()) == [b"abc"]
    assert list(tmp_path.iterdir()) == []
    assert replay_folder(tmp_path / "nothing", transport).sent == 0


def test_damaged_line_is_set_aside_and_the_rest_is_sent(transport, service, tmp_path):
    for number, name in enumerate("ab"):
        spool = Spool.named(tmp_path, "run1", new_id=lambda number=number: str(number))
        spool.append(Batch(f"1{name}", "run1"))
        spool.append(Batch(f"2{name}", "run1"))
        spool.close()
    damaged = tmp_path / "run1.0.jsonl"
    damaged.write_bytes(damaged.read_bytes().replace(b'"id":"1a"', b'"id":\xff1a"'))
    replay_folder(tmp_path, transport)
    assert [batch.id for batch in service.batches] == ["2a", "1b", "2b"]
    assert [path.name for path in tmp_path.iterdir()] == ["run1.0.refused"]


def test_line_that_did_not_fit_on_the_disk_leaves_nothing_behind(tmp_path):
    resource = pytest.importorskip("resource")
    import signal

    spool = Spool.named(tmp_path, "run1", new_id=lambda: "x")
    spool.append(Batch("first", "run1"))
    size = spool.path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            spool.append(Batch("second", "run1", params={"a": "x" * 5000}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert spool.path.stat().st_size == size
    spool.append(Batch("third", "run1"))
    spool.close()
    sent = []
    replay_folder(tmp_path, Transport(sent.append, lambda _: ""))
    assert [batch.id for batch in sent] == ["first", "third"]


def test_spool_of_a_living_process_is_left_to_it(transport, tmp_path):
    spool = Spool.named(tmp_path, "run1", new_id=lambda: "x")
    spool.append(Batch("b", "run1"))
    assert replay_folder(tmp_path, transport).held == 1
    assert spool.waiting == 1
    spool.close()
    assert replay_folder(tmp_path, transport).sent == 1


def test_replay_after_a_crash_in_the_middle_applies_each_batch_once(sqlite, tmp_path):
    objects = ObjectStore.at(tmp_path / "objects")
    tracking = Tracking(sqlite, EventLog(sqlite), SystemClock(), objects=objects, series=SeriesStore(sqlite))
    local = tracking.transport(ADA)
    sent = []

    def send(batch):
        if len(sent) == 2:
            raise Unavailable("cut")
        sent.append(batch)
        local.send(batch)

    service_down = Transport(lambda batch: (_ for _ in ()).throw(Unavailable("down")), local.upload)
    recorder = RunRecorder("run1", service_down, spool=tmp_path / "s", start=Start("e", "default", "n", 5))
    for value in range(4):
        recorder.log({"m": float(value)})
        recorder.flush()
    recorder.finish()
    with pytest.raises(Unavailable):
        replay_folder(tmp_path / "s", Transport(send, local.upload))
    replay_folder(tmp_path / "s", local)
    assert [point.value for point in tracking.metric_history("run1", "m")] == [0.0, 1.0, 2.0, 3.0]
    assert tracking.get_run("run1").status == "finished"


def test_full_queue_holds_the_caller_up_and_counts_it(tmp_path):
    release, waiting = threading.Event(), threading.Event()
    arrived = []

    def send(batch):
        release.wait(30)
        arrived.append(batch)

    def monotonic():
        if threading.current_thread() is worker:
            waiting.set()
        return 0.0

    def log():
        for number in range(50):
            recorder.log({"m": float(number)})

    worker = threading.Thread(target=log)
    recorder = RunRecorder("run1", Transport(send, lambda _: ""), spool=tmp_path, capacity=10, monotonic=monotonic)
    worker.start()
    assert waiting.wait(30)
    assert worker.is_alive()
    release.set()
    worker.join(30)
    flushed = recorder.close()
    assert flushed.waits > 0
    assert flushed.dropped == 0
    assert sum(len(batch.metrics["m"].steps) for batch in arrived) == 50


def test_service_that_hangs_for_ever_costs_one_wait_and_then_the_oldest_records(tmp_path, caplog):
    release = threading.Event()
    arrived = []

    def send(batch):
        release.wait(30)
        arrived.append(batch)

    recorder = RunRecorder("run1", Transport(send, lambda _: ""), spool=tmp_path, capacity=4, max_wait_s=0.2)
    for number in range(40):
        recorder.log({"m": float(number)})
    release.set()
    flushed = recorder.close()
    assert flushed.dropped > 0
    assert not flushed.acknowledged
    assert sum(len(batch.metrics["m"].steps) for batch in arrived) == 40 - flushed.dropped
    assert sum("are lost" in record.message for record in caplog.records) == 1


def test_disk_without_room_keeps_batches_in_memory(transport, service, tmp_path):
    blocked = tmp_path / "spool"
    blocked.write_text("a file where the folder should be")
    recorder = RunRecorder("run1", transport, spool=blocked)
    service.down = True
    recorder.log({"m": 1.0})
    assert not recorder.flush().acknowledged
    recorder.log({"m": 2.0})
    recorder.flush()
    service.down = False
    assert recorder.close().acknowledged
    assert service.points("m") == {0: 1.0, 1: 2.0}


def test_inputs_and_files_are_recorded(recorder, service, tmp_path):
    file = tmp_path / "plot.png"
    file.write_bytes(b"png")
    recorder.log_input(DatasetInput("d", "x"))
    recorder.log_artifact("plots/a.png", file)
    file.unlink()
    recorder.flush()
    assert [each.name for batch in service.batches for each in batch.inputs] == ["d"]
    (artifact,) = [each for batch in service.batches for each in batch.artifacts]
    assert (artifact.path, artifact.size_bytes) == ("plots/a.png", 3)
    with pytest.raises(Invalid):
        recorder.log_artifact("../x", b"")


def test_run_id_cannot_name_another_file(transport, tmp_path):
    with pytest.raises(Invalid):
        RunRecorder("../x", transport, spool=tmp_path)


def test_finished_recorder_stays_finished(recorder, service):
    recorder.finish()
    assert recorder.finish().acknowledged
    assert [batch.ending.status for batch in service.batches if batch.ending] == ["finished"]


def test_forked_child_sends_nothing(recorder, service):
    recorder.log({"m": 1.0})
    recorder.forget()
    recorder.log({"m": 2.0})
    recorder.flush()
    assert 1 not in service.points("m")


def test_many_threads_log_everything(recorder, service):
    threads = [
        threading.Thread(target=lambda name=name: [recorder.log({name: float(n)}, step=n) for n in range(500)])
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.flush().acknowledged
    assert [len(service.points(name)) for name in "abcd"] == [500] * 4

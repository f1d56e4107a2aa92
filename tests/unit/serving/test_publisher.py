import threading

import pytest

from modelyard.errors import Conflict, Invalid, Unavailable
from modelyard.serving.model import (
    EndpointRoute,
    LoadFailure,
    RouteTable,
    VariantRoute,
    WorkerStatus,
    decode_table,
    encode,
)
from modelyard.serving.publisher import LoadRefused, RoutePublisher, write_atomically
from modelyard.serving.tally import TallyBook


def table(digest="d1", generation=0):
    variant = VariantRoute("control", "control", "churn", 1, digest, 10_000)
    return RouteTable(generation, (EndpointRoute("churn", "default", "s", None, None, (variant,)),))


@pytest.fixture
def publisher(tmp_path):
    publisher = RoutePublisher(tmp_path, alive=lambda _: True)
    (publisher.paths.models / "d1").mkdir(parents=True)
    return publisher


def report(publisher, worker, **given):
    status = WorkerStatus(worker, 1, "127.0.0.1", 80, **given)
    write_atomically(publisher.paths.status(worker), encode(status), durable=False)
    return status


def test_generations_grow(publisher):
    assert publisher.current() == RouteTable(0, ())
    assert [publisher.publish(table()).generation for _ in range(3)] == [1, 2, 3]
    assert publisher.publish(table(generation=10)).generation == 10
    assert publisher.current() == decode_table(publisher.paths.routes.read_bytes())
    assert publisher.current().generation == 10


@pytest.mark.parametrize("generation", [1, 2])
def test_an_older_table_is_refused(publisher, generation):
    publisher.publish(table(generation=2))
    with pytest.raises(Conflict, match="not newer than 2"):
        publisher.publish(table(generation=generation))
    assert publisher.current().generation == 2


@pytest.mark.parametrize("digest", ["d2", "../models/d1", "", ".."])
def test_a_table_names_only_folders_that_are_there(publisher, digest):
    with pytest.raises(Invalid, match="Materialise"):
        publisher.publish(table(digest))
    assert not publisher.paths.routes.exists()


def test_a_reader_never_sees_half_a_table(publisher):
    publisher.publish(table())
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            seen.append(decode_table(publisher.paths.routes.read_bytes()).generation)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        publisher.publish(table())
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert seen


def test_workers_are_listed_by_number_and_damaged_files_left_out(publisher):
    two, zero = report(publisher, 2), report(publisher, 0)
    publisher.paths.status(1).write_bytes(b"{")
    assert publisher.workers() == [zero, two]


def test_a_worker_lives_while_it_holds_its_lock(tmp_path):
    publisher = RoutePublisher(tmp_path)
    status = report(publisher, 0)
    assert publisher.workers() == []
    book = TallyBook(publisher.paths.tallies(0))
    assert publisher.workers() == [status]
    book.close()
    assert publisher.workers() == []


def test_await_loaded_waits_for_every_worker(tmp_path):
    steps = iter([{"generation": 1}, {"generation": 3}])

    def sleep(_):
        report(publisher, 1, **next(steps))

    publisher = RoutePublisher(tmp_path, alive=lambda _: True, sleep=sleep)
    report(publisher, 0, generation=2)
    found = publisher.await_loaded(2, workers=2)
    assert [(status.worker, status.generation) for status in found] == [(0, 2), (1, 3)]


def test_await_loaded_gives_up_and_says_who_is_behind(tmp_path):
    times = iter(range(100))
    publisher = RoutePublisher(
        tmp_path, alive=lambda _: True, sleep=lambda _: None, monotonic=lambda: float(next(times))
    )
    report(publisher, 0, generation=2)
    report(publisher, 1, generation=1)
    with pytest.raises(Unavailable, match=r"after 5 s: 2 of 2 workers are up, behind are \[1\]"):
        publisher.await_loaded(2, workers=2, timeout_s=5)


def test_await_loaded_names_the_variant_that_failed(publisher):
    failure = LoadFailure("churn", "canary", 4, "A file was changed.")
    report(publisher, 0, generation=1, failed=(failure,))
    message = "version 4 as 'canary' of endpoint 'churn': A file was changed"
    with pytest.raises(LoadRefused, match=message) as caught:
        publisher.await_loaded(1)
    assert caught.value.facts["failures"][0]["worker"] == 0


def test_a_file_is_replaced_whole_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "deep" / "file.json"
    for durable in (True, False):
        write_atomically(path, b"x" * (2 - durable), durable=durable)
    assert path.read_bytes() == b"xx"
    assert list(path.parent.iterdir()) == [path]

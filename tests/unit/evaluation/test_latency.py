import pytest

from modelyard.errors import Invalid
from modelyard.evaluation import measure_latency


class Model:
    """Predicts with a clock of its own: row r takes r milliseconds."""

    def __init__(self):
        self.now_ns = 0
        self.seen = []

    def predict(self, row):
        self.seen.append(row)
        self.now_ns += row * 1_000_000

    def clock_ns(self):
        return self.now_ns


def test_percentiles_are_calls_that_happened():
    model = Model()
    rows = list(range(1, 101))
    found = measure_latency(model.predict, rows, calls=200, warmup=0, clock_ns=model.clock_ns)
    assert (found.p50_ms, found.p95_ms, found.p99_ms, found.calls) == (50.0, 95.0, 99.0, 200)


def test_warm_up_calls_are_made_and_not_timed():
    model = Model()
    found = measure_latency(model.predict, [7, 3], calls=5, warmup=3, clock_ns=model.clock_ns)
    assert model.seen == [7, 3, 7, 7, 3, 7, 3, 7]
    assert found.p50_ms == 7.0


def test_the_real_clock_and_machine_are_the_default():
    found = measure_latency(lambda row: sum(range(row)), [1_000], calls=20, warmup=1)
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    assert set(found.machine) == {"system", "machine", "processor", "cores", "python"}
    assert found.machine["cores"] >= 1


def test_nothing_to_measure_is_refused():
    with pytest.raises(Invalid):
        measure_latency(lambda row: row, [])
    with pytest.raises(Invalid):
        measure_latency(lambda row: row, [1], calls=0)

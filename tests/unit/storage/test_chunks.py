import numpy as np
import pytest

from modelyard.errors import Corrupted, Invalid
from modelyard.storage.series.chunks import decode, encode
from modelyard.storage.series.model import joined, points

EXTREME = [np.iinfo(np.int64).min, np.iinfo(np.int64).max, 0, -1, 1, 999, 1000, -1000]


def _same(left, right):
    np.testing.assert_array_equal(left.steps, right.steps)
    np.testing.assert_array_equal(left.times, right.times)
    np.testing.assert_array_equal(left.values.view(np.uint64), right.values.view(np.uint64))


@pytest.mark.parametrize("seed", range(30))
def test_random_points_round_trip_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 300))
    raw = rng.integers(0, 2**64, size, dtype=np.uint64, endpoint=False)  # every kind of NaN among them
    steps = rng.choice([*EXTREME, *rng.integers(-(10**6), 10**6, 8).tolist()], size)
    times = rng.choice(EXTREME, size) if seed % 2 else 1000 * rng.integers(-(10**12), 10**12, size)
    original = points(steps, times, raw.view(np.float64))
    _same(decode(encode(original)), original)


def test_special_values_round_trip():
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1.7976931348623157e308]
    original = points(range(7), [0] * 7, values)
    _same(decode(encode(original)), original)


def test_regular_steps_and_times_cost_almost_nothing():
    size = 4096
    constant = points(np.arange(size), 1000 * np.arange(size), np.ones(size))
    assert len(encode(constant)) < 0.2 * size


def test_float32_losses_cost_half():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.05, 4096).astype(np.float32).astype(np.float64)
    assert len(encode(points(np.arange(4096), np.zeros(4096, int), values))) < 4.5 * 4096


def test_every_flipped_byte_is_detected():
    rng = np.random.default_rng(0)
    blob = encode(points(np.arange(50), np.arange(50), rng.normal(size=50)))
    for at in range(len(blob)):
        damaged = bytearray(blob)
        damaged[at] ^= 0x55
        with pytest.raises(Corrupted):
            decode(bytes(damaged))


def test_cut_chunk_is_detected():
    blob = encode(points(range(9), range(9), range(9)))
    for size in range(len(blob)):
        with pytest.raises(Corrupted):
            decode(blob[:size])


def test_points_check_their_shape():
    with pytest.raises(Invalid):
        points([1, 2], [1], [1.0, 2.0])
    with pytest.raises(Invalid):
        points([1.5], [1], [1.0])
    with pytest.raises(Invalid):
        points([[1]], [[1]], [[1.0]])
    assert len(joined([])) == 0

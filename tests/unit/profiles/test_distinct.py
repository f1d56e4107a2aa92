"""The distinct sketch: error, union, storage, and the identity of numbers."""

import math

import numpy as np
import pytest

from modelyard.profiles import distinct


def bits_of(values):
    return distinct.number_bits(np.asarray(values, dtype=np.float64), None)


def test_nothing_seen_is_zero():
    assert distinct.estimate(distinct.EMPTY) == 0.0


@pytest.mark.parametrize("count", [100, 1_000, 30_000])
def test_mean_error_over_many_sets_is_small(count):
    repeats = 40
    errors = [
        distinct.estimate(distinct.sketch(bits_of(np.arange(count) + seed * 1e7))) / count - 1
        for seed in range(repeats)
    ]
    limit = 1.04 / math.sqrt(distinct.REGISTERS)
    assert abs(np.mean(errors)) < 4 * limit / math.sqrt(repeats)
    assert np.std(errors) < 1.5 * limit


def test_repeats_change_nothing():
    once = bits_of([1.5, 2.5, 3.5])
    assert distinct.sketch(np.tile(once, 5_000)) == distinct.sketch(once)


def test_merge_is_the_sketch_of_the_union():
    a, b = bits_of(np.arange(0, 5_000)), bits_of(np.arange(3_000, 20_000))
    merged = distinct.merge_sketches(distinct.sketch(a), distinct.sketch(b))
    assert merged == distinct.sketch(np.concatenate([b, a]))


def test_ranks_match_a_plain_implementation():
    bits = np.random.default_rng(0).integers(0, 2**64, 3_000, dtype=np.uint64)
    expected = [0] * distinct.REGISTERS
    for word in bits.tolist():
        mixed = word ^ (word >> 33)
        mixed = mixed * 0xFF51AFD7ED558CCD % 2**64
        mixed ^= mixed >> 33
        mixed = mixed * 0xC4CEB9FE1A85EC53 % 2**64
        mixed ^= mixed >> 33
        rank = 54 - (mixed % 2**53).bit_length()
        expected[mixed >> 55] = max(expected[mixed >> 55], rank)
    assert list(distinct.sketch(bits)) == expected


def test_zero_hashes_to_the_highest_rank():
    assert max(distinct.sketch(np.zeros(1, dtype=np.uint64))) == 54


@pytest.mark.parametrize("count", [0, 1, 60, 90, 200, 5_000, 200_000])
def test_packing_round_trips(count):
    registers = distinct.sketch(bits_of(np.arange(count)))
    packed = distinct.pack(registers)
    assert distinct.unpack(*packed) == registers
    assert len(packed[1]) + len(packed[2]) < 300


def test_packing_keeps_a_register_far_above_the_others():
    registers = bytearray([3] * distinct.REGISTERS)
    registers[17], registers[511] = 54, 18
    assert distinct.unpack(*distinct.pack(bytes(registers))) == bytes(registers)


@pytest.mark.parametrize(
    "parts",
    [
        (0, b"abc", b""),
        (60, bytes(256), b""),
        (0, b"", b"\xff\xff\x01"),
        (0, b"", b"\x00\x00\xff"),
        (0, b"", b"x"),
    ],
)
def test_broken_storage_is_refused(parts):
    with pytest.raises(ValueError):  # noqa: PT011 (wire turns it into Invalid)
        distinct.unpack(*parts)


def test_integers_and_floats_of_one_value_have_one_identity():
    integers = np.array([0, 7, -7, 2**53 - 1, 2**53, 2**60, -(2**62), -(2**63)], dtype=np.int64)
    patterns = integers.view(np.uint64)
    floats = integers.astype(np.float64)
    assert distinct.number_bits(floats, patterns).tolist() == distinct.number_bits(floats, None).tolist()


def test_unsigned_integers_and_floats_of_one_value_have_one_identity():
    integers = np.array([2**63, 2**63 + 2**20], dtype=np.uint64)
    floats = integers.astype(np.float64)
    assert distinct.number_bits(floats, integers).tolist() == distinct.number_bits(floats, None).tolist()


def test_neighbouring_large_integers_stay_apart():
    integers = np.arange(2**60, 2**60 + 1_000, dtype=np.int64)
    bits = distinct.number_bits(integers.astype(np.float64), integers.view(np.uint64))
    assert len(set(bits.tolist())) == 1_000
    assert distinct.estimate(distinct.sketch(bits)) == pytest.approx(1_000, rel=0.15)


def test_label_hash_is_fixed():
    # Sketches are stored: a changed hash would make old and new ones disagree.
    assert distinct.label_hash("é") == 0x2F19F3EF8BBF1ACB


@pytest.mark.parametrize("count", [1, 2, 10])
def test_small_sets_are_near_exact_unless_registers_collide(count):
    found = [distinct.estimate(distinct.sketch(bits_of(np.arange(count) + seed * 1e7))) / count for seed in range(40)]
    assert np.median(found) == pytest.approx(1.0, abs=0.03)

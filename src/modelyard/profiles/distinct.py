"""How many different values a column holds: a HyperLogLog of 512 registers and the hashes that feed it.

Registers merge by maximum, so the sketch of a union is the same however its rows were grouped. The hash is
fixed (no seed, no dependence on process or platform), since sketches outlive the process that made them.

Sources: Flajolet et al. (2007), HyperLogLog; the estimator without bias tables or thresholds is Ertl
(2017), New cardinality estimation algorithms for HyperLogLog sketches (arXiv 1702.01284), algorithm 6.
The bit mixer is the finaliser of MurmurHash3 (public domain).
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from modelyard.profiles.exact import CHUNK

PRECISION = 9
REGISTERS = 1 << PRECISION
"""512 registers: a standard error of 1.04 / sqrt(512) = 4.6 %, in 256 stored bytes and a few more."""

EMPTY = bytes(REGISTERS)

_RANK_BITS = 53  # below the index bits, the part of a hash that converts to float64 exactly
_MAX_RANK = _RANK_BITS + 1
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)
_WIDE = np.uint64(0x9E3779B97F4A7C15)
_EXACT_INTEGER = 2.0**53
_TWO_64 = 2.0**64
_TWO_63 = 2.0**63
_SPARSE_LIMIT = 80  # three bytes per register; more are cheaper as nibbles


def number_bits(values: npt.NDArray[np.float64], patterns: npt.NDArray[np.uint64] | None) -> npt.NDArray[np.uint64]:
    """Give each number the 64 bits that its hash starts from: equal numbers, equal bits.

    Numbers below 2**53 use their float64 bits. From there a float64 no longer tells neighbouring
    integers apart, so integers use their own two's complement, whether they came as integers or floats.

    Args:
        values: Shape (n,), no NaN and no negative zero.
        patterns: Shape (n,), the two's complement of each value, if the column held integers.

    Returns:
        Shape (n,).
    """
    bits = values.view(np.uint64)
    if not len(values) or max(float(values.max()), -float(values.min())) < _EXACT_INTEGER:
        return bits
    size = np.abs(values)
    wide = (size >= _EXACT_INTEGER) & (values < _TWO_64) & (values >= -_TWO_63)
    bits = bits.copy()
    if patterns is not None:
        bits[wide] = patterns[wide] ^ _WIDE
        return bits
    upper = wide & (values >= _TWO_63)
    lower = wide & ~upper
    bits[upper] = values[upper].astype(np.uint64) ^ _WIDE
    bits[lower] = values[lower].astype(np.int64).view(np.uint64) ^ _WIDE
    return bits


@lru_cache(maxsize=65_536)
def label_hash(label: str) -> int:
    """Hash a category name to 64 bits."""
    return int.from_bytes(blake2b(label.encode(), digest_size=8).digest(), "little")


def sketch(bits: npt.NDArray[np.uint64]) -> bytes:
    """Build the registers for a set of values.

    Args:
        bits: Shape (n,), 64 bits per value, equal for equal values; they need not be well mixed.

    Returns:
        One byte per register.
    """
    registers = np.zeros(REGISTERS, dtype=np.int64)
    for start in range(0, len(bits), CHUNK):
        _fold(registers, bits[start : start + CHUNK])
    return registers.astype(np.uint8).tobytes()


def _fold(registers: npt.NDArray[np.int64], bits: npt.NDArray[np.uint64]) -> None:
    mixed = bits >> _SHIFT
    np.bitwise_xor(mixed, bits, out=mixed)
    np.multiply(mixed, _MIX_1, out=mixed)
    np.bitwise_xor(mixed, mixed >> _SHIFT, out=mixed)
    np.multiply(mixed, _MIX_2, out=mixed)
    np.bitwise_xor(mixed, mixed >> _SHIFT, out=mixed)
    index = (mixed >> np.uint64(64 - PRECISION)).view(np.int64)
    rest = (mixed & np.uint64((1 << _RANK_BITS) - 1)).view(np.int64)
    # The exponent field of the exact float is the bit length, 1022 too high; zero has field zero.
    length = (rest.astype(np.float64).view(np.int64) >> np.int64(52)) - np.int64(1022)
    rank = _MAX_RANK - np.maximum(length, 0)
    higher = rank > registers[index]
    if higher.any():
        np.maximum.at(registers, index[higher], rank[higher])


def merge_sketches(a: bytes, b: bytes) -> bytes:
    """Return the registers of the union."""
    if a == b:
        return a
    return np.maximum(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)).tobytes()


def estimate(registers: bytes) -> float:
    """Estimate how many different values were seen; standard error 4.6 % when there are many.

    Args:
        registers: One byte per register.

    Returns:
        At least 0; near-exact for small sets.
    """
    histogram = np.bincount(np.frombuffer(registers, np.uint8), minlength=_MAX_RANK + 1)
    if histogram[0] == REGISTERS:
        return 0.0
    z = REGISTERS * _tau(1.0 - float(histogram[_MAX_RANK]) / REGISTERS)
    for rank in range(_MAX_RANK - 1, 0, -1):
        z = 0.5 * (z + float(histogram[rank]))
    z += REGISTERS * _sigma(float(histogram[0]) / REGISTERS)
    return REGISTERS * REGISTERS / (2.0 * math.log(2.0)) / z


def _sigma(x: float) -> float:
    y, z, previous = 1.0, x, -1.0
    while z != previous:
        x, previous = x * x, z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, previous = 1.0, 1.0 - x, -1.0
    while z != previous:
        x, previous = math.sqrt(x), z
        y *= 0.5
        z -= (1.0 - x) ** 2 * y
    return z / 3.0


def pack(registers: bytes) -> tuple[int, bytes, bytes]:
    """Pack registers for storage: nibbles above a common base, and the few that do not fit.

    Returns:
        The base, 256 bytes of nibbles (empty if few registers are set), and three bytes (index, rank)
        for each register that the nibbles do not hold.
    """
    ranks = np.frombuffer(registers, np.uint8)
    base, nibbles, rest = 0, b"", np.flatnonzero(ranks)
    if len(rest) > _SPARSE_LIMIT:
        base = int(ranks.min())
        offsets = ranks - base
        rest = np.flatnonzero(offsets > 15)
        low = np.minimum(offsets, 15).astype(np.uint8)
        nibbles = (low[0::2] | (low[1::2] << 4)).tobytes()
    spill = np.empty(len(rest), dtype=[("index", "<u2"), ("rank", "u1")])
    spill["index"], spill["rank"] = rest, ranks[rest]
    return base, nibbles, spill.tobytes()


def unpack(base: int, nibbles: bytes, spill: bytes) -> bytes:
    """Undo ``pack``.

    Raises:
        ValueError: If the parts do not describe a sketch.
    """
    ranks = np.zeros(REGISTERS, dtype=np.uint8)
    if nibbles:
        packed = np.frombuffer(nibbles, np.uint8)
        if len(packed) * 2 != REGISTERS or not 0 <= base <= _MAX_RANK:
            raise ValueError("a distinct sketch has 256 bytes of nibbles and a base up to 54")
        ranks[0::2], ranks[1::2] = (packed & 15) + base, (packed >> 4) + base
    entries = np.frombuffer(spill, dtype=[("index", "<u2"), ("rank", "u1")])
    if len(entries) and int(entries["index"].max()) >= REGISTERS:
        raise ValueError("a distinct sketch names a register that does not exist")
    ranks[entries["index"]] = entries["rank"]
    if int(ranks.max()) > _MAX_RANK:
        raise ValueError("a distinct sketch holds a rank above 54")
    return ranks.tobytes()

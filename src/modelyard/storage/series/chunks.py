"""Points in a few bytes each, and back, exactly.

Steps are kept as differences of differences and times as differences (of milliseconds if all are whole
milliseconds), both in zigzag form, so that regular ones are almost all zero bytes. Then the bytes of all
numbers are laid out by significance, high bytes together, and run through Deflate: a noisy float64 loss keeps
its seven bytes of true noise, and everything else nearly vanishes. Sources: delta-of-delta from Pelkonen et
al. (2015), Gorilla, section 4.1.1; byte shuffle from Blosc. Deviation from Gorilla: no XOR of values, which
on noisy metrics made chunks larger (6.89 against 6.85 bytes a value).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from modelyard.errors import Corrupted
from modelyard.storage.series.model import Points

_FORMAT = 1
_CHECKSUM = struct.Struct("<I")  # crc32 of everything behind it
_HEADER = struct.Struct("<BBIqq")  # format, time unit (index below), points, first step, first time in units
_UNITS_US = (1, 1000)
_WORD = 8
_COLUMNS = 3

_Words = npt.NDArray[np.uint64]


def encode(points: Points) -> bytes:
    """Encode points, at least one, in their order."""
    unit = int(not np.any(points.times % _UNITS_US[1]))
    times = points.times // _UNITS_US[unit]
    deltas = np.diff(points.steps, prepend=points.steps[:1])
    columns = (
        _zigzag(np.diff(deltas, prepend=deltas[:1])),
        _zigzag(np.diff(times, prepend=times[:1])),
        np.ascontiguousarray(points.values).view(np.uint64),
    )
    planes = b"".join(_shuffled(column) for column in columns)
    # Run lengths and Huffman codes find all there is here, several times faster than searching for matches.
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    head = _HEADER.pack(_FORMAT, unit, len(points), int(points.steps[0]), int(times[0]))
    body = head + deflate.compress(planes) + deflate.flush()
    return _CHECKSUM.pack(zlib.crc32(body)) + body


def decode(blob: bytes) -> Points:
    """Decode what ``encode`` made.

    Raises:
        Corrupted: If the bytes are not what was encoded.
    """
    body = memoryview(blob)[_CHECKSUM.size :]
    if len(body) < _HEADER.size or _CHECKSUM.pack(zlib.crc32(body)) != blob[: _CHECKSUM.size]:
        raise _damaged()
    form, unit, size, step, time = _HEADER.unpack_from(body)
    if form != _FORMAT:
        raise _damaged()
    planes = zlib.decompress(body[_HEADER.size :], -zlib.MAX_WBITS, size * _WORD * _COLUMNS)
    words = np.frombuffer(planes, np.uint8).reshape(_COLUMNS, _WORD, size)
    deltas = np.cumsum(_unzigzag(_gathered(words[0])))
    steps = np.cumsum(deltas)
    steps += step
    times = np.cumsum(_unzigzag(_gathered(words[1])))
    times += time
    times *= _UNITS_US[unit]
    return Points(steps, times, _gathered(words[2]).view(np.float64))


def _zigzag(numbers: npt.NDArray[np.int64]) -> _Words:
    return ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)


def _unzigzag(words: _Words) -> npt.NDArray[np.int64]:
    return ((words >> np.uint64(1)) ^ (~(words & np.uint64(1)) + np.uint64(1))).view(np.int64)


def _shuffled(words: _Words) -> bytes:
    little = np.ascontiguousarray(words.astype("<u8", copy=False))
    return little.view(np.uint8).reshape(-1, _WORD).T.tobytes()


def _gathered(planes: npt.NDArray[np.uint8]) -> _Words:
    little = np.ascontiguousarray(planes.T).view("<u8").reshape(-1)
    return little.astype(np.uint64, copy=False)


def _damaged() -> Corrupted:
    return Corrupted("A stored chunk of a metric's history is damaged. Restore the database from a backup.")

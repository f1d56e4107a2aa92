"""Prediction ids: ULIDs that one worker makes in under a microsecond.

48 bits of milliseconds, 50 random bits drawn when the process starts, and a 30-bit counter: ids of one worker
ascend within a millisecond, and two processes meet only if they drew the same 50 bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from modelyard.storage.ulid import encode as encode_ulid

_PAIRS = tuple(a + b for a in "0123456789ABCDEFGHJKMNPQRSTVWXYZ" for b in "0123456789ABCDEFGHJKMNPQRSTVWXYZ")


class PredictionIds:
    """Makes ids.

    Args:
        randomness: Returns that many random bytes.
    """

    __slots__ = ("_count", "_head", "_millisecond", "_process")

    def __init__(self, *, randomness: Callable[[int], bytes] = os.urandom) -> None:
        self._process = encode_ulid(0, randomness(10))[10:20]
        self._count = 0
        self._millisecond = -1
        self._head = ""

    def new(self, time_ns: int) -> str:
        """Return a new id for this wall-clock time.

        >>> ids = PredictionIds(randomness=bytes)
        >>> ids.new(0), ids.new(0)
        ('00000000000000000000000001', '00000000000000000000000002')
        """
        millisecond = time_ns // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._head = encode_ulid(millisecond, bytes(10))[:10] + self._process
        self._count = count = (self._count + 1) & 0x3FFF_FFFF
        return self._head + _PAIRS[count >> 20] + _PAIRS[(count >> 10) & 1023] + _PAIRS[count & 1023]

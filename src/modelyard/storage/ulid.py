"""Sortable unique ids: 48 bits of milliseconds and 80 random bits in Crockford's base 32 (26 characters).

Source: the ULID specification. Ids are made by a function that is passed in, so tests can fix them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

NewId = Callable[[], str]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)


def ulid() -> str:
    """Make a new id from the wall clock and the system's randomness.

    >>> len(ulid())
    26
    """
    return encode(time.time_ns() // 1_000_000, os.urandom(10))


def encode(milliseconds: int, randomness: bytes) -> str:
    """Encode a time and 10 random bytes as 26 characters that sort by time.

    >>> encode(0, bytes(10))
    '00000000000000000000000000'
    """
    value = ((milliseconds & 0xFFFF_FFFF_FFFF) << 80) | int.from_bytes(randomness)
    pairs = _PAIRS
    return "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])

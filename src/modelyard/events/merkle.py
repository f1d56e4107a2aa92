"""Merkle tree root over the log's rows.

Source: RFC 6962, section 2.1 (tree hash), with SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

EMPTY = hashlib.sha256(b"").digest()


def root(leaves: Iterable[bytes]) -> bytes:
    """Return the 32-byte tree head of the leaves, in order.

    Keeps one hash per level: memory is logarithmic in the number of leaves.

    >>> root([b""]).hex()[:16]
    '6e340b9cffb37a98'
    """
    # Complete subtrees, largest first, as (number of leaves, hash).
    stack: list[tuple[int, bytes]] = []
    for leaf in leaves:
        stack.append((1, hashlib.sha256(b"\x00" + leaf).digest()))
        while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
            size, right = stack.pop()
            _, left = stack.pop()
            stack.append((2 * size, _node(left, right)))
    if not stack:
        return EMPTY
    _, head = stack.pop()
    while stack:
        head = _node(stack.pop()[1], head)
    return head


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()

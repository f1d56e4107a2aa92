"""Which variant answers a row: a hash of the entity key, so that a person stays with a version.

Canaries take the low buckets and the control the rest, so raising a canary's weight only moves entities from
the control to that canary, and lowering it only moves them back. (With several canaries this holds for the
last of them; raising an earlier one also moves the borders of those behind it.)
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Generic, TypeVar

from modelyard.serving.model import WEIGHT_TOTAL, EndpointRoute, VariantRoute
from modelyard.serving.tally import Tally

V = TypeVar("V")


def bucket(salt: bytes, key: bytes) -> int:
    """Return the bucket of an entity, 0 to 9,999, the same in every worker.

    >>> bucket(b"salt", b"customer-1") == bucket(b"salt", b"customer-1")
    True
    """
    return int.from_bytes(blake2b(salt + b"\0" + key, digest_size=8).digest()) % WEIGHT_TOTAL


def key_bytes(value: object) -> bytes | None:
    """Return the form of an entity key that is hashed; None if the value is null.

    A number hashes like its text, and a float without fraction like the integer, since JSON clients write one
    key in each of these ways.

    >>> key_bytes(7), key_bytes(7.0), key_bytes("7")
    (b'7', b'7', b'7')
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if value is None:
        return None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float):
        if value != value:  # noqa: PLR0124 - NaN is no key
            return None
        if value.is_integer():
            return str(int(value)).encode()
    return str(value).encode("utf-8", "surrogatepass")


class Router(Generic[V]):
    """Decides for one endpoint.

    Args:
        route: The endpoint.
        variants: What stands behind each variant's name, with its counters. A variant that is absent (it
            could not be loaded) takes no traffic; the control must be there.
    """

    __slots__ = ("_bounds", "_salt", "_shadows", "by_version", "control", "splits")

    def __init__(self, route: EndpointRoute, variants: dict[str, tuple[V, Tally]]) -> None:
        self._salt = route.salt.encode()
        self.control: V = variants[route.control.name][0]
        self._bounds: tuple[tuple[int, V, Tally], ...] = _cumulative(route, variants)
        self._shadows: tuple[tuple[int, V], ...] = tuple(
            (variant.weight, variants[variant.name][0])
            for variant in route.variants
            if variant.role == "shadow" and variant.weight > 0 and variant.name in variants
        )
        self.splits = bool(self._bounds or self._shadows)
        self.by_version: dict[int, tuple[V, Tally]] = {}
        for variant in sorted(route.variants, key=_pin_order):
            if variant.name in variants:
                self.by_version.setdefault(variant.version, variants[variant.name])

    def bucket(self, key: bytes) -> int:
        """Return the bucket of an entity at this endpoint."""
        return bucket(self._salt, key)

    def choose(self, place: int) -> V:
        """Return the variant for a bucket, using one answer of its lease.

        A variant whose lease is used up gives its traffic to the control.
        """
        for bound, variant, tally in self._bounds:
            if place < bound:
                return variant if tally.take() else self.control
        return self.control

    def shadows(self, place: int) -> list[V]:
        """Return the variants that get a copy of the row in this bucket."""
        return [variant for weight, variant in self._shadows if place < weight]


def _cumulative(route: EndpointRoute, variants: dict[str, tuple[V, Tally]]) -> tuple[tuple[int, V, Tally], ...]:
    bounds = []
    reached = 0
    for variant in route.variants:
        if variant.role != "canary":
            continue
        reached += variant.weight
        # A canary that is not loaded keeps its buckets, which fall to the control: nobody else moves.
        found = variants.get(variant.name) or variants[route.control.name]
        if variant.weight > 0:
            bounds.append((reached, *found))
    return tuple(bounds)


def _pin_order(variant: VariantRoute) -> int:
    return ("control", "canary", "shadow").index(variant.role)

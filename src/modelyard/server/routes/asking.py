"""What many routes take and give: the caller, page limits, raw bodies, and JSON of dataclasses."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request

from modelyard.errors import NotFound
from modelyard.server.access import Caller, current_caller, needs

By = Annotated[Caller, Depends(current_caller)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries of the answer.")]
Cursor = Annotated[str | None, Query(max_length=600, description="`cursor` of the page before.")]
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=200, description="Sent again, it changes nothing a second time."),
]


async def _body(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(_body)]


def takes_bytes(permission: str, *kinds: str) -> dict[str, Any]:
    """Return the declaration of a route that reads its body itself, for ``openapi_extra``.

    Args:
        permission: The permission that the route needs.
        kinds: Content types that it reads; ``application/octet-stream`` by default.
    """
    content: dict[str, Any] = {kind: {} for kind in kinds or ("application/octet-stream",)}
    return {**needs(permission), "requestBody": {"required": True, "content": content}}


def plain(value: object) -> Any:
    """Return dataclasses, mappings and sets as what JSON holds.

    NaN and the infinities, which JSON lacks, become the texts that protobuf's JSON uses.

    >>> plain((1.0, float("-inf"), frozenset({"b", "a"})))
    [1.0, '-Infinity', ['a', 'b']]
    """
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted(plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def check_project(caller: Caller, kind: str, name: str, *, project: str) -> None:
    """Refuse an object of another project as if it did not exist.

    Raises:
        NotFound: If the projects differ.
    """
    if project != caller.project:
        raise NotFound(kind, name)


def id_of(key: str, caller: Caller) -> str:
    """Return the id that a creating request with this ``Idempotency-Key`` gives its object, always the same."""
    text = f"{caller.project}\0{caller.actor.name}\0{key}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]

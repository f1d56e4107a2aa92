"""HTTP status of each error in the data plane, the same for all of its protocols."""

from __future__ import annotations

from modelyard.errors import (
    Conflict,
    Forbidden,
    Invalid,
    MissingExtra,
    ModelyardError,
    NotFound,
    Refused,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from modelyard.models.faults import NoFiniteScore
from modelyard.serving.faults import (
    BadHeader,
    Busy,
    DeadlineExceeded,
    EmptyBody,
    InvalidJson,
    LeaseUsedUp,
    ModelFailed,
    SchemaMismatch,
    WrongContentType,
    WrongMethod,
)

_STATUS: dict[type[ModelyardError], int] = {
    # A model's failure is no server error: the worker is healthy, and a load balancer must not eject it.
    ModelFailed: 422,
    SchemaMismatch: 422,
    NoFiniteScore: 422,
    BadHeader: 400,
    EmptyBody: 400,
    InvalidJson: 400,
    WrongMethod: 405,
    TooLarge: 413,
    WrongContentType: 415,
    Busy: 429,
    LeaseUsedUp: 429,
    DeadlineExceeded: 504,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Refused: 409,
    Invalid: 422,
    MissingExtra: 503,
    Unavailable: 503,
}

Header = tuple[bytes, bytes]


def status_of(error: ModelyardError) -> int:
    """Return the status of the nearest class in the table."""
    for kind in type(error).__mro__:
        status = _STATUS.get(kind)
        if status is not None:
            return status
    return 422


def headers_of(error: ModelyardError, status: int) -> list[Header]:
    """Return the headers that the status calls for."""
    if status in {429, 503}:
        return [(b"retry-after", b"1")]
    if status == 401:
        return [(b"www-authenticate", b"Bearer")]
    if status == 405:
        return [(b"allow", str(error.facts.get("allowed", "")).encode())]
    if status == 413:
        return [(b"connection", b"close")]  # the rest of the body is not read
    return []

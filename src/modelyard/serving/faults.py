"""What can go wrong between a request and its answer, as errors that carry their facts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from modelyard.errors import Forbidden, Invalid, NotFound, Unavailable


class InvalidJson(Invalid):
    """The body is not JSON, or not JSON of the shape that the protocol wants."""

    code: ClassVar[str] = "invalid_json"

    def __init__(self, reason: str, *, expected: str) -> None:
        super().__init__(f"The body cannot be read: {reason}. Expected {expected}.", expected=expected)


class EmptyBody(Invalid):
    """There is no body, or it holds no rows."""

    code: ClassVar[str] = "empty_body"

    def __init__(self, *, expected: str) -> None:
        super().__init__(f"There is nothing to predict. Expected {expected}.", expected=expected)


class WrongContentType(Invalid):
    """The body is not declared as JSON."""

    code: ClassVar[str] = "wrong_content_type"

    def __init__(self, given: str) -> None:
        super().__init__(f"Content-Type {given!r} is not accepted; send application/json.", expected="application/json")


class WrongMethod(Invalid):
    """The address exists, but not with this method."""

    code: ClassVar[str] = "wrong_method"

    def __init__(self, method: str, *, allowed: str) -> None:
        super().__init__(f"{method} is not possible here; use {allowed}.", expected=allowed, allowed=allowed)


class BadHeader(Invalid):
    """A header that steers the prediction is malformed."""

    code: ClassVar[str] = "bad_header"

    def __init__(self, name: str, *, expected: str) -> None:
        super().__init__(f"The header {name} is malformed; expected {expected}.", header=name, expected=expected)


class HostRefused(Forbidden):
    """The request was sent to a name that this worker does not answer to."""

    code: ClassVar[str] = "host_refused"

    def __init__(self, given: str) -> None:
        super().__init__(
            f"This worker does not answer to the host {given!r}. Use localhost or 127.0.0.1, or start it "
            "with the host name that clients use.",
            host=given,
        )


class OriginRefused(Forbidden):
    """A web page of another site sent the request."""

    code: ClassVar[str] = "origin_refused"

    def __init__(self, given: str) -> None:
        super().__init__(f"Pages of {given!r} may not ask for predictions here.", origin=given)


class UnknownEndpoint(NotFound):
    """No endpoint has this name."""

    code: ClassVar[str] = "unknown_endpoint"

    def __init__(self, name: str, *, known: Iterable[str]) -> None:
        names = sorted(known)
        hint = f"Endpoints: {', '.join(names[:10])}." if names else "No endpoint is deployed yet."
        super().__init__("endpoint", name[:200], known=names, hint=hint)


class UnknownVersion(NotFound):
    """The endpoint does not serve this version."""

    code: ClassVar[str] = "unknown_version"

    def __init__(self, version: str, *, endpoint: str, served: Iterable[int]) -> None:
        listed = ", ".join(str(number) for number in sorted(served))
        super().__init__(
            "version", version[:40], hint=f"Endpoint {endpoint!r} serves {listed or 'none at the moment'}."
        )


class NotServing(Unavailable):
    """The endpoint exists, but no version of it could be loaded."""

    code: ClassVar[str] = "not_serving"

    def __init__(self, endpoint: str, *, reason: str) -> None:
        super().__init__(f"Endpoint {endpoint!r} cannot answer now: {reason}", endpoint=endpoint)


class Busy(Unavailable):
    """The endpoint has as many requests under way as it may."""

    code: ClassVar[str] = "busy"

    def __init__(self, endpoint: str, *, limit: int) -> None:
        super().__init__(
            f"Endpoint {endpoint!r} has {limit} requests under way, its limit. Try again in a second.",
            endpoint=endpoint,
            limit=limit,
        )


class LeaseUsedUp(Unavailable):
    """A version was asked for by number, and may not answer unwatched any longer."""

    code: ClassVar[str] = "lease_used_up"

    def __init__(self, endpoint: str, *, version: int) -> None:
        super().__init__(
            f"Version {version} of endpoint {endpoint!r} has given all answers that it may give before it is "
            "looked at. Ask without a version, or try again in a second.",
            endpoint=endpoint,
            version=version,
        )


class DeadlineExceeded(Unavailable):
    """The client's deadline passed before the prediction began."""

    code: ClassVar[str] = "deadline_exceeded"

    def __init__(self, *, deadline_ms: int, elapsed_ms: float) -> None:
        super().__init__(
            f"The deadline of {deadline_ms} ms passed ({elapsed_ms:.0f} ms) before the prediction began.",
            deadline_ms=deadline_ms,
        )


class ModelFailed(Unavailable):
    """The model raised; the fault is its own, not the request's."""

    code: ClassVar[str] = "model_failed"

    def __init__(self, endpoint: str, *, variant: str, version: int, reason: str) -> None:
        super().__init__(
            f"Version {version} of endpoint {endpoint!r} failed on this row ({reason}). It was recorded.",
            endpoint=endpoint,
            variant=variant,
            version=version,
        )


class SchemaMismatch(Unavailable):
    """A variant refused rows that the control accepts: the variant is at fault, not the request."""

    code: ClassVar[str] = "schema_mismatch"

    def __init__(self, endpoint: str, *, variant: str, version: int, reason: str) -> None:
        super().__init__(
            f"Version {version} of endpoint {endpoint!r} ({variant!r}) refuses rows that the control "
            f"accepts: {reason} It was recorded.",
            endpoint=endpoint,
            variant=variant,
            version=version,
        )

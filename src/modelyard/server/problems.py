"""Errors as `application/problem+json` (RFC 9457): the one table from error classes to HTTP statuses."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from modelyard import errors
from modelyard.workflows.errors import ChildError

# The status of the nearest listed ancestor counts; a test walks all subclasses.
STATUSES: dict[type[errors.ModelyardError], int] = {
    errors.Invalid: 400,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Forbidden: 403,
    errors.Unauthenticated: 401,
    errors.Unavailable: 503,
    errors.StorageFull: 507,
    errors.Refused: 422,
    errors.MissingExtra: 501,
    ChildError: 422,  # the user's own code failed; the body says how
}

_HEADERS = {
    401: {"WWW-Authenticate": 'Basic realm="modelyard"'},
    503: {"Retry-After": "1"},
}

_logger = logging.getLogger("modelyard.server")


def status_of(kind: type[errors.ModelyardError]) -> int:
    """Return the HTTP status of an error class.

    Raises:
        LookupError: If neither it nor an ancestor is in the table.
    """
    for ancestor in kind.__mro__:
        if ancestor in STATUSES:
            return STATUSES[ancestor]
    raise LookupError(f"{kind.__name__} has no HTTP status: add it to STATUSES")


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    request_id: str,
    facts: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build a problem document. Facts that JSON cannot hold are shown as text."""
    body = {
        **(facts or {}),
        "type": "about:blank",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    content = json.dumps(body, default=str).encode()
    return Response(content, status, headers, media_type="application/problem+json")


def install(application: FastAPI) -> None:
    """Answer every error of the application with a problem document."""

    async def domain(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.ModelyardError)  # noqa: S101  # registered for this class below
        status = status_of(type(error))
        headers = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": 'Basic realm="modelyard"'}}.get(status)
        return problem(status, error.code, error.message, request_id=_id(request), facts=error.facts, headers=headers)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"] if part != "body")
        detail = f"{place or 'The body'}: {found['msg']}"
        return problem(400, "invalid", detail, request_id=_id(request), facts={"field": place})

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        # FastAPI wraps whatever is raised while it reads the body.
        if isinstance(error.__cause__, errors.ModelyardError):
            return await domain(request, error.__cause__)
        if isinstance(error.__cause__, RecursionError):
            return await recursion(request, error.__cause__)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        detail = f"There is no {request.method} {request.url.path} here." if code != "http_error" else error.detail
        return problem(error.status_code, code, detail, request_id=_id(request), headers=error.headers)

    async def recursion(request: Request, error: Exception) -> Response:
        return problem(400, "invalid", "The body is nested too deeply.", request_id=_id(request))

    async def unexpected(request: Request, error: Exception) -> Response:
        _logger.error("request %s failed", _id(request), exc_info=error)
        detail = "Something went wrong inside Modelyard; the server's log has it under this request id."
        return problem(500, "internal", detail, request_id=_id(request))

    application.add_exception_handler(errors.ModelyardError, domain)
    application.add_exception_handler(RequestValidationError, validation)
    application.add_exception_handler(HTTPException, http)
    application.add_exception_handler(RecursionError, recursion)
    application.add_exception_handler(Exception, unexpected)


def _id(request: Request) -> str:
    return str(request.scope.get("modelyard.request_id", ""))

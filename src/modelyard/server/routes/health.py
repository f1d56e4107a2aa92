"""Health and readiness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Response

from modelyard import __version__
from modelyard.server.access import PUBLIC, Routes, needs

Check = Callable[[], str | None]


def health_routes(checks: Mapping[str, Check]) -> Routes:
    """Build the routes of health.

    Args:
        checks: By part, a function that returns None when the part is ready, else what is missing.
    """
    routes = Routes(tags=["health"])

    @routes.get("/health", openapi_extra=needs(PUBLIC))
    def health() -> dict[str, str]:
        """Say that the server answers."""
        return {"status": "ok", "version": __version__}

    @routes.get("/ready", openapi_extra=needs(PUBLIC))
    def ready(response: Response) -> dict[str, Any]:
        """Say whether every part is ready to work; 503 names what is not."""
        missing = {part: reason for part, check in checks.items() if (reason := check()) is not None}
        if missing:
            response.status_code = 503
        return {"ready": not missing, "waiting_for": missing}

    return routes

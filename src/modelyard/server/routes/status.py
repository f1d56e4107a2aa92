"""Where the parts of this server are."""

from __future__ import annotations

from typing import Any

from modelyard import __version__
from modelyard.server.access import Routes, needs


def status_routes(*, serve_url: str | None) -> Routes:
    """Build the route of the server's status.

    Args:
        serve_url: Address of the endpoints, None where nothing serves (local mode).
    """
    routes = Routes(tags=["status"])

    @routes.get("/status", openapi_extra=needs("read"))
    def status() -> dict[str, Any]:
        """Say which version runs and where the endpoints answer."""
        return {"version": __version__, "serve_url": serve_url}

    return routes

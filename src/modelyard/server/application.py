"""The control plane's ASGI application."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from modelyard import __version__
from modelyard.server.access import Access, Routes
from modelyard.server.gate import Gate
from modelyard.server.problems import install
from modelyard.settings import Settings
from modelyard.storage import NewId, ulid

API = "/api/v1"


def create_application(
    access: Access,
    routers: Sequence[Routes],
    *,
    settings: Settings,
    mounted: Iterable[BaseRoute] = (),
    lifespan: Any = None,
    new_id: NewId = ulid,
) -> ASGIApp:
    """Assemble the application.

    Args:
        access: Turns requests into callers.
        routers: Groups of native routes, all served under ``/api/v1``.
        settings: Address and limits.
        mounted: Further routes of foreign protocols and the UI.
        lifespan: ASGI lifespan of what runs inside the server (workflow engine, ticks).
        new_id: Source of request ids.
    """
    native = native_api(routers, lifespan=lifespan)
    native.state.access = access
    native.router.routes.extend(mounted)
    return Gate(
        native,
        hosts=frozenset({settings.host, *(name for name in settings.allowed_hosts.split(",") if name)}),
        max_body_bytes=settings.max_body_mb * 1_000_000,
        new_id=new_id,
    )


def native_api(routers: Sequence[Routes], *, lifespan: Any = None) -> FastAPI:
    """Return the FastAPI application alone, whose ``openapi()`` is the API's reference."""
    application = FastAPI(
        title="Modelyard",
        version=__version__,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    install(application)
    for router in routers:
        application.include_router(router, prefix=API)
    return application

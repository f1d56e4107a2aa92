"""The injected clock over HTTP: read by everybody, driven by a replay."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from modelyard.errors import Conflict
from modelyard.events import Clock, EventTimeClock
from modelyard.server.access import Routes, needs


class NewTime(BaseModel):
    """A time to move the clock to."""

    model_config = ConfigDict(extra="forbid")
    to: AwareDatetime


def clock_routes(clock: Clock) -> Routes:
    """Build the routes of the clock that windows, bakes, budgets and schedules read."""
    routes = Routes(tags=["clock"])

    def _answer(now: datetime) -> dict[str, Any]:
        return {"now": now, "driven": isinstance(clock, EventTimeClock)}

    @routes.get("/clock", openapi_extra=needs("read"))
    def read_clock() -> dict[str, Any]:
        """Say what time it is, and whether requests drive the clock."""
        return _answer(clock.now())

    @routes.post("/clock", openapi_extra=needs("clock:write"))
    def advance_clock(new: NewTime) -> dict[str, Any]:
        """Move the clock forward; an earlier time is ignored."""
        if not isinstance(clock, EventTimeClock):
            raise Conflict("This server follows the wall clock. Start it with MODELYARD_CLOCK=event to drive it.")
        return _answer(clock.advance(new.to))

    return routes

"""The event log over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Query

from modelyard.events import EventLog, RecordedEvent
from modelyard.events.audit import append_checkpoint, make_checkpoint, read_checkpoints, verify
from modelyard.events.clock import Clock
from modelyard.server.access import Caller, Routes, current_caller, needs
from modelyard.server.identity import allows

By = Annotated[Caller, Depends(current_caller)]


def history_routes(events: EventLog, *, keys: Path, wall_clock: Clock) -> Routes:
    """Build the routes of the event log.

    Args:
        events: The log.
        keys: Folder of the signing key and of the checkpoints, outside the database.
        wall_clock: Time that checkpoints state.
    """
    routes = Routes(tags=["history"])
    file, key = keys / "checkpoints.jsonl", keys / "audit.pem"

    @routes.get("/events", openapi_extra=needs("read"))
    def list_events(
        caller: By,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        subject: Annotated[str | None, Query(max_length=600)] = None,
        kind: Annotated[list[str] | None, Query()] = None,
        newest_first: bool = False,
    ) -> dict[str, Any]:
        """List events, oldest first unless asked otherwise; ``cursor`` continues the list.

        Whoever may read the audit log sees every project, everybody else the caller's own.
        """
        project = None if allows(caller.permissions, "audit:read") else caller.project
        found = events.read(
            after=after, limit=limit, subject=subject, project=project, kinds=kind or (), newest_first=newest_first
        )
        return {"events": [_event(row) for row in found], "cursor": found[-1].seq if found else after}

    @routes.post("/audit/verify", openapi_extra=needs("audit:read"))
    def verify_log() -> dict[str, Any]:
        """Check every row of the log and compare it with the signed checkpoints."""
        result = verify(events.database, checkpoints=read_checkpoints(file))
        return {**asdict(result), "intact": result.intact}

    @routes.post("/audit/checkpoint", status_code=201, openapi_extra=needs("audit:write"))
    def checkpoint() -> dict[str, Any]:
        """Sign the current state of the log; copy the answer to a place of its own."""
        made = make_checkpoint(events.database, key, at=wall_clock.now())
        append_checkpoint(file, made)
        return asdict(made)

    return routes


def _event(row: RecordedEvent) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "recorded_at": row.recorded_at,
        "hash": row.hash,
        **asdict(row.event),
    }

"""What every use case of tracking stands on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelyard.errors import Conflict, NotFound
from modelyard.events import Actor, Clock, Event, EventLog
from modelyard.storage import Database, NewId, Transaction, ulid
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import store
from modelyard.tracking.model import Run


class Parts:
    """Stores, log, clock and ids of the tracking service.

    Args:
        database: Metadata.
        event_log: Where each change of state is written, in its own transaction.
        clock: Source of event times.
        objects: Bytes of artifacts, by digest.
        series: Metric histories.
        new_id: Makes ids of experiments, runs and datasets.
    """

    def __init__(
        self,
        database: Database,
        event_log: EventLog,
        clock: Clock,
        *,
        objects: ObjectStore,
        series: SeriesStore,
        new_id: NewId = ulid,
    ) -> None:
        self.database = database
        self.objects = objects
        self._events = event_log
        self._clock = clock
        self._series = series
        self._new_id = new_id

    def _record(self, tx: Transaction, kind: str, subject: str, *, actor: Actor, **fields: Any) -> None:
        at: datetime = fields.pop("at", None) or self._clock.now()
        self._events.record(tx, Event(kind=kind, subject=subject, actor=actor.name, at=at, **fields))

    def _active_run(self, tx: Transaction, run_id: str) -> Run:
        run = store.run_of(tx.connection, run_id, lock=True)
        if run is None:
            raise NotFound("run", run_id)
        if run.lifecycle_stage != "active":
            raise Conflict(f"Run {run_id} is in the bin. Restore it before logging to it.", run_id=run_id)
        return run

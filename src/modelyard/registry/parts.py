"""What every use case of the registry stands on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelyard.errors import NotFound
from modelyard.events import Actor, Clock, Event, EventLog
from modelyard.registry import store
from modelyard.registry.model import RegisteredModel, Version, VersionLike
from modelyard.storage import Database, NewId, Transaction, ulid
from modelyard.storage.objects import ObjectStore
from modelyard.tracking import Tracking


class Parts:
    """Stores, log, clock and ids of the registry.

    Args:
        database: Metadata.
        event_log: Where each change of state is written, in its own transaction.
        clock: Source of event times.
        objects: Bytes of versions, by digest.
        tracking: Runs that versions come from.
        new_id: Makes ids of approvals.
    """

    def __init__(
        self,
        database: Database,
        event_log: EventLog,
        clock: Clock,
        *,
        objects: ObjectStore,
        tracking: Tracking,
        new_id: NewId = ulid,
    ) -> None:
        self.database = database
        self.objects = objects
        self._tracking = tracking
        self._events = event_log
        self._clock = clock
        self._new_id = new_id

    def _record(self, tx: Transaction, kind: str, subject: str, *, actor: Actor, **fields: Any) -> None:
        at: datetime = fields.pop("at", None) or self._clock.now()
        self._events.record(tx, Event(kind=kind, subject=subject, actor=actor.name, at=at, **fields))

    def _model(self, tx: Transaction, name: str, project: str) -> RegisteredModel:
        """Return a model and hold it: everything that changes it or its versions takes its turn."""
        found = store.model_of(tx.connection, project, name, lock=True)
        if found is None:
            raise NotFound("model", name)
        return found

    def _version(self, tx: Transaction, version: VersionLike) -> Version:
        """Return a version as it is now, and hold its model."""
        self._model(tx, version.model, version.project)
        condition = store.of_version(store.versions, version)
        found = store.versions_where(tx.connection, condition, limit=1)
        if not found:
            raise NotFound("version", f"{version.model}/{version.number}")
        return found[0]

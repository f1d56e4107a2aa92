"""Upkeep of the prediction log: sealing, retention and sweeping, each change with its one event."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from modelyard.errors import Unavailable
from modelyard.events import SYSTEM, Clock, Event, EventLog

if TYPE_CHECKING:
    from modelyard.storage import Transaction
    from modelyard.storage.predictions import FileChange, PredictionStore


class LogUpkeep:
    """Keeps the prediction log compact and as long as it is wanted.

    Args:
        predictions: The log.
        events: Where sealed and retired batches are recorded.
        clock: The injected clock: retention counts event time.
        keep: How long predictions are kept.
    """

    def __init__(self, predictions: PredictionStore, events: EventLog, clock: Clock, *, keep: timedelta) -> None:
        self._predictions = predictions
        self._events = events
        self._clock = clock
        self._keep = keep

    def seal(self) -> int:
        """Compact what is due; returns the number of sealed batches."""
        return len(self._predictions.seal(record=self._record_sealed))

    def retain(self) -> int:
        """Retire what is older than it is kept; returns the number of endpoints concerned."""
        return len(self._predictions.retain(self._clock.now() - self._keep, record=self._record_retired))

    def sweep(self) -> None:
        """Delete retired and abandoned files.

        Raises:
            Unavailable: If files that should be there are gone: the log has lost predictions.
        """
        missing = self._predictions.sweep().missing
        if missing:
            raise Unavailable(
                f"{len(missing)} files of the prediction log are gone, first {missing[0]}. Restore them from a backup."
            )

    def _record_sealed(self, tx: Transaction, change: FileChange) -> None:
        self._events.record(tx, self._event("predictions.sealed", change, after=_listed(change.added)))

    def _record_retired(self, tx: Transaction, change: FileChange) -> None:
        self._events.record(tx, self._event("predictions.retired", change, before=_listed(change.removed)))

    def _event(self, kind: str, change: FileChange, **fields: Any) -> Event:
        return Event(
            kind=kind,
            subject=f"endpoint:{change.endpoint}",
            actor=SYSTEM.name,
            at=self._clock.now(),
            project=change.project,
            data={"rows": change.rows},
            **fields,
        )


def _listed(files: Any) -> dict[str, Any]:
    return {"files": [{"path": file.path, "sha256": file.sha256, "rows": file.rows} for file in files]}

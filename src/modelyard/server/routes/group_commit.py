"""Group commit: batches that arrive while a transaction is being made durable share the next one."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from modelyard.errors import ModelyardError
from modelyard.events import Actor
from modelyard.tracking import Batch, Tracking

# Bounds how long a transaction holds the writer up: a batch has at most 1,000 entities.
_MOST = 64


@dataclass(slots=True, eq=False)
class _Entry:
    batch: Batch
    actor: Actor
    outcome: bool | ModelyardError | None = None


class GroupCommit:
    """Applies batches of many threads, each acknowledged only after its transaction is durable.

    The thread whose turn it is applies all batches that wait, its own among them; the others find theirs done.

    Args:
        tracking: The service.
    """

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._waiting: list[_Entry] = []
        self._adding = threading.Lock()
        self._turn = threading.Lock()

    def log(self, batch: Batch, *, actor: Actor) -> bool:
        """Apply a batch once; True if it was applied now, False if it had been before.

        Raises:
            ModelyardError: Why the service refused this batch; the others of its transaction are not touched.
        """
        entry = _Entry(batch, actor)
        with self._adding:
            self._waiting.append(entry)
        with self._turn:
            if entry.outcome is None:
                self._take_turn(entry)
        if isinstance(entry.outcome, ModelyardError):
            raise entry.outcome
        return bool(entry.outcome)

    def _take_turn(self, own: _Entry) -> None:
        with self._adding:
            others = [entry for entry in self._waiting if entry is not own and entry.actor == own.actor]
            group = [own, *others[: _MOST - 1]]
            self._waiting = [entry for entry in self._waiting if entry not in group]
        try:
            outcomes = self._tracking.log_batches([entry.batch for entry in group], actor=own.actor)
            for entry, outcome in zip(group, outcomes, strict=True):
                entry.outcome = outcome
        finally:
            # If the transaction failed as a whole, each of the others tries again on its own turn.
            with self._adding:
                self._waiting = [entry for entry in group[1:] if entry.outcome is None] + self._waiting

"""The injected clock.

Every fact has two times: *event time* (the data's own) and *recorded at* (the wall clock, the only one in the
chain). Windows, bakes, debounce, budgets and schedules read a ``Clock``, so that a replay can drive them.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Protocol

from modelyard.errors import Invalid


class Clock(Protocol):
    """Tells what time it is for everything that waits, looks back or counts a budget."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""
        ...


class SystemClock:
    """The wall clock."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)


class EventTimeClock:
    """A clock that somebody sets: it stands still between two calls of ``advance``, and never goes back.

    Args:
        start: The first time, aware.
    """

    def __init__(self, start: datetime) -> None:
        self._now = _aware(start)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the time that was last set."""
        return self._now

    def advance(self, to: datetime) -> datetime:
        """Move forward; an earlier time is ignored.

        Returns:
            The time after the call.
        """
        with self._lock:
            self._now = max(self._now, _aware(to))
            return self._now


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise Invalid(f"The clock needs a time with a zone, not {time.isoformat()!r}.")
    return time.astimezone(UTC)

"""One event log: if it is not in the log, it did not happen.

Each state change writes its event in the same transaction. High-volume data (metric points, predictions) are
covered by one event per sealed batch.
"""

from modelyard.events.audit import Audit, Checkpoint
from modelyard.events.canonical import canonical
from modelyard.events.clock import Clock, EventTimeClock, SystemClock
from modelyard.events.log import EventLog
from modelyard.events.model import DEFAULT_PROJECT, SYSTEM, Actor, Event, RecordedEvent

__all__ = [
    "DEFAULT_PROJECT",
    "SYSTEM",
    "Actor",
    "Audit",
    "Checkpoint",
    "Clock",
    "Event",
    "EventLog",
    "EventTimeClock",
    "RecordedEvent",
    "SystemClock",
    "canonical",
]

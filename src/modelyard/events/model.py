"""What an event is, and who causes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a person, a service account, or Modelyard itself.

    Attributes:
        name: Unique login name.
        roles: Access roles (viewer, contributor, deployer, approver, admin, auditor).
        labels: Governance labels that an approval may ask for (``risk``, ``validator``, any name).
    """

    name: str
    roles: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()


SYSTEM = Actor("modelyard", frozenset({"admin"}))


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state, as its author describes it.

    Attributes:
        kind: ``object.past_participle``, for example ``version.registered``.
        subject: ``kind:name`` of the object that changed, for example ``version:flight-delay/3``.
        actor: Name of who did it.
        at: Event time, aware UTC.
        before: The object's changed fields before, or None if it did not exist.
        after: The same fields after, or None if it no longer exists.
        data: Evidence: verdicts, numbers, reasons; JSON-compatible.
        project: Project of the object.
        chain: Name of the hash chain that holds it.
    """

    kind: str
    subject: str
    actor: str
    at: datetime
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    project: str = DEFAULT_PROJECT
    chain: str = "main"


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event in the log.

    Attributes:
        seq: Place in the chain, from 1, without gaps.
        recorded_at: Wall-clock time of the commit.
        previous_hash: Hex SHA-256 of the row before, 64 zeros for the first.
        hash: Hex SHA-256 over the previous hash and this row's canonical form.
        event: What happened.
    """

    seq: int
    recorded_at: datetime
    previous_hash: str
    hash: str
    event: Event

"""The event log: append in the change's own transaction, read by cursor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from modelyard.events.canonical import canonical
from modelyard.events.clock import Clock, SystemClock
from modelyard.events.model import Event, RecordedEvent
from modelyard.events.store import chains, cursors, events
from modelyard.storage import Database, Transaction

GENESIS = "0" * 64


class EventLog:
    """Tamper-evident log of every state change.

    Args:
        database: Where the events live, beside the state that they describe.
        wall_clock: Source of ``recorded_at``; always the wall clock outside tests.
    """

    def __init__(self, database: Database, *, wall_clock: Clock | None = None) -> None:
        self.database = database
        self._wall_clock = wall_clock or SystemClock()
        self._pending: WeakKeyDictionary[Transaction, list[Event]] = WeakKeyDictionary()

    def record(self, tx: Transaction, event: Event) -> None:
        """Add an event to the change's transaction.

        Its number is taken under the chain's lock as the last statement before commit, so a reader by cursor
        never meets a later number before an earlier one.
        """
        pending = self._pending.get(tx)
        if pending is None:
            pending = self._pending[tx] = []
            tx.before_commit.append(self._append)
        pending.append(event)

    def read(
        self,
        *,
        after: int = 0,
        limit: int = 1000,
        kinds: Sequence[str] = (),
        subject: str | None = None,
        project: str | None = None,
        chain: str = "main",
        newest_first: bool = False,
    ) -> list[RecordedEvent]:
        """Return at most ``limit`` events with a number greater than ``after``, oldest first by default."""
        query = sa.select(events).where(events.c.chain == chain, events.c.seq > after).limit(limit)
        query = query.order_by(events.c.seq.desc() if newest_first else events.c.seq)
        if kinds:
            query = query.where(events.c.kind.in_(kinds))
        if subject is not None:
            query = query.where(events.c.subject == subject)
        if project is not None:
            query = query.where(events.c.project == project)
        with self.database.reading() as connection:
            return [recorded(row) for row in connection.execute(query)]

    def cursor(self, subscriber: str, *, chain: str = "main") -> int:
        """Return the number of the last event that this subscriber has finished with, 0 if none."""
        query = sa.select(cursors.c.seq).where(cursors.c.subscriber == subscriber, cursors.c.chain == chain)
        with self.database.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def advance(self, tx: Transaction, subscriber: str, *, seq: int, chain: str = "main") -> None:
        """Remember, in the transaction of the subscriber's own effect, how far it has come."""
        tx.upsert(cursors, {"subscriber": subscriber, "chain": chain, "seq": seq})

    def _append(self, tx: Transaction) -> None:
        pending = self._pending.pop(tx)
        recorded_at = self._wall_clock.now()
        for chain in sorted({event.chain for event in pending}):
            seq, head = _lock_chain(tx, chain)
            rows = []
            for event in (event for event in pending if event.chain == chain):
                seq += 1
                body = canonical({"before": event.before, "after": event.after, "data": event.data}).decode()
                row: dict[str, Any] = {
                    "chain": chain,
                    "seq": seq,
                    "kind": event.kind,
                    "subject": event.subject,
                    "project": event.project,
                    "actor": event.actor,
                    "at": event.at,
                    "recorded_at": recorded_at,
                    "body": body,
                    "previous_hash": head,
                }
                head = row["hash"] = row_hash(row)
                rows.append(row)
            tx.execute(sa.insert(events), rows)
            tx.execute(sa.update(chains).where(chains.c.chain == chain).values(seq=seq, hash=head))


def row_hash(row: dict[str, Any]) -> str:
    """Return the hex SHA-256 of a row's canonical form, which includes the hash of the row before."""
    covered = {key: value for key, value in row.items() if key != "hash"}
    return hashlib.sha256(canonical(covered)).hexdigest()


def recorded(row: sa.Row[Any]) -> RecordedEvent:
    """Build an event from its row."""
    body = json.loads(row.body)
    at: datetime = row.at
    event = Event(
        kind=row.kind,
        subject=row.subject,
        actor=row.actor,
        at=at,
        before=body["before"],
        after=body["after"],
        data=body["data"],
        project=row.project,
        chain=row.chain,
    )
    return RecordedEvent(row.seq, row.recorded_at, row.previous_hash, row.hash, event)


def _lock_chain(tx: Transaction, chain: str) -> tuple[int, str]:
    tx.insert_if_absent(chains, {"chain": chain, "seq": 0, "hash": GENESIS})
    query = sa.select(chains.c.seq, chains.c.hash).where(chains.c.chain == chain).with_for_update()
    row = tx.execute(query).one()
    return int(row.seq), str(row.hash)

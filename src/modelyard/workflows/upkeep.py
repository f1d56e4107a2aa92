"""What time brings: deadlines, heartbeats, hand-over of written runs, adoption of dead executors' work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from modelyard.events import Clock
from modelyard.storage import Database
from modelyard.workflows import store
from modelyard.workflows.model import Definition, Ticked
from modelyard.workflows.transitions import Transitions

if TYPE_CHECKING:
    from modelyard.workflows.driver import Driver

_BATCH = 500
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


class Upkeep:
    """The regular duties of a process that runs workflows.

    Args:
        database: Where the rows are.
        transitions: The moves.
        definitions: Workflows by name.
        executor_id: Name of this process.
        clock: Judges deadlines.
        wall_clock: Judges heartbeats.
        lease_s: Seconds of silence after which an executor is taken for dead.
    """

    def __init__(
        self,
        database: Database,
        transitions: Transitions,
        *,
        definitions: Mapping[str, Definition],
        executor_id: str,
        clock: Clock,
        wall_clock: Clock,
        lease_s: float,
    ) -> None:
        self._database = database
        self._transitions = transitions
        self._definitions = definitions
        self._executor_id = executor_id
        self._clock = clock
        self._wall_clock = wall_clock
        self._lease = timedelta(seconds=lease_s)
        self._checked_at: datetime | None = None

    def expire(self) -> tuple[str, ...]:
        """Act on passed deadlines; return the runs."""
        with self._database.reading() as connection:
            due = store.due_waits(connection, now=self._clock.now(), limit=_BATCH)
        expired = []
        for wait in due:
            with self._database.transaction() as tx:
                run = store.run_row(tx.connection, wait.run_id, lock=True)
                current = store.open_wait(tx.connection, wait.run_id)
                if run is None or current is None or current.position != wait.position:
                    continue  # answered meanwhile
                self._transitions.expire(tx, run, current)
            expired.append(wait.run_id)
        return tuple(expired)

    def look_after(self, driver: Driver) -> Ticked:
        """Beat, adopt, restart what the engine has lost, and hand over what it does not have yet."""
        now = self._wall_clock.now()
        with self._database.transaction() as tx:
            store.beat(tx, self._executor_id, at=now)
        adopted = self._adopt(driver, now)
        if self._checked_at is None or now - self._checked_at >= self._lease:
            self._checked_at = now
            self._restart_lost(driver)
        with self._database.reading() as connection:
            rows = store.undispatched(connection, names=list(self._definitions), limit=_BATCH)
        for row in rows:
            self.dispatch(driver, row)
        return Ticked(dispatched=tuple(row.id for row in rows), adopted=adopted)

    def leave(self) -> None:
        """Say that this executor has ended: others adopt what it left at once, not after the lease."""
        with self._database.transaction() as tx:
            store.beat(tx, self._executor_id, at=_LONG_AGO)

    def dispatch(self, driver: Driver, row: sa.Row[Any]) -> None:
        """Hand a run's current segment to the engine; the same one again does nothing."""
        heavy = self._definitions[row.name].heavy
        driver.submit(row.id, row.segment, row.position, heavy=heavy, key=row.queue_key)
        with self._database.transaction() as tx:
            store.set_dispatched(tx, row.id, segment=row.segment)

    def _adopt(self, driver: Driver, now: datetime) -> tuple[str, ...]:
        since = now - self._lease
        with self._database.reading() as connection:
            silent = store.silent_executors(connection, since=since, limit=_BATCH)
        adopted = []
        for executor in silent:
            with self._database.transaction() as tx:
                claimed = store.claim_executor(tx, executor, by=self._executor_id, at=now, since=since)
            if not claimed:
                continue
            count = driver.adopt(executor)
            with self._database.transaction() as tx:
                store.forget_executor(tx, executor, by=self._executor_id)
            log.info("Took over %d segments of executor %s.", count, executor)
            adopted.append(executor)
        return tuple(adopted)

    def _restart_lost(self, driver: Driver) -> None:
        """Give a new segment to runs whose segment the engine has ended or does not know.

        That happens after its database was lost or restored, or when ours failed at the end of a step. Our
        row is read first: a segment that ended properly has moved its run on before the engine hears of it.
        """
        after = ""
        while True:
            with self._database.reading() as connection:
                rows = store.dispatched_segments(connection, after=after, limit=_BATCH)
            for run_id, number in driver.ended(rows):
                with self._database.transaction() as tx:
                    restarted = self._transitions.restart_segment(tx, run_id, segment=number)
                if restarted:
                    log.warning("Run %s had lost its segment %d; it goes on.", run_id, number)
            if len(rows) < _BATCH:
                return
            after = rows[-1][0]

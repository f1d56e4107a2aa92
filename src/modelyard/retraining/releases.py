"""Rows of releases: how far each is, and how it ended, each change once and with its event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from modelyard.errors import NotFound
from modelyard.events import SYSTEM, Clock, Event, EventLog
from modelyard.retraining import store
from modelyard.retraining.model import Recipe, Release, ReleaseState, Verdict
from modelyard.storage import Database, Transaction

MAX_PAGE = 500


class Releases:
    """Writes and reads releases.

    Args:
        database: Metadata.
        events: Log.
        clock: Event time.
    """

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    def begin_in(
        self, tx: Transaction, release_id: str, recipe: Recipe, *, trigger_id: str | None = None, **known: Any
    ) -> None:
        """Add a release unless it is there."""
        row = {
            "id": release_id,
            "project": recipe.project,
            "model": recipe.model,
            "endpoint": recipe.endpoint,
            "state": "training",
            "started_at": self._clock.now(),
            "trigger_id": trigger_id,
            **known,
        }
        tx.insert_if_absent(store.releases, row)

    def begin(self, release_id: str, recipe: Recipe, state: Mapping[str, Any]) -> None:
        """Add a release that no trigger has started, a run retried from a step, with what its state knows."""
        with self._database.reading() as connection:
            if store.release_row(connection, release_id) is not None:
                return
        known = {"run_id": state.get("run"), "version": state.get("version"), "champion": state.get("champion")}
        with self._database.transaction() as tx:
            self.begin_in(tx, release_id, recipe, **known)

    def note(self, release_id: str, **values: Any) -> None:
        """Remember facts of a release that goes on, such as its run or its version; not worth an event."""
        with self._database.transaction() as tx:
            store.update_release(tx, release_id, **values)

    def judged(self, release_id: str, gates: Mapping[str, Any]) -> None:
        """Write down what the gates said."""
        with self._database.transaction() as tx:
            release = self._locked(tx, release_id)
            if (release.evidence or {}).get("gates") is not None:
                return
            evidence = {**(release.evidence or {}), "gates": gates}
            store.update_release(tx, release_id, evidence=evidence)
            self._record(tx, "release.judged", release, after={"passed": gates["passed"]}, data=gates)

    def move(self, release_id: str, state: ReleaseState, **values: Any) -> None:
        """Bring a release to its next state."""
        with self._database.transaction() as tx:
            release = self._locked(tx, release_id)
            if release.state in {state, "concluded"}:
                return
            store.update_release(tx, release_id, state=state, **values)
            self._record(tx, "release.moved", release, after={"state": state}, data=values)

    def conclude(
        self, release_id: str, verdict: Verdict, sentence: str, *, evidence: Mapping[str, Any] | None = None
    ) -> bool:
        """End a release.

        Args:
            release_id: Which.
            verdict: How it ended.
            sentence: The same for a manager.
            evidence: Added to what is known.

        Returns:
            False if it had ended before; nothing changes then.
        """
        with self._database.transaction() as tx:
            release = self._locked(tx, release_id)
            if release.verdict is not None:
                return False
            whole = {**(release.evidence or {}), **(evidence or {})}
            store.update_release(
                tx,
                release_id,
                state="concluded",
                verdict=verdict,
                sentence=sentence,
                evidence=whole,
                concluded_at=self._clock.now(),
            )
            data = {"verdict": verdict, "sentence": sentence, **self._facts(release), "evidence": whole}
            self._record(tx, "release.concluded", release, after={"state": "concluded", "verdict": verdict}, data=data)
            return True

    def get(self, release_id: str) -> Release:
        """Return a release.

        Raises:
            NotFound: If there is none.
        """
        with self._database.reading() as connection:
            found = store.release_row(connection, release_id)
        if found is None:
            raise NotFound("release", release_id)
        return found

    def list(self, *conditions: sa.ColumnElement[bool], limit: int = 50) -> list[Release]:
        """Return at most ``limit`` releases, newest first."""
        with self._database.reading() as connection:
            return store.releases_where(connection, *conditions, limit=min(limit, MAX_PAGE))

    def _locked(self, tx: Transaction, release_id: str) -> Release:
        found = store.release_row(tx.connection, release_id, lock=True)
        if found is None:
            raise NotFound("release", release_id)
        return found

    def _facts(self, release: Release) -> dict[str, Any]:
        return {
            "release": release.id,
            "run": release.run_id,
            "version": release.version,
            "champion": release.champion,
            "started_at": release.started_at.isoformat(),
        }

    def _record(
        self, tx: Transaction, kind: str, release: Release, *, after: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        event = Event(
            kind=kind,
            subject=f"release:{release.id}",
            actor=SYSTEM.name,
            at=self._clock.now(),
            before={"state": release.state},
            after=after,
            data={"model": release.model, "endpoint": release.endpoint, **data},
            project=release.project,
        )
        self._events.record(tx, event)

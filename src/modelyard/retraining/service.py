"""The service: recipes, triggers, and everything that makes the loop go round by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from modelyard.criteria import Facts, decide
from modelyard.errors import Invalid, ModelyardError, NotFound
from modelyard.events import DEFAULT_PROJECT, SYSTEM, Actor, Clock, Event, EventLog
from modelyard.retraining import store
from modelyard.retraining.cron import Schedule
from modelyard.retraining.gates import parse_gates
from modelyard.retraining.model import Recipe, Release, TriggerDecision, TriggerEvent, TriggerSource, duration
from modelyard.retraining.release import WORKFLOW
from modelyard.retraining.releases import MAX_PAGE, Releases
from modelyard.retraining.snapshot import count_rows
from modelyard.retraining.triggers import History, TriggerFacts, judge_trigger
from modelyard.storage import Database, NewId, Transaction, ulid
from modelyard.storage.objects import ObjectStore
from modelyard.workflows import Engine, Start

MonitoredFacts = Callable[[Recipe, datetime], "Facts | None"]
"""Returns what monitoring knows about a recipe's endpoint at a time; None if nothing is watched."""

_SOURCES: tuple[TriggerSource, ...] = ("alert", "condition", "schedule", "manual")
_STARTS_READ = 1_001  # one more than the largest daily budget
_MAX_KEY = 500


class Retraining:
    """Declares recipes and answers triggers; one trigger starts at most one release.

    Args:
        database: Metadata.
        events: Log.
        clock: Debounce, budget, cool-down and schedules are judged by it.
        objects: Where packed projects are.
        engine: Runs releases.
        releases: Rows of releases.
        monitored: What monitoring knows, for conditions; None without monitoring.
        new_id: Makes ids of triggers.
    """

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        *,
        objects: ObjectStore,
        engine: Engine,
        releases: Releases,
        monitored: MonitoredFacts | None = None,
        new_id: NewId = ulid,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._objects = objects
        self._engine = engine
        self.releases = releases
        self._monitored = monitored
        self._new_id = new_id

    def declare(self, recipe: Recipe, *, actor: Actor) -> bool:
        """Write down how a model is trained and released; the same again changes nothing.

        Returns:
            Whether something changed.

        Raises:
            NotFound: If the packed project is not in the object store.
            Invalid: If a gate has a wrong form.
        """
        parse_gates(recipe.gates)
        if not self._objects.exists(recipe.code_digest):
            raise NotFound("object", recipe.code_digest, hint="Store the packed project first.")
        document = recipe.to_json()
        with self._database.transaction() as tx:
            before = store.recipe_row(tx.connection, recipe.project, recipe.model, lock=True)
            if before is not None and before.recipe == document:
                return False
            now = self._clock.now()
            same = before is not None and store.recipe_of(before).retrain.every == recipe.retrain.every
            row = {
                "project": recipe.project,
                "model": recipe.model,
                "endpoint": recipe.endpoint,
                "recipe": document,
                "code_digest": recipe.code_digest,
                "root": recipe.root,
                "declared_by": recipe.declared_by,
                "declared_at": now,
                "scheduled_at": before.scheduled_at if before is not None and same else now,
            }
            tx.upsert(store.recipes, row)
            self._record(
                tx,
                "recipe.declared",
                recipe,
                actor=actor,
                before=None if before is None else before.recipe,
                after=document,
            )
            return True

    def recipe(self, model: str, *, project: str = DEFAULT_PROJECT) -> Recipe:
        """Return the recipe of a model.

        Raises:
            NotFound: If none is declared.
        """
        with self._database.reading() as connection:
            row = store.recipe_row(connection, project, model)
        if row is None:
            raise NotFound("recipe for model", model, hint="Declare it with: modelyard apply")
        return store.recipe_of(row)

    def recipes(self, *, project: str = DEFAULT_PROJECT, after: str = "", limit: int = 100) -> list[Recipe]:
        """Return at most ``limit`` recipes of a project by model, those after a name."""
        with self._database.reading() as connection:
            rows = store.recipe_rows(
                connection, store.recipes.c.project == project, after=(project, after), limit=min(limit, MAX_PAGE)
            )
        return [store.recipe_of(row) for row in rows]

    def recipes_of_endpoint(self, endpoint: str, *, project: str = DEFAULT_PROJECT) -> list[Recipe]:
        """Return the recipes whose versions an endpoint serves."""
        named = sa.and_(store.recipes.c.project == project, store.recipes.c.endpoint == endpoint)
        with self._database.reading() as connection:
            return [store.recipe_of(row) for row in store.recipe_rows(connection, named, limit=MAX_PAGE)]

    def trigger(
        self,
        source: TriggerSource,
        model: str,
        *,
        dedup_key: str,
        actor: Actor,
        payload: Mapping[str, Any] | None = None,
        project: str = DEFAULT_PROJECT,
    ) -> TriggerEvent:
        """Ask for a training, once per key; the release, if any, begins with the commit.

        Args:
            source: What asks.
            model: Which model.
            dedup_key: What may ask once only, with its time window.
            actor: Who asks; for ``manual`` also who may not approve what comes out.
            payload: Evidence; JSON-compatible.
            project: The project.

        Returns:
            The trigger with its decision; for a known key the one of the first call.

        Raises:
            NotFound: If the model has no recipe.
            Invalid: If the source or the key has a wrong form.
        """
        if source not in _SOURCES:
            raise Invalid(f"A training is asked for by {', '.join(_SOURCES)}, not {source!r}.")
        if not 0 < len(dedup_key) <= _MAX_KEY:
            raise Invalid(f"A dedup key has 1 to {_MAX_KEY} characters.")
        with self._database.transaction() as tx:
            recipe = self._held(tx, model, project)
            known = store.trigger_row(tx.connection, project, model, dedup_key)
            if known is not None:
                return known
            asked = TriggerEvent(
                id=self._new_id(),
                project=project,
                model=model,
                source=source,
                dedup_key=dedup_key,
                payload=dict(payload or {}),
                actor=actor.name,
                at=self._clock.now(),
                decision=self._judge(tx.connection, recipe, source),
                workflow_id=None,
            )
            decided = self._answer(tx, recipe, asked)
            row = {**_columns(decided), "started_at": asked.at if decided.workflow_id else None}
            tx.execute(sa.insert(store.trigger_events).values(**row))
            return decided

    def simulate(self, source: TriggerSource, model: str, *, project: str = DEFAULT_PROJECT) -> TriggerDecision:
        """Return what a trigger would lead to now, without asking.

        Raises:
            NotFound: If the model has no recipe.
        """
        recipe = self.recipe(model, project=project)
        with self._database.reading() as connection:
            return self._judge(connection, recipe, source)

    def triggers(
        self, model: str, *, project: str = DEFAULT_PROJECT, before: str | None = None, limit: int = 50
    ) -> list[TriggerEvent]:
        """Return at most ``limit`` triggers of a model, newest first, those before an id."""
        table = store.trigger_events.c
        conditions = [table.project == project, table.model == model]
        if before is not None:
            conditions.append(table.id < before)
        with self._database.reading() as connection:
            return store.triggers_where(connection, *conditions, limit=min(limit, MAX_PAGE))

    def releases_of(self, model: str, *, project: str = DEFAULT_PROJECT, limit: int = 50) -> list[Release]:
        """Return at most ``limit`` releases of a model, newest first."""
        table = store.releases.c
        return self.releases.list(table.project == project, table.model == model, limit=limit)

    def pinned_digests(self) -> set[str]:
        """Return the packed projects that recipes name: a collection must keep them."""
        with self._database.reading() as connection:
            return set(connection.execute(sa.select(store.recipes.c.code_digest)).scalars())

    def judge_deferred(self, *, limit: int = 100) -> list[TriggerEvent]:
        """Judge deferred triggers whose time has come again.

        Returns:
            Those that are not deferred any more.
        """
        now = self._clock.now()
        with self._database.reading() as connection:
            due = store.due_triggers(connection, now, limit=limit)
        decided = [self._judge_again(asked, now) for asked in due]
        return [each for each in decided if each is not None and each.decision.answer != "deferred"]

    def drop_deferred(self, *, project: str, alert: str, reason: str) -> int:
        """Drop deferred triggers of an alert that has resolved; return how many."""
        table = store.trigger_events.c
        conditions = (table.project == project, table.source == "alert", table.decision == "deferred")
        with self._database.transaction() as tx:
            waiting = store.triggers_where(tx.connection, *conditions, limit=MAX_PAGE)
            found = [each for each in waiting if each.payload.get("alert") == alert]
            for each in found:
                recipe = self._held(tx, each.model, project)
                decision = TriggerDecision("dropped", reason)
                store.set_decision(tx, each.id, decision="dropped", reason=reason, due_at=None)
                self._record_decision(tx, recipe, replace(each, decision=decision))
            return len(found)

    def run_schedules(self) -> list[TriggerEvent]:
        """Start what the schedules ask for; of several missed moments only the last counts."""
        fired = []
        for row in self._every_recipe():
            recipe, now = store.recipe_of(row), self._clock.now()
            if recipe.retrain.every is None:
                continue
            moment = Schedule.parse(recipe.retrain.every).latest(row.scheduled_at, now)
            if moment is None:
                continue
            text = moment.isoformat(timespec="minutes")
            fired.append(
                self.trigger(
                    "schedule",
                    recipe.model,
                    dedup_key=f"schedule/{text}",
                    actor=SYSTEM,
                    payload={"every": recipe.retrain.every, "moment": text},
                    project=recipe.project,
                )
            )
            with self._database.transaction() as tx:
                key = (store.recipes.c.project == recipe.project, store.recipes.c.model == recipe.model)
                tx.execute(sa.update(store.recipes).where(*key).values(scheduled_at=moment))
        return fired

    def check_conditions(self) -> list[TriggerEvent]:
        """Decide every recipe's conditions; one that holds asks once per debounce."""
        fired = []
        for row in self._every_recipe():
            recipe, now = store.recipe_of(row), self._clock.now()
            if not recipe.retrain.conditions:
                continue
            monitored = None if self._monitored is None else self._monitored(recipe, now)
            facts = TriggerFacts(new_rows=self.new_rows(recipe), monitored=monitored)
            turn = int(now.timestamp() // duration(recipe.retrain.debounce).total_seconds())
            for text, condition in recipe.retrain.conditions:
                verdict = decide(condition, facts)
                if verdict.holds:
                    fired.append(
                        self.trigger(
                            "condition",
                            recipe.model,
                            dedup_key=f"condition/{text[:400]}/{turn}",
                            actor=SYSTEM,
                            payload={"condition": text, "verdict": verdict.to_json()},
                            project=recipe.project,
                        )
                    )
        return fired

    def new_rows(self, recipe: Recipe) -> int | None:
        """Return how many rows the data source has gained since the last training, None if that is not known."""
        table = store.releases.c
        trained = self.releases.list(
            table.project == recipe.project, table.model == recipe.model, table.source_rows.is_not(None), limit=1
        )
        if not trained or trained[0].source_rows is None:
            return None
        try:
            now = count_rows(recipe.source, None if recipe.root is None else Path(recipe.root))
        except ModelyardError:
            return None  # the files are not there now; a training would say so
        return max(0, now - trained[0].source_rows)

    def _every_recipe(self) -> list[sa.Row[Any]]:
        rows: list[sa.Row[Any]] = []
        with self._database.reading() as connection:
            while True:
                after = (rows[-1].project, rows[-1].model) if rows else ("", "")
                page = store.recipe_rows(connection, after=after, limit=MAX_PAGE)
                rows += page
                if len(page) < MAX_PAGE:
                    return rows

    def _held(self, tx: Transaction, model: str, project: str) -> Recipe:
        """Return a recipe and hold it: triggers of a model take their turn."""
        row = store.recipe_row(tx.connection, project, model, lock=True)
        if row is None:
            raise NotFound("recipe for model", model, hint="Declare it with: modelyard apply")
        return store.recipe_of(row)

    def _judge(self, connection: sa.Connection, recipe: Recipe, source: TriggerSource) -> TriggerDecision:
        table = store.releases.c
        open_ones = store.releases_where(
            connection,
            table.project == recipe.project,
            table.model == recipe.model,
            table.state.in_(("training", "rolling_out")),
            limit=1,
        )
        history = History(
            started=store.started_times(connection, recipe.project, recipe.model, limit=_STARTS_READ),
            concluded=store.last_concluded(connection, recipe.project, recipe.model),
            running=open_ones[0].id if open_ones else None,
        )
        return judge_trigger(recipe.retrain, history, source=source, now=self._clock.now())

    def _judge_again(self, asked: TriggerEvent, now: datetime) -> TriggerEvent | None:
        with self._database.transaction() as tx:
            recipe = self._held(tx, asked.model, asked.project)
            decision = self._judge(tx.connection, recipe, asked.source)
            if decision.answer == "deferred":
                # Not worth another event: it still waits.
                due = max(decision.due_at or now, now + timedelta(minutes=1))
                store.set_decision(tx, asked.id, reason=decision.reason, due_at=due)
                return None
            values = {"decision": decision.answer, "reason": decision.reason, "due_at": None}
            if not store.set_decision(tx, asked.id, **values):
                return None
            decided = self._answer(tx, recipe, replace(asked, decision=decision))
            if decided.workflow_id is not None:
                condition = store.trigger_events.c.id == asked.id
                started = {"workflow_id": decided.workflow_id, "started_at": now}
                tx.execute(sa.update(store.trigger_events).where(condition).values(**started))
            return decided

    def _answer(self, tx: Transaction, recipe: Recipe, asked: TriggerEvent) -> TriggerEvent:
        """Start the release that a decision asks for, and record the decision."""
        if asked.decision.answer == "started":
            release = f"release-{asked.id}"
            self.releases.begin_in(tx, release, recipe, trigger_id=asked.id)
            request = Start(
                WORKFLOW,
                {
                    "recipe": recipe.to_json(),
                    "trigger": asked.id,
                    "requested_by": asked.actor if asked.source == "manual" else recipe.declared_by,
                },
                workflow_id=release,
                queue_key=f"{recipe.project}/{recipe.model}",
                project=recipe.project,
                subject=f"model:{recipe.model}",
            )
            self._engine.start_in(tx, request, actor=Actor(asked.actor))
            asked = replace(asked, workflow_id=release)
        self._record_decision(tx, recipe, asked)
        return asked

    def _record_decision(self, tx: Transaction, recipe: Recipe, asked: TriggerEvent) -> None:
        data = {
            "trigger": asked.id,
            "source": asked.source,
            "dedup_key": asked.dedup_key,
            "payload": asked.payload,
            "reason": asked.decision.reason,
            "release": asked.workflow_id,
        }
        after = {"decision": asked.decision.answer, "due_at": _iso(asked.decision.due_at)}
        self._record(tx, "trigger.decided", recipe, actor=Actor(asked.actor), before=None, after=after, data=data)

    def _record(self, tx: Transaction, kind: str, recipe: Recipe, *, actor: Actor, **fields: Any) -> None:
        event = Event(
            kind=kind,
            subject=f"model:{recipe.model}",
            actor=actor.name,
            at=self._clock.now(),
            project=recipe.project,
            **fields,
        )
        self._events.record(tx, event)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _columns(asked: TriggerEvent) -> dict[str, Any]:
    plain = {name: value for name, value in asdict(asked).items() if name != "decision"}
    decision = asked.decision
    return {**plain, "decision": decision.answer, "reason": decision.reason, "due_at": decision.due_at}

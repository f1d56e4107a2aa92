"""Use cases of experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from modelyard.errors import Conflict, Invalid, NotFound
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.storage import Transaction
from modelyard.tracking import model, store
from modelyard.tracking.keys import check_text, clean_name
from modelyard.tracking.model import Experiment, LifecycleStage
from modelyard.tracking.parts import Parts

DEFAULT_EXPERIMENT = "Default"
# MLflow clients expect an experiment "Default" with this id on a fresh server.
DEFAULT_EXPERIMENT_ID = "0"


class Experiments(Parts):
    """Creates, finds, changes and bins experiments."""

    def create_experiment(
        self,
        name: str,
        *,
        actor: Actor,
        project: str = DEFAULT_PROJECT,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """Create an experiment.

        Raises:
            Conflict: If the project has one of this name, in the bin or not.
            Invalid: If the name or a tag is not usable.
        """
        with self.database.transaction() as tx:
            created = self._create_experiment(tx, name, actor=actor, project=project, tags=tags)
            if created is None:
                raise Conflict(f"Project {project!r} has an experiment {name!r} already.", name=name)
            return created

    def ensure_experiment(
        self, name: str = DEFAULT_EXPERIMENT, *, actor: Actor, project: str = DEFAULT_PROJECT
    ) -> Experiment:
        """Return the experiment of this name, creating it if there is none.

        Raises:
            Conflict: If it is in the bin.
        """
        with self.database.transaction() as tx:
            return self._ensure_experiment(tx, name, actor=actor, project=project)

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment by id.

        Raises:
            NotFound: If there is none.
        """
        with self.database.reading() as connection:
            found = store.experiment_of(connection, store.experiments.c.id == experiment_id)
        if found is None:
            raise NotFound("experiment", experiment_id)
        return found

    def find_experiment(self, name: str, *, project: str = DEFAULT_PROJECT) -> Experiment | None:
        """Return an experiment by name, in the bin or not, or None."""
        with self.database.reading() as connection:
            return store.experiment_of(connection, _named(project, name))

    def list_experiments(
        self,
        *,
        project: str = DEFAULT_PROJECT,
        lifecycle_stage: LifecycleStage | None = "active",
        after: str = "",
        limit: int = 1000,
    ) -> list[Experiment]:
        """Return at most ``limit`` experiments by name, those after the name ``after``."""
        with self.database.reading() as connection:
            return store.experiment_page(
                connection,
                project=project,
                stage=lifecycle_stage,
                after=after,
                limit=min(limit, model.MAX_PAGE),
            )

    def update_experiment(
        self,
        experiment_id: str,
        *,
        actor: Actor,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
        lifecycle_stage: LifecycleStage | None = None,
    ) -> Experiment:
        """Rename, tag, bin (``lifecycle_stage="deleted"``) or restore an experiment.

        Raises:
            NotFound: If there is no such experiment.
            Conflict: If another one has the new name.
        """
        table = store.experiments
        with self.database.transaction() as tx:
            before = store.experiment_of(tx.connection, table.c.id == experiment_id)
            if before is None:
                raise NotFound("experiment", experiment_id)
            new_name = before.name if name is None else _checked(name)
            stage = lifecycle_stage or before.lifecycle_stage
            if stage not in {"active", "deleted"}:
                raise Invalid(f"An experiment is active or deleted, not {stage!r}.")
            if new_name != before.name and store.experiment_of(tx.connection, _named(before.project, new_name)):
                raise Conflict(f"Project {before.project!r} has an experiment {new_name!r} already.")
            change = {"name": new_name, "lifecycle_stage": stage, "updated_at": self._clock.now()}
            tx.execute(sa.update(table).where(table.c.id == experiment_id).values(**change))
            _write_tags(tx, experiment_id, tags or {}, remove=remove_tags)
            after = store.experiment_of(tx.connection, table.c.id == experiment_id)
            if after is None:  # pragma: no cover - the row was read above in the same transaction
                raise NotFound("experiment", experiment_id)
            self._record(
                tx,
                "experiment.updated",
                f"experiment:{experiment_id}",
                actor=actor,
                project=before.project,
                before=_facts(before),
                after=_facts(after),
            )
            return after

    def _ensure_experiment(self, tx: Transaction, name: str, *, actor: Actor, project: str) -> Experiment:
        found = store.experiment_of(tx.connection, _named(project, name))
        if found is None:
            # On PostgreSQL another client may have created it since: then it is there to be read now.
            found = self._create_experiment(tx, name, actor=actor, project=project) or store.experiment_of(
                tx.connection, _named(project, name)
            )
        if found is None or found.lifecycle_stage != "active":
            raise Conflict(f"Experiment {name!r} is in the bin. Restore it or choose another name.", name=name)
        return found

    def _create_experiment(
        self,
        tx: Transaction,
        name: str,
        *,
        actor: Actor,
        project: str,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment | None:
        now = self._clock.now()
        first = name == DEFAULT_EXPERIMENT and project == DEFAULT_PROJECT
        row = {
            "id": DEFAULT_EXPERIMENT_ID if first else self._new_id(),
            "project": clean_name("project", project, limit=model.MAX_ENTITY_KEY),
            "name": _checked(name),
            "lifecycle_stage": "active",
            "created_by": actor.name,
            "created_at": now,
            "updated_at": now,
        }
        if not tx.insert_if_absent(store.experiments, row):
            return None
        _write_tags(tx, str(row["id"]), tags or {})
        experiment = store.experiment_of(tx.connection, store.experiments.c.id == row["id"])
        if experiment is not None:
            self._record(
                tx,
                "experiment.created",
                f"experiment:{experiment.id}",
                actor=actor,
                project=project,
                after=_facts(experiment),
            )
        return experiment


def _named(project: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(store.experiments.c.project == project, store.experiments.c.name == name)


def _checked(name: str) -> str:
    return clean_name("experiment name", name, limit=model.MAX_EXPERIMENT_NAME)


def _write_tags(tx: Transaction, experiment_id: str, tags: Mapping[str, str], *, remove: Iterable[str] = ()) -> None:
    table = store.experiment_tags
    for key, value in tags.items():
        clean_name("tag name", key, limit=model.MAX_ENTITY_KEY)
        check_text(f"value of tag {key!r}", value, limit=model.MAX_EXPERIMENT_TAG_VALUE)
        tx.upsert(table, {"experiment_id": experiment_id, "key": key, "value": value})
    for key in remove:
        tx.execute(sa.delete(table).where(table.c.experiment_id == experiment_id, table.c.key == key))


def _facts(experiment: Experiment) -> dict[str, object]:
    return {
        "name": experiment.name,
        "lifecycle_stage": experiment.lifecycle_stage,
        "tags": dict(experiment.tags),
    }

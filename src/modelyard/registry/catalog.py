"""Use cases of registered models: create, describe, tag, list, delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from modelyard.errors import Conflict, NotFound
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.registry import model as limits
from modelyard.registry import store
from modelyard.registry.model import RegisteredModel, model_name
from modelyard.registry.parts import Parts
from modelyard.storage import Transaction
from modelyard.tracking import check_text, clean_name


class Catalog(Parts):
    """Creates, describes, tags, lists and deletes models."""

    def create_model(
        self,
        name: str,
        *,
        actor: Actor,
        project: str = DEFAULT_PROJECT,
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> RegisteredModel:
        """Create a model.

        A name that was deleted before may be used again; numbers go on where they stopped, so that a number
        never names two contents.

        Raises:
            Conflict: If the project has a model of this name.
            Invalid: If the name is not usable.
        """
        with self.database.transaction() as tx:
            if not self._create_model(
                tx, name, actor=actor, project=project, description=description, owner=owner, tags=tags
            ):
                raise Conflict(f"Project {project!r} has a model {name!r} already.", name=name)
            return self._model(tx, name, project)

    def get_model(self, name: str, *, project: str = DEFAULT_PROJECT) -> RegisteredModel:
        """Return a model.

        Raises:
            NotFound: If there is none; the message names the most similar one.
        """
        with self.database.reading() as connection:
            found = store.model_of(connection, project, name)
            if found is None:
                known = store.model_page(connection, project, after="", limit=limits.MAX_PAGE)
                raise NotFound("model", name, known=[each.name for each in known])
        return found

    def list_models(
        self, *, project: str = DEFAULT_PROJECT, after: str = "", limit: int = 100
    ) -> list[RegisteredModel]:
        """Return at most ``limit`` models by name, those after the name ``after``."""
        with self.database.reading() as connection:
            return store.model_page(connection, project, after=after, limit=min(limit, limits.MAX_PAGE))

    def update_model(
        self,
        name: str,
        *,
        actor: Actor,
        project: str = DEFAULT_PROJECT,
        description: str | None = None,
        owner: str | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
    ) -> RegisteredModel:
        """Describe or tag a model, or say who answers for it.

        Raises:
            NotFound: If there is no such model.
        """
        with self.database.transaction() as tx:
            before = self._model(tx, name, project)
            change: dict[str, object] = {"updated_at": self._clock.now()}
            if description is not None:
                change["description"] = check_text("description", description, limit=limits.MAX_DESCRIPTION)
            if owner is not None:
                change["owner"] = check_text("owner", owner, limit=limits.MAX_MODEL_NAME)
            condition = sa.and_(store.models.c.project == project, store.models.c.name == name)
            tx.execute(sa.update(store.models).where(condition).values(**change))
            key = {"project": project, "model": name}
            write_tags(tx, store.model_tags, key, set_to=tags or {}, remove=remove_tags)
            after = self._model(tx, name, project)
            self._record(
                tx,
                "model.updated",
                f"model:{name}",
                actor=actor,
                project=project,
                before=_facts(before),
                after=_facts(after),
            )
            return after

    def delete_model(self, name: str, *, actor: Actor, project: str = DEFAULT_PROJECT, reason: str = "") -> None:
        """Delete a model and its versions; rows and history stay as a tombstone.

        Raises:
            NotFound: If there is no such model.
            Conflict: If a version is in production or an endpoint serves the model.
        """
        with self.database.transaction() as tx:
            model = self._model(tx, name, project)
            serving = store.of_model(store.endpoints, project, name)
            if tx.execute(sa.select(store.endpoints.c.endpoint).where(serving)).first():
                raise Conflict(f"An endpoint serves model {name!r}. Delete the endpoint first.", name=name)
            of_model = store.of_model(store.versions, project, name)
            producing = sa.and_(of_model, store.versions.c.stage == "production")
            if tx.execute(sa.select(store.versions.c.number).where(producing)).first():
                raise Conflict(f"A version of {name!r} is in production. Archive it first.", name=name)
            now = self._clock.now()
            living = sa.and_(of_model, store.versions.c.deleted_at.is_(None))
            tx.execute(sa.update(store.versions).where(living).values(deleted_at=now))
            condition = sa.and_(store.models.c.project == project, store.models.c.name == name)
            tx.execute(sa.update(store.models).where(condition).values(deleted_at=now))
            for table in (store.aliases, store.rules, store.model_tags):
                tx.execute(sa.delete(table).where(store.of_model(table, project, name)))
            self._record(
                tx,
                "model.deleted",
                f"model:{name}",
                actor=actor,
                project=project,
                before=_facts(model),
                data={"reason": reason},
            )

    def _create_model(
        self,
        tx: Transaction,
        name: str,
        *,
        actor: Actor,
        project: str,
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """Create a model, or revive a deleted one; False if there is one."""
        now = self._clock.now()
        row = {
            "description": check_text("description", description, limit=limits.MAX_DESCRIPTION),
            "owner": check_text("owner", owner, limit=limits.MAX_MODEL_NAME),
            "created_by": actor.name,
            "created_at": now,
            "updated_at": now,
        }
        key = {"project": clean_name("project", project, limit=limits.MAX_MODEL_NAME), "name": model_name(name)}
        if not tx.insert_if_absent(store.models, {**key, **row, "last_number": 0}):
            table = store.models.c
            gone = sa.and_(table.project == project, table.name == name, table.deleted_at.is_not(None))
            revived = tx.execute(sa.update(store.models).where(gone).values(**row, deleted_at=None))
            if revived.rowcount == 0:
                return False
        write_tags(tx, store.model_tags, {"project": project, "model": name}, set_to=tags or {})
        after = {"description": description, "owner": owner, "tags": dict(tags or {})}
        self._record(tx, "model.created", f"model:{name}", actor=actor, project=project, after=after)
        return True


def write_tags(
    tx: Transaction,
    table: sa.Table,
    key: Mapping[str, object],
    *,
    set_to: Mapping[str, str],
    remove: Iterable[str] = (),
) -> None:
    """Write and remove tags of a model or version."""
    for name, value in set_to.items():
        clean_name("tag name", name, limit=250)
        check_text(f"value of tag {name!r}", value, limit=limits.MAX_TAG_VALUE)
        tx.upsert(table, {**key, "key": name, "value": value})
    owner = [table.c[column] == value for column, value in key.items()]
    for name in remove:
        tx.execute(sa.delete(table).where(*owner, table.c.key == name))


def _facts(model: RegisteredModel) -> dict[str, object]:
    return {"description": model.description, "owner": model.owner, "tags": dict(model.tags)}

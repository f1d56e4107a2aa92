"""Use cases of aliases: names that people move from version to version, with their history."""

from __future__ import annotations

import sqlalchemy as sa

from modelyard.errors import NotFound
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.registry import store
from modelyard.registry.model import MAX_PAGE, AliasChange, VersionLike, alias_name
from modelyard.registry.versions import Versions


class Aliases(Versions):
    """Sets, removes and lists aliases."""

    def set_alias(self, version: VersionLike, alias: str, *, actor: Actor) -> None:
        """Let an alias name this version from now on.

        Raises:
            NotFound: If there is no such version.
            Invalid: If the alias is not usable.
        """
        alias_name(alias)
        with self.database.transaction() as tx:
            current = self._version(tx, version)
            before = self._number(tx.connection, current.model, alias, current.project)
            if before == current.number:
                return
            self._point(tx, current.model, alias, current.number, actor=actor, project=current.project)
            self._record(
                tx,
                "alias.set",
                f"model:{current.model}",
                actor=actor,
                project=current.project,
                before={"alias": alias, "version": before},
                after={"alias": alias, "version": current.number},
            )

    def remove_alias(self, model: str, alias: str, *, actor: Actor, project: str = DEFAULT_PROJECT) -> None:
        """Let an alias name nothing any more.

        Raises:
            NotFound: If the model has no such alias.
        """
        with self.database.transaction() as tx:
            self._model(tx, model, project)
            before = self._number(tx.connection, model, alias, project)
            if before is None:
                raise NotFound(f"alias of {model}", alias)
            self._point(tx, model, alias, None, actor=actor, project=project)
            self._record(
                tx,
                "alias.removed",
                f"model:{model}",
                actor=actor,
                project=project,
                before={"alias": alias, "version": before},
            )

    def aliases(self, model: str, *, project: str = DEFAULT_PROJECT) -> dict[str, int]:
        """Return the aliases of a model and the numbers that they name."""
        table = store.aliases
        query = sa.select(table.c.alias, table.c.number).where(store.of_model(table, project, model))
        with self.database.reading() as connection:
            return {row.alias: row.number for row in connection.execute(query.order_by(table.c.alias))}

    def alias_history(self, model: str, *, project: str = DEFAULT_PROJECT, limit: int = MAX_PAGE) -> list[AliasChange]:
        """Return every change of a model's aliases, newest first."""
        with self.database.reading() as connection:
            return store.alias_history(connection, project, model, limit=min(limit, MAX_PAGE))

    def _number(self, connection: sa.Connection, model: str, alias: str, project: str) -> int | None:
        condition = sa.and_(store.of_model(store.aliases, project, model), store.aliases.c.alias == alias)
        found: int | None = connection.execute(sa.select(store.aliases.c.number).where(condition)).scalar()
        return found

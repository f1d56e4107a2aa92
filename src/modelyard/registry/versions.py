"""Use cases of versions: register, read, describe, name, write out, delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from modelyard.errors import Conflict, Invalid, NotFound
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.registry import model as limits
from modelyard.registry import store
from modelyard.registry.catalog import Catalog, write_tags
from modelyard.registry.contents import checked, content_digest, pin, write_out
from modelyard.registry.lineage import LineageGraph
from modelyard.registry.model import FileRef, Stage, Version, VersionId, VersionLike, stage_name
from modelyard.registry.origin import check_metrics, described_by, origin_of
from modelyard.storage import Transaction
from modelyard.tracking import check_text

# Lineage fields that are digests of something that went into a version, and the kind of that thing.
_INGREDIENTS = ("data", "code", "environment")


class Versions(Catalog, LineageGraph):
    """Registers versions and answers for them."""

    def register_version(
        self,
        model: str,
        folder: Path,
        *,
        actor: Actor,
        project: str = DEFAULT_PROJECT,
        run_id: str | None = None,
        lineage: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        profile_digest: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Version:
        """Register the content of a folder as the next version of a model, creating the model if needed.

        Every file is pinned by its digest; content that the object store has is not stored again, and later
        changes of the folder never reach the version. Signature and engine verification are read off the folder.

        Args:
            model: Name of the model.
            folder: An MLflow model folder, or any folder of files.
            actor: Who registers; may not approve it.
            project: The project.
            run_id: Run that it came from.
            lineage: ``data``, ``code``, ``environment`` (digests), ``parameters``, ``parents`` (subjects).
                What is absent is read off the run.
            metrics: Metrics; by default the last values of the run.
            profile_digest: Object with the profile of the training data.
            description: For people.
            tags: Tags.

        Raises:
            NotFound: If there is no such run.
            BadModelFolder: If the folder is absent, or holds a link or a special file.
            Conflict: If a file changes while it is read.
        """
        limits.model_name(model)
        files = pin(folder, self.objects)
        return self.register_files(
            model,
            files,
            actor=actor,
            project=project,
            run_id=run_id,
            lineage=lineage,
            metrics=metrics,
            profile_digest=profile_digest,
            description=description,
            tags=tags,
        )

    def register_files(
        self,
        model: str,
        files: Sequence[FileRef],
        *,
        actor: Actor,
        project: str = DEFAULT_PROJECT,
        run_id: str | None = None,
        lineage: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        profile_digest: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Version:
        """Register files that are in the object store already, such as a run's artifacts.

        Arguments and errors as ``register_version``.

        Raises:
            NotFound: If a digest is not in the object store.
            Invalid: If there is no file, or their paths cannot be a folder.
        """
        limits.model_name(model)
        pinned = tuple(replace(file, size_bytes=self.objects.size(file.digest)) for file in checked(files))
        check_text("description", description, limit=limits.MAX_DESCRIPTION)
        run, origin, scores = origin_of(self._tracking, run_id, lineage=lineage or {}, metrics=metrics)
        if run is not None and run.project != project:
            raise Invalid(f"Run {run.id} belongs to project {run.project!r}, not {project!r}.")
        described = described_by(pinned, self.objects)
        with self.database.transaction() as tx:
            self._create_model(tx, model, actor=actor, project=project)
            self._model(tx, model, project)
            now = self._clock.now()
            version = Version(
                project=project,
                model=model,
                number=store.next_number(tx, project, model, now),
                content_digest=content_digest(pinned),
                stage="development",
                lineage=origin,
                run_id=run_id,
                trained_by=None if run is None else run.created_by,
                created_by=actor.name,
                created_at=now,
                updated_at=now,
                description=description,
                profile_digest=profile_digest,
                files=pinned,
                metrics=scores,
                tags=dict(tags or {}),
                signature=described.get("signature"),
                engine=described.get("engine"),
            )
            self._write(tx, version, actor=actor)
            return version

    def get_version(self, version: VersionLike) -> Version:
        """Return a version with its files.

        Raises:
            NotFound: If there is none, or it was deleted.
        """
        condition = store.of_version(store.versions, version)
        with self.database.reading() as connection:
            found = store.versions_where(connection, condition, limit=1, with_files=True)
        if not found:
            raise NotFound("version", f"{version.model}/{version.number}")
        return found[0]

    def list_versions(
        self,
        model: str,
        *,
        project: str = DEFAULT_PROJECT,
        stage: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[Version]:
        """Return at most ``limit`` versions of a model without their files, newest first, below a number."""
        conditions = [store.of_model(store.versions, project, model)]
        if stage is not None:
            conditions.append(store.versions.c.stage == stage_name(stage))
        if before is not None:
            conditions.append(store.versions.c.number < before)
        with self.database.reading() as connection:
            return store.versions_where(connection, *conditions, limit=min(limit, limits.MAX_PAGE))

    def versions_of_run(self, run_id: str) -> list[Version]:
        """Return the versions that came from a run."""
        with self.database.reading() as connection:
            return store.versions_where(connection, store.versions.c.run_id == run_id, limit=limits.MAX_PAGE)

    def resolve(self, reference: str, *, project: str = DEFAULT_PROJECT) -> Version:
        """Return the version that a reference names.

        Args:
            reference: ``name@alias``, ``name/3``, ``name/latest``, or ``name/<stage>`` (the newest one in it).
            project: The project.

        Raises:
            Invalid: If it is none of these forms.
            NotFound: If there is no such model, version or alias.
        """
        name, mark, rest = reference.partition("@")
        if not mark:
            name, mark, rest = reference.partition("/")
        if not mark or not name or not rest:
            raise Invalid(
                f"{reference!r} names no version; expected name@alias, name/3, name/latest or name/production.",
                reference=reference,
            )
        self.get_model(name, project=project)
        number = self._aliased(name, rest, project) if mark == "@" else self._numbered(name, rest, project)
        if number is None:
            raise NotFound("version", reference)
        return self.get_version(VersionId(name, number, project))

    def materialize(self, version: VersionLike, folder: Path) -> Path:
        """Write a version's files to a folder, each verified; it appears only when it is whole.

        Returns:
            The folder; one that holds exactly this content already is left as it is.

        Raises:
            NotFound: If there is no such version.
            Conflict: If the folder exists with another content.
            Corrupted: If stored bytes are damaged.
        """
        found = self.get_version(version)
        return write_out(found.files, folder, self.objects, digest=found.content_digest)

    def update_version(
        self,
        version: VersionLike,
        *,
        actor: Actor,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
    ) -> Version:
        """Describe or tag a version; its content never changes.

        Raises:
            NotFound: If there is no such version.
        """
        with self.database.transaction() as tx:
            before = self._version(tx, version)
            change: dict[str, object] = {"updated_at": self._clock.now()}
            if description is not None:
                change["description"] = check_text("description", description, limit=limits.MAX_DESCRIPTION)
            store.set_version(tx, version, **change)
            write_tags(tx, store.version_tags, store.key_of(version), set_to=tags or {}, remove=remove_tags)
            after = self._version(tx, version)
            self._record(
                tx,
                "version.updated",
                before.subject,
                actor=actor,
                project=before.project,
                before={"description": before.description, "tags": dict(before.tags)},
                after={"description": after.description, "tags": dict(after.tags)},
            )
            return after

    def log_version_metrics(self, version: VersionLike, metrics: Mapping[str, float], *, actor: Actor) -> Version:
        """Add measured metrics to a version; one measured again is replaced, and the log keeps both values.

        Raises:
            NotFound: If there is no such version.
        """
        check_metrics(metrics)
        with self.database.transaction() as tx:
            before = self._version(tx, version)
            store.set_metrics(tx, version, metrics)
            store.set_version(tx, version, updated_at=self._clock.now())
            self._record(
                tx,
                "version.measured",
                before.subject,
                actor=actor,
                project=before.project,
                before={key: before.metrics[key] for key in metrics if key in before.metrics},
                after={key: float(value) for key, value in metrics.items()},
            )
            return self._version(tx, version)

    def delete_version(self, version: VersionLike, *, actor: Actor, reason: str = "") -> None:
        """Delete a version: row, history and digests stay as a tombstone; aliases on it are removed.

        Raises:
            NotFound: If there is no such version.
            Conflict: If it is in production.
        """
        with self.database.transaction() as tx:
            before = self._version(tx, version)
            if before.stage == "production":
                raise Conflict(f"{before.model}/{before.number} is in production. Archive it first.")
            for alias in before.aliases:
                self._point(tx, before.model, alias, None, actor=actor, project=before.project)
            store.set_version(tx, version, deleted_at=self._clock.now())
            self._record(
                tx,
                "version.deleted",
                before.subject,
                actor=actor,
                project=before.project,
                before={"content_digest": before.content_digest, "stage": before.stage},
                data={"reason": reason, "aliases": list(before.aliases)},
            )

    def pinned_digests(self) -> set[str]:
        """Return every digest that a version refers to, tombstones included: a collection must keep them."""
        with self.database.reading() as connection:
            return set(store.pinned(connection))

    def _write(self, tx: Transaction, version: Version, *, actor: Actor) -> None:
        elsewhere = {"files", "metrics", "tags", "aliases"}
        row = {name: getattr(version, name) for name in Version.__slots__ if name not in elsewhere}
        tx.execute(sa.insert(store.versions).values(**row))
        key = store.key_of(version)
        rows = [
            {**key, "path": file.path, "digest": file.digest, "size_bytes": file.size_bytes} for file in version.files
        ]
        tx.execute(sa.insert(store.files), rows)
        store.set_metrics(tx, version, version.metrics)
        write_tags(tx, store.version_tags, key, set_to=version.tags)
        first = {"before": None, "after": version.stage, "reason": "registered", "via": None}
        change = {**key, **first, "actor": actor.name, "at": version.created_at, "evidence": None}
        tx.execute(sa.insert(store.stage_changes).values(**change))
        self._link_origin(tx, version)
        self._record(
            tx,
            "version.registered",
            version.subject,
            actor=actor,
            project=version.project,
            after={
                "content_digest": version.content_digest,
                "stage": version.stage,
                "run_id": version.run_id,
                "trained_by": version.trained_by,
            },
            data={
                "lineage": dict(version.lineage),
                "metrics": dict(version.metrics),
                "files": len(version.files),
                "size_bytes": sum(file.size_bytes for file in version.files),
            },
        )

    def _link_origin(self, tx: Transaction, version: Version) -> None:
        run = f"run:{version.run_id}" if version.run_id else None
        for kind in _INGREDIENTS:
            digests = version.lineage.get(kind) or ()
            for digest in [digests] if isinstance(digests, str) else digests:
                self.add_edge(
                    tx, f"{kind}:{digest}", run or version.subject, relation="used_by", project=version.project
                )
        for parent in version.lineage.get("parents") or ():
            self.add_edge(tx, parent, version.subject, relation="derived_from", project=version.project)
        if run is not None:
            self.add_edge(tx, run, version.subject, relation="produced", project=version.project)

    def _point(
        self, tx: Transaction, model: str, alias: str, number: int | None, *, actor: Actor, project: str
    ) -> None:
        key = {"project": project, "model": model, "alias": alias}
        if number is None:
            condition = [store.aliases.c[name] == value for name, value in key.items()]
            tx.execute(sa.delete(store.aliases).where(*condition))
        else:
            tx.upsert(store.aliases, {**key, "number": number})
        change = {**key, "number": number, "actor": actor.name, "at": self._clock.now()}
        tx.execute(sa.insert(store.alias_changes).values(**change))

    def _aliased(self, model: str, alias: str, project: str) -> int | None:
        condition = sa.and_(store.of_model(store.aliases, project, model), store.aliases.c.alias == alias)
        with self.database.reading() as connection:
            found: int | None = connection.execute(sa.select(store.aliases.c.number).where(condition)).scalar()
        return found

    def _numbered(self, model: str, rest: str, project: str) -> int | None:
        if rest.isascii() and rest.isdigit() and len(rest) < 10:
            return int(rest)
        stage: Stage | None = None if rest == "latest" else stage_name(rest.lower())
        found = self.list_versions(model, project=project, stage=stage, limit=1)
        return found[0].number if found else None

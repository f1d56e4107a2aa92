"""Use cases of artifacts: a run's files, each a relative key and a digest."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from modelyard.errors import NotFound
from modelyard.events import Actor
from modelyard.tracking import store
from modelyard.tracking.keys import relative_key
from modelyard.tracking.model import Artifact, ArtifactEntry
from modelyard.tracking.parts import Parts

# Files below one listed folder that are looked at; a run with more has to be listed folder by folder.
_MAX_LISTED = 100_000


class Artifacts(Parts):
    """Logs, lists, reads and removes a run's files."""

    def log_artifact(self, run_id: str, path: str, content: bytes | Path, *, actor: Actor) -> Artifact:
        """Store content under a relative key; the last content under a key wins.

        The bytes are durable before the transaction that names them.

        Raises:
            Invalid: If ``path`` is not a relative key.
            NotFound: If there is no such run.
        """
        relative_key(path)
        with self.database.reading() as connection:
            if store.run_of(connection, run_id) is None:
                raise NotFound("run", run_id)
        digest = self.objects.put(content)
        artifact = Artifact(path, digest, self.objects.size(digest))
        with self.database.transaction() as tx:
            run = self._active_run(tx, run_id)
            before = store.artifact_of(tx.connection, run_id, path)
            store.set_artifact(tx, run_id, artifact)
            self._record(
                tx,
                "artifact.logged",
                f"run:{run_id}",
                actor=actor,
                project=run.project,
                before=None if before is None else {"path": path, "digest": before.digest},
                after={"path": path, "digest": digest},
            )
        return artifact

    def get_artifact(self, run_id: str, path: str) -> Artifact:
        """Return key, digest and size of a file.

        Raises:
            Invalid: If ``path`` is not a relative key.
            NotFound: If the run has no such file.
        """
        relative_key(path)
        with self.database.reading() as connection:
            found = store.artifact_of(connection, run_id, path)
        if found is None:
            raise NotFound(f"artifact of run {run_id}", path)
        return found

    def read_artifact(self, run_id: str, path: str) -> bytes:
        """Return a file's bytes, verified against their digest."""
        return self.objects.get(self.get_artifact(run_id, path).digest)

    def list_artifacts(self, run_id: str, folder: str = "") -> list[ArtifactEntry]:
        """Return the folders and files directly below a folder, in the order of their paths.

        Raises:
            Invalid: If ``folder`` is not empty and not a relative key.
        """
        below = relative_key(folder) if folder else ""
        entries: dict[str, ArtifactEntry] = {}
        for artifact in self.walk_artifacts(run_id, folder):
            start = len(below) + 1 if below else 0
            name, slash, _ = artifact.path[start:].partition("/")
            path = artifact.path[:start] + name
            entries[path] = ArtifactEntry(path, None if slash else artifact)
        return sorted(entries.values(), key=lambda entry: entry.path)

    def walk_artifacts(self, run_id: str, folder: str = "") -> list[Artifact]:
        """Return every file below a folder, however deep."""
        below = relative_key(folder) if folder else ""
        with self.database.reading() as connection:
            return store.artifacts_of(connection, run_id, below=below, after="", limit=_MAX_LISTED)

    def delete_artifact(self, run_id: str, path: str, *, actor: Actor) -> None:
        """Take a file off the run; its bytes stay while something else names them.

        Raises:
            NotFound: If the run has no such file.
        """
        before = self.get_artifact(run_id, path)
        table = store.artifacts
        with self.database.transaction() as tx:
            run = self._active_run(tx, run_id)
            tx.execute(sa.delete(table).where(table.c.run_id == run_id, table.c.path == path))
            self._record(
                tx,
                "artifact.deleted",
                f"run:{run_id}",
                actor=actor,
                project=run.project,
                before={"path": path, "digest": before.digest},
            )

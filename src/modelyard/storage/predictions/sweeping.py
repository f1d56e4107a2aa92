"""Delete the files that no longer count, once nobody can be reading them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from modelyard.storage.database import Database
from modelyard.storage.predictions import files, manifest
from modelyard.storage.predictions.manifest import OPEN, RETIRED, SEALED


class SweepReport(NamedTuple):
    """What a sweep found.

    Attributes:
        deleted: Paths of retired files that were deleted.
        orphans: Paths of files without a manifest row that were deleted: batches that never committed.
        missing: Paths of files that count and are not there. Data is lost; restore them from a backup.
    """

    deleted: tuple[str, ...]
    orphans: tuple[str, ...]
    missing: tuple[str, ...]


def sweep(database: Database, root: Path, *, grace: int, oldest: float) -> SweepReport:
    """Delete retired files after ``grace`` sweeps, and files without a manifest row older than ``oldest``.

    Args:
        database: Holds the manifest.
        root: The store's folder.
        grace: Sweeps that a retired file survives.
        oldest: Time of change, in seconds since 1970, before which a file without a row is abandoned.
    """
    present = files.listing(root)  # before the manifest: a file committed in between is not an orphan
    with database.transaction() as tx:
        known = {file.path: file.state for file in manifest.find(tx.connection, states=(OPEN, SEALED, RETIRED))}
        deleted = manifest.age_retired(tx, grace)
    orphans = [path for path, changed in present.items() if path not in known and changed < oldest]
    missing = [
        path for path, state in known.items() if state != RETIRED and path not in present and not (root / path).exists()
    ]
    for path in (*deleted, *orphans):
        (root / path).unlink(missing_ok=True)
    return SweepReport(tuple(deleted), tuple(sorted(orphans)), tuple(sorted(missing)))
